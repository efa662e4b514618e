"""``xybridd dashboard`` as a process, asked over HTTP and looked at in a real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.report.week import make_week, write_week
from tests.support import PATIENCE_S, Daemon, inference, until
from xybridd.cli import dashboard_feed
from xybridd.cli.minutes import read_minutes
from xybridd.core.minute import MINUTE_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.report.browser import Chromium, Page
    from xybridd.core.minute import AppMinute

_LIVE = "document.getElementById('live').textContent"
_CALLS = "document.querySelectorAll('.numbers dd')[4].textContent"


class Dashboard:
    """The command, and the address that it says."""

    def __init__(self, daemon: Daemon, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xybridd", "dashboard", "--no-open", *options],
            env=daemon.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = next((word for word in self.line.split() if word.startswith("http://")), "")
        assert self.url, self.process.communicate()
        self.port = urlsplit(self.url).port or 0
        self.path = urlsplit(self.url).path

    def ask(self, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        answer = connection.getresponse()
        found = answer.status, dict(answer.headers.items()), answer.read()
        connection.close()
        return found

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def start() -> Iterator[Callable[..., Dashboard]]:
    running: list[Dashboard] = []

    def start_(daemon: Daemon, *options: str) -> Dashboard:
        running.append(Dashboard(daemon, *options))
        return running[-1]

    yield start_
    for each in running:
        each.process.kill()
        each.process.communicate(timeout=PATIENCE_S)


def record(daemon: Daemon, calls: int, model: str = "m") -> None:
    with daemon.wire() as wire:
        for _ in range(calls):
            wire.call("record.inference", model_id=model, version="1", latency_ms=20)


def test_it_is_for_who_has_the_token_and_asks_for_this_host(daemon: Daemon, start: Callable[..., Dashboard]) -> None:
    record(daemon, 3)
    dashboard = start(daemon)
    assert dashboard.line.startswith("the dashboard is at http://127.0.0.1:")
    token = dashboard.path.strip("/")
    assert len(token) >= 43
    status, headers, body = dashboard.ask(dashboard.path)
    assert (status, body[:15]) == (200, b"<!DOCTYPE html>")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert not [name for name in headers if name.lower().startswith("access-control")]

    other = ("A" if token[0] != "A" else "B") + token[1:]
    for path in (
        "/",
        "/live.json",
        f"/{other}/",
        f"/{other}/live.json",
        f"/{token[:-1]}/",
        f"/{token}x/",
        "//",
    ):
        status, _, body = dashboard.ask(path)
        assert (status, b"html" in body) == (403, False), path
    for host in (
        "evil.example",
        f"evil.example:{dashboard.port}",
        "127.0.0.1",
        f"127.0.0.1:{dashboard.port}.evil.example",
    ):
        assert dashboard.ask(dashboard.path, host)[0] == 403, host
        assert dashboard.ask(f"{dashboard.path}live.json", host)[0] == 403, host
    with socket.create_connection(("127.0.0.1", dashboard.port), PATIENCE_S) as raw:
        raw.sendall(b"GET /\xff\xfe/ HTTP/1.1\r\nHost: \xff\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.0 403 ")
    assert dashboard.ask(dashboard.path, f"localhost:{dashboard.port}")[0] == 200
    assert dashboard.ask(f"{dashboard.path}other")[0] == 404
    assert dashboard.ask(dashboard.path, method="POST")[0] == 501

    found = json.loads(dashboard.ask(f"{dashboard.path}live.json")[2])
    assert "<dd>3</dd>" in found["sections"]["numbers"]


def test_it_listens_on_loopback_alone_and_only_while_it_runs(daemon: Daemon, start: Callable[..., Dashboard]) -> None:
    dashboard = start(daemon)
    listening = _listening(dashboard.process.pid)
    assert listening == {("0100007F", dashboard.port)}
    assert _listening(daemon.pid) == set()
    code, out, err = dashboard.end()
    assert (code, out, err) == (0, "", "")
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", dashboard.port)) != 0


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports that a process listens at; /proc/net/tcp has them in hexadecimal digits."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("/proc/net/tcp is not there to be read")
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(descriptor.readlink()))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                address, port = parts[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_it_ends_after_its_time_and_says_why_it_cannot_begin(daemon: Daemon, start: Callable[..., Dashboard]) -> None:
    assert start(daemon, "--for", "0.1s").process.wait(PATIENCE_S) == 0
    dashboard = start(daemon)
    taken = daemon.xybridd("dashboard", "--no-open", "--port", str(dashboard.port))
    assert (taken.returncode, "cannot listen" in taken.stderr) == (1, True)
    assert dashboard.end(signal.SIGTERM)[0] == 0
    daemon.stop()
    assert daemon.xybridd("dashboard", "--no-open").returncode == 3


def test_the_numbers_are_those_of_the_report_whatever_was_settled(
    daemon: Daemon, start: Callable[..., Dashboard]
) -> None:
    """A minute that is still open, one of a daemon before, one that was forgotten: each counts once or not at all."""
    record(daemon, 3, "before")
    daemon.kill()
    daemon.start()
    dashboard = start(daemon)

    def calls() -> str:
        numbers: str = json.loads(dashboard.ask(f"{dashboard.path}live.json")[2])["sections"].get("numbers", "")
        return numbers.partition("<dt>Calls</dt><dd>")[2].partition("<")[0]

    assert calls() == "3"
    record(daemon, 4)
    until(lambda: calls() == "7", "what was recorded to be shown")
    with daemon.wire() as wire:
        wire.call("data.forget", all=True)
    until(lambda: calls() == "", "what was forgotten to be gone")
    record(daemon, 2)
    until(lambda: calls() == "2", "what was recorded to be shown")


def test_what_is_settled_is_read_once_and_what_goes_on_each_time(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a horizon at this moment: the open minute that lies behind it may yet grow."""
    asyncio.run(_stop_and_fill(daemon))
    for name in ("_SETTLED_MS", "_FRESH_S", "_RESTING"):
        monkeypatch.setattr(dashboard_feed, name, 0)
    read: list[int] = []

    def counted(*given: Any, **wanted: Any) -> Iterator[AppMinute]:
        for number, minute in enumerate(read_minutes(*given, **wanted)):
            read.append(number)
            yield minute

    monkeypatch.setattr(dashboard_feed, "read_minutes", counted)
    monkeypatch.setattr(dashboard_feed.Feed, "_is_old", lambda *_: False)
    monkeypatch.setenv("XYBRIDD_SOCKET", str(daemon.socket))
    feed = dashboard_feed.Feed(86_400, None)
    with daemon.wire() as wire:
        wire.call("record.inference", model_id="m", version="1", latency_ms=20)
        settled = feed.now().report.totals.calls
        once = len(read)
        for more in range(1, 4):
            wire.call("record.inference", model_id="m", version="1", latency_ms=20)
            assert feed.now().report.totals.calls == settled + more
    assert len(read) == once > 100


