from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from xybridd.daemon.logs import _FORMATTERS, Format, format_for, priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon


def record(level: int = logging.WARNING, message: str = "the disk is %s") -> logging.LogRecord:
    made = logging.LogRecord("xybridd.x", level, __file__, 1, message, ("full",) if "%" in message else (), None)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    return made


def shown(asked: Format, of: logging.LogRecord) -> str:
    return _FORMATTERS[asked]().format(of)


def test_how_a_line_looks() -> None:
    plain = "2023-11-14T22:13:20.250Z WARNING xybridd.x: the disk is full"
    assert shown("plain", record()) == plain
    assert shown("terminal", record()) == f"\033[33m{plain}\033[0m"
    assert "\033" not in shown("terminal", record(logging.INFO))
    assert shown("journal", record()) == "<4>xybridd.x: the disk is full"
    assert json.loads(shown("json", record())) == {
        "at": "2023-11-14T22:13:20.250Z", "level": "warning", "logger": "xybridd.x", "message": "the disk is full",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_priorities_are_those_of_syslog(level: int, number: int) -> None:
    assert priority(level) == number


def test_every_line_of_a_traceback_has_its_priority() -> None:
    failed = record(logging.ERROR)
    try:
        raise ValueError("boom")
    except ValueError:
        failed.exc_info = sys.exc_info()
    lines = shown("journal", failed).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    assert "boom" in json.loads(shown("json", failed))["traceback"]


def test_what_fits_the_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with (tmp_path / "log").open("w") as file:
        assert format_for("auto", file) == "plain"
        found = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert format_for("auto", file) == "journal"
        assert format_for("plain", file) == "plain"
        assert format_for("json", file) == "json"
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert format_for("auto", file) == "plain"
    assert format_for("auto", io.StringIO()) == "plain"
    leader, follower = os.openpty()
    with os.fdopen(leader, "r"), os.fdopen(follower, "w") as terminal:
        assert format_for("auto", terminal) == "terminal"
        monkeypatch.setenv("NO_COLOR", "1")
        assert format_for("auto", terminal) == "plain"


def test_a_daemon_logs_json_when_asked(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[log]\nformat = "json"\n').start()
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.said().splitlines()]
    assert any("ready" in line["message"] for line in lines)


def test_a_log_that_nobody_reads_any_more_does_not_end_it(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", "run"], env=daemon.env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert daemon.process.stderr is not None
    while b"ready" not in daemon.process.stderr.readline():
        pass
    daemon.process.stderr.close()
    assert daemon.status()["state"] == "ok"
    assert daemon.stop() == 0


def test_a_first_run_at_a_terminal_ends_with_a_green_line(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    for recorded, colour in ((False, True), (True, False)):
        leader, follower = os.openpty()
        daemon.process = subprocess.Popen(
            [sys.executable, "-m", "xybridd", "run"], env=daemon.env, stderr=follower, stdin=subprocess.DEVNULL
        )
        os.close(follower)
        seen = b""
        while b"xybridd record inference" not in seen and b"ready" not in seen:
            seen += os.read(leader, 4096)
        if colour:
            while b"\x1b[32mit runs; in another terminal: xybridd record inference" not in seen:
                seen += os.read(leader, 4096)
        assert recorded or daemon.xybridd("record", "inference", "m", "1", "5").returncode == 0
        assert daemon.stop() == 0
        with suppress(OSError):  # the other end is closed: Linux says EIO
            while piece := os.read(leader, 4096):
                seen += piece
        os.close(leader)
        assert (b"in another terminal" in seen) is colour
