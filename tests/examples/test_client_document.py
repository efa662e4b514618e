"""docs/clients.md says what is sent byte for byte: here it is sent, and what comes back is compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon, Wire

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")

_UUID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

#: What the document's placeholders stand for.
PLACEHOLDERS = {
    "daemon_version": rb"\d+\.\d+\.\d+[^\"]*",
    "device_id": _UUID,
    "session_id": _UUID,
    "message": rb'(?:[^"\\]|\\.)+',
    "export": rb"\{.*\}",
    "device": rb"\{.*\}",
}


class Step(NamedTuple):
    """What is sent, then the answers to it; or the connection breaks."""

    sent: list[bytes]
    heard: list[bytes]
    breaks: bool = False


def section(title: str) -> str:
    """From a heading to the next."""
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def steps(title: str) -> Iterator[Step]:
    """The blocks of a section as one exchange."""
    lines = re.findall(r"^    ([→←✂]) ?(.*)$", section(title), re.MULTILINE)
    assert lines, title
    sent: list[bytes] = []
    heard: list[bytes] = []
    for sign, line in lines:
        if sign == "←":
            heard.append(line.encode())
            continue
        if heard:
            yield Step(sent, heard)
            sent, heard = [], []
        if sign == "✂":
            yield Step(sent, [], breaks=True)
            sent = []
        else:
            sent.append(line.encode())
    yield Step(sent, heard)


def pattern(line: bytes) -> bytes:
    """A line of the document as what it may be in reality."""
    return b"".join(
        re.escape(part) if not part.startswith(b"<") else one_of(part) or PLACEHOLDERS[part[1:-1].decode()]
        for part in re.split(rb"(<\w[\w ]*>)", line)
    )


def one_of(placeholder: bytes) -> bytes | None:
    """``<1 to 3>`` is one of these."""
    bounds = re.fullmatch(rb"<(\d) to (\d)>", placeholder)
    return b"[%b-%b]" % (bounds[1], bounds[2]) if bounds else None


def request_id(line: bytes) -> str:
    return json.dumps(json.loads(re.sub(rb"<[^>\"]+>", b"0", line))["id"])


def hold(wire: Wire, step: Step) -> None:
    """Send what the document sends at once, and compare each answer with the one that has its id."""
    wire.sock.sendall(b"".join(line + b"\n" for line in step.sent))
    if step.breaks:
        return
    answers = [wire.reader.readline() for _ in step.heard]
    by_id = {request_id(answer): answer for answer in answers}
    for line in step.heard:
        answer = by_id[request_id(line)]
        assert re.fullmatch(pattern(line) + b"\n", answer, re.DOTALL), (line, answer)


@pytest.mark.parametrize("broken_by", ["the connection", "a kill"])
def test_the_exchange_with_a_break_in_its_midst(daemon: Daemon, broken_by: str) -> None:
    breaks = 0
    wire = daemon.wire()
    for step in steps("The exchange"):
        hold(wire, step)
        if step.breaks:
            breaks += 1
            if broken_by == "a kill":
                daemon.kill()
                daemon.start()
            wire.close()
            wire = daemon.wire()
    wire.close()
    assert breaks == 1
    (session,) = json.loads(daemon.xybridd("sessions", "list", "--json").stdout)
    assert (session["app"], session["end_reason"], session["labels"]) == ("kiosk", "ended", {"site": "42"})
    assert (session["total_inferences"], session["error_count"]) == (3, 1)
    assert daemon.status()["ledger"]["missing_batches"] == 0


def test_the_daemon_that_has_enough(make_daemon: Callable[[str], Daemon]) -> None:
    """The document's one answer that may wait; it waits for long enough that the next ones find it waiting."""
    daemon = make_daemon("[limits]\nmax_waiting_answers = 1\n[storage]\ncommit_interval_ms = 3000\n").start()
    with daemon.wire() as wire:
        for step in steps("Not now"):
            hold(wire, step)
        found = wire.call("session.get")
    assert (found["total_inferences"], found["total_latency_ms"]) == (3, 6)


@pytest.mark.parametrize(("title", "inferences"), [("Not at all", 0), ("Notifications", 2)])
def test_errors_and_notifications(daemon: Daemon, title: str, inferences: int) -> None:
    with daemon.wire() as wire:
        for step in steps(title):
            hold(wire, step)
        found = wire.call("session.list")["sessions"]
    assert sum(session["total_inferences"] for session in found) == inferences


def test_every_placeholder_is_explained() -> None:
    used = set(re.findall(r"<(\w+)>", TEXT))
    explained = {name for row in re.findall(r"^\|(.*?)\|", section("The exchange"), re.MULTILINE) for name in
                 re.findall(r"`<(\w+)>`", row)}  # fmt: skip
    assert used == explained == set(PLACEHOLDERS)


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed (Debian: netcat-openbsd)")
def test_the_lines_without_a_client(daemon: Daemon) -> None:
    lines = re.findall(r"^    \$ (.*)$", section("Without a client"), re.MULTILINE)
    answers = [
        json.loads(
            subprocess.run(
                ["sh", "-c", line], env=daemon.env, capture_output=True, text=True, timeout=PATIENCE_S, check=True
            ).stdout
        )
        for line in lines
    ]
    assert len(answers) == 2
    (session_id,) = {answer["result"]["session_id"] for answer in answers}
    found = json.loads(daemon.xybridd("sessions", "show", session_id, "--json").stdout)
    assert (found["total_inferences"], found["error_count"]) == (1, 1)
    assert found["extensions"]["app"] == "nc"


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed (Debian: gcc and libc6-dev)")
def test_the_lines_that_build_and_run_the_one_in_c(daemon: Daemon, tmp_path: Path) -> None:
    build, run = re.findall(r"^    \$ (.*)$", TEXT[: TEXT.index("## Without a client")], re.MULTILINE)
    root = Path(__file__).parents[2]
    build = build.replace("examples/", f"{root}/examples/")
    done = subprocess.run(
        ["sh", "-c", f"{build} && {run}"],
        cwd=tmp_path, env=daemon.env, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recorded=3 acknowledged=3 " in done.stdout