async def _stop_and_fill(daemon: Daemon) -> None:
    daemon.stop()
    await write_week(daemon.data, make_week(int(time.time() * 1000) - MINUTE_MS))
    daemon.start()


# In a browser


@pytest.fixture
def tab(daemon: Daemon, start: Callable[..., Dashboard], chromium: Chromium) -> Iterator[Page]:
    """A dashboard that is looked at; it shows three calls."""
    record(daemon, 3)
    dashboard = start(daemon)
    shown = chromium.page(dashboard.url, prefers_color_scheme="light")
    until(lambda: shown.run("document.getElementById('live-at').textContent"), "the page to be live")
    yield shown
    assert {urlsplit(url).netloc for url in shown.requests() if not url.startswith("data:")} == {
        f"127.0.0.1:{dashboard.port}"
    }
    shown.close()


def test_the_page_follows_what_is_recorded_and_stays_where_it_is(daemon: Daemon, tab: Page) -> None:
    assert tab.run(_CALLS) == "3"
    tab.run("window.sameDocument = true")
    tab.run("document.querySelector('#calls-0 details').open = true")
    tab.run("document.getElementById('theme').click()")
    tab.run("document.getElementById('theme').click()")
    ground = tab.run("getComputedStyle(document.documentElement).backgroundColor")
    tab.run("document.querySelector('#calls-0 .plot').focus()")
    tab.run("scrollTo({top: 500, behavior: 'instant'})")
    with daemon.wire() as wire:
        wire.hello("kiosk")
        wire.call("session.start")
        wire.call("record.batch", seq=1, records=[inference("n", latency_ms=30)] * 4, flush=True)
    until(lambda: tab.run(_CALLS) == "7", "the page to follow")
    assert tab.run("window.sameDocument")
    assert tab.run("document.querySelector('#calls-0 details').open")
    assert tab.run("getComputedStyle(document.documentElement).backgroundColor") == ground
    assert tab.run("document.documentElement.dataset.theme") == "dark"
    assert tab.run("document.activeElement === document.querySelector('#calls-0 .plot')")
    assert abs(tab.run("scrollY") - 500) < 60
    assert tab.run("document.querySelectorAll('#models tbody tr').length") >= 2
    tab.run("localStorage.clear()")
    assert tab.complaints() == []


def test_the_page_says_that_the_daemon_is_gone_and_goes_on_when_it_is_back(daemon: Daemon, tab: Page) -> None:
    daemon.kill()
    until(lambda: tab.run(_LIVE).startswith("The daemon is gone"), "the page to say so")
    assert tab.run(_CALLS) == "3", "what was known stays"
    daemon.start()
    record(daemon, 2)
    until(lambda: tab.run(_CALLS) == "5", "the page to go on")
    assert tab.run(_LIVE) == "Live"
    assert tab.complaints() == []


def test_a_page_that_began_with_nothing_fills_itself(
    daemon: Daemon, start: Callable[..., Dashboard], chromium: Chromium
) -> None:
    dashboard = start(daemon)
    tab = chromium.page(dashboard.url)
    assert "Nothing was recorded" in tab.run("document.querySelector('main').textContent")
    record(daemon, 2)
    until(lambda: tab.run("document.querySelectorAll('main > section').length") > 5, "the sections to come")
    assert tab.run(_CALLS) == "2"
    assert tab.run("document.querySelectorAll('nav a').length") > 5
    dashboard.end()
    until(lambda: "has ended" in tab.run(_LIVE), "the page to say that the dashboard ended")
    tab.close()
