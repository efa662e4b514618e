"""``xybridd top`` against a real daemon: its keys by textual's pilot, on a terminal, and as text."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from textual.widgets import Input, Static

from tests.support import PATIENCE_S, environment, inference
from xybridd.cli.output import daemon as connect
from xybridd.cli.top_screen import TopScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from textual.pilot import Pilot

    from tests.support import Daemon


def fill(daemon: Daemon) -> None:
    for app, models in (("kiosk", ("whisper", "kokoro")), ("robot", ("grasp",))):
        with daemon.wire() as wire:
            wire.hello(app)
            wire.call("session.start")
            records = [inference(model, "1", 20, stats={"hardware_used": "gpu"}) for model in models for _ in range(5)]
            wire.call("record.batch", seq=1, records=records, flush=True)


class Seen:
    """The screen as somebody sees it who drives it by its keys."""

    def __init__(self, screen: TopScreen, pilot: Pilot[None]) -> None:
        self.screen = screen
        self._pilot = pilot

    def text(self, name: str) -> str:
        out = Console(width=max(20, self.screen.size.width), color_system=None)
        with out.capture() as captured:
            out.print(self.screen.query_one(name, Static).content)
        return captured.get()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self._pilot.pause(0.02)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()


def on_screen(
    daemon: Daemon, size: tuple[int, int], scene: Callable[[Seen], Coroutine[Any, Any, None]], **more: Any
) -> int | None:
    """Play a scene on a screen of this size; the screen's return code."""

    async def play() -> int | None:
        asked = {"window_s": 300, "sort": "rate", "wanted": "", "every_s": 0.2, **more}
        screen = TopScreen(connect(), **asked)
        async with screen.run_test(size=size) as pilot:
            await scene(Seen(screen, pilot))
        return screen.return_code

    with environment(XYBRIDD_SOCKET=str(daemon.socket)):
        return asyncio.run(play())


def test_the_keys(daemon: Daemon) -> None:
    fill(daemon)

    async def scene(seen: Seen) -> None:
        await seen.until(lambda: "whisper" in seen.text("#table"))
        assert "last 5 min  by rate" in seen.text("#head")
        await seen.press("w", "s")
        assert "last 15 min  by calls" in seen.text("#head")
        assert "kokoro" in seen.text("#table").splitlines()[1]
        await seen.press("r")
        assert "by calls turned" in seen.text("#head")
        assert "grasp" in seen.text("#table").splitlines()[1]
        await seen.press("slash")
        assert seen.screen.query_one("#filter", Input).has_focus
        await seen.press(*"robq")  # letters are letters while a filter is typed
        assert "nothing with 'robq' in its name" in seen.text("#table")
        await seen.press("backspace", "enter")
        assert "filter: rob" in seen.text("#head")
        assert "grasp" in seen.text("#table")
        assert "whisper" not in seen.text("#table")
        await seen.press("question_mark")
        assert "q  quit" in seen.text("#table")
        await seen.press("escape")
        assert "grasp" in seen.text("#table")
        await seen.press("escape")
        assert "whisper" in seen.text("#table")
        await seen.press("q")

    assert on_screen(daemon, (80, 24), scene) == 0


def test_paused_it_stands_still(daemon: Daemon) -> None:
    fill(daemon)

    async def scene(seen: Seen) -> None:
        await seen.until(lambda: "whisper" in seen.text("#table"))
        await seen.press("p")
        assert "paused" in seen.text("#head")
        with daemon.wire() as wire:
            wire.call("record.inference", model_id="late", version="1", latency_ms=1)
        at_ms = seen.screen.state.at_ms
        for _ in range(5):
            await seen.press("s")
        assert (seen.screen.state.at_ms, "late" in seen.text("#table")) == (at_ms, False)
        await seen.press("space")
        await seen.until(lambda: "late" in seen.text("#table"))
        await seen.press("ctrl+c")

    assert on_screen(daemon, (80, 24), scene) == 130


def test_a_daemon_that_goes_and_comes_back(daemon: Daemon) -> None:
    fill(daemon)

    async def scene(seen: Seen) -> None:
        await seen.until(lambda: "whisper" in seen.text("#table"))
        assert seen.text("#said").strip() == ""
        await asyncio.to_thread(daemon.stop)
        await seen.until(lambda: "no daemon answers" in seen.text("#said"))
        assert "whisper" in seen.text("#table")
        await asyncio.to_thread(daemon.start)
        await seen.until(lambda: seen.text("#said").strip() == "")
        assert "whisper" in seen.text("#table")

    on_screen(daemon, (80, 24), scene)


def test_it_is_usable_small_and_large(daemon: Daemon) -> None:
    fill(daemon)
    for size in ((60, 20), (80, 24), (200, 50)):

        async def scene(seen: Seen, width: int = size[0]) -> None:
            await seen.until(lambda: "whisper" in seen.text("#table"))
            for name in ("#head", "#device", "#keys", "#table"):
                assert max(len(line.rstrip()) for line in seen.text(name).splitlines()) <= width
            assert ("last min" in seen.text("#table").splitlines()[0]) == (width == 200)
            assert "? help" in seen.text("#keys")

        on_screen(daemon, size, scene)


def test_on_a_terminal_it_is_live_and_without_colour_where_none_is_wanted(daemon: Daemon) -> None:
    fill(daemon)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", "top", "--every", "0.2"],
        env={**daemon.env, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while b"whisper" not in seen:
        seen += os.read(ours, 65_536)
    assert b"\x1b[31m" not in seen
    os.write(ours, b"\x03")
    try:
        while data := os.read(ours, 65_536):
            seen += data
    except OSError:  # the other end is closed
        pass
    assert process.wait(PATIENCE_S) == 130
    os.close(ours)
    assert b"Traceback" not in seen


def test_without_a_terminal_it_is_a_page_and_for_programs_json(daemon: Daemon) -> None:
    assert "xybridd record inference" in daemon.xybridd("top").stdout
    fill(daemon)
    page = daemon.xybridd("top", "--filter", "kiosk").stdout
    assert "xybridd top" in page
    assert "whisper" in page
    assert "grasp" not in page
    found = json.loads(daemon.xybridd("top", "--json", "--once", "--window", "1m", "--sort", "name").stdout)
    assert [(row["app"], row["model"], row["calls"]) for row in found["rows"]] == [
        ("kiosk", "kokoro", 5), ("kiosk", "whisper", 5), ("robot", "grasp", 5)
    ]  # fmt: skip
    assert (found["window_s"], found["rows"][0]["hardware_gpu"]) == (60, 5)
    assert found["device"]["memory"]["value"]["total_bytes"] > 0


def test_without_a_daemon_it_exits_3(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    assert daemon.xybridd("top").returncode == 3
    shown = daemon.xybridd("top", "--help", env={"COLUMNS": "80"}).stdout.splitlines()
    assert any("Example:  xybridd top" in line for line in shown)
    assert (len(shown) <= 30, max(map(len, shown)) <= 80) == (True, True)
