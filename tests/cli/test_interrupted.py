"""Calls that were in progress when their process disappeared, and calls that were cancelled, in every command."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.outward import told
from tests.support import until

if TYPE_CHECKING:
    from tests.support import Daemon

#: Finishes a call, cancels a call, starts a call, and waits until it is killed.
AN_APP = """
import sys, xybridd
client = xybridd.connect(app="kiosk")
client.record_inference("whisper", "1.0", 212.0)
try:
    with client.inference("whisper", "1.0"):
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
client.inference("llama-3.2-3b", "1.0").__enter__()
client.flush(30)
print("on", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lost(daemon: Daemon) -> dict[str, Any]:
    """The line of a session whose process disappeared during a call."""
    app = subprocess.Popen(
        [sys.executable, "-c", AN_APP], env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert app.stdin is not None
    assert app.stdout is not None
    assert app.stdout.readline() == b"on\n"
    app.kill()
    app.wait()
    app.stdin.close()
    app.stdout.close()

    def found() -> dict[str, Any] | None:
        (row,) = told(daemon, "sessions", "list")
        return row if row["processes"] else None

    row: dict[str, Any] = until(found, "the daemon to notice the lost process")
    return row


def test_a_session_lists_its_lost_process_and_the_call_in_progress(daemon: Daemon, lost: dict[str, Any]) -> None:
    (interrupted,) = lost["calls_in_progress"]
    assert lost["processes"] == {"lost": 1}
    assert (interrupted["model_id"], interrupted["version"]) == ("llama-3.2-3b", "1.0")
    assert interrupted["running_ms"] >= 0
    shown = daemon.xybridd("sessions", "show").stdout
    assert "processes: 1 lost\n" in shown
    assert "in progress when lost: llama-3.2-3b 1.0, running for " in shown


def test_errors_list_interrupted_calls_apart(daemon: Daemon, lost: dict[str, Any]) -> None:
    shown = daemon.xybridd("errors").stdout
    _, _, section = shown.partition("Interrupted calls\n")
    assert section.splitlines()[1].split()[:3] == ["llama-3.2-3b", "1.0", "kiosk"]
    assert lost["session_id"][:8] in section
    assert told(daemon, "errors") == []
    (row,) = told(daemon, "errors", "--interrupted")
    assert (row["model"], row["version"], row["app"]) == ("llama-3.2-3b", "1.0", "kiosk")
    assert (row["session_id"], row["ended_ms"]) == (lost["session_id"], None)
    assert row["running_ms"] == lost["calls_in_progress"][0]["running_ms"]
    assert "model,version,app,running_ms,ended_ms" in daemon.xybridd("errors", "--interrupted", "--csv").stdout
    assert told(daemon, "errors", "--interrupted", "--app", "robot") == []
    assert "Interrupted" not in daemon.xybridd("errors", "--app", "robot").stdout


def test_cancelled_calls_are_counted_by_model(daemon: Daemon, lost: dict[str, Any]) -> None:
    del lost
    (whisper,) = told(daemon, "models")
    assert (whisper["calls"], whisper["errors"], whisper["cancelled"]) == (1, 0, 1)
    assert [row["cancelled"] for row in told(daemon, "stats", "--by", "app")] == [1]
    assert [row["cancelled"] for row in told(daemon, "stats", "--by", "hardware")] == [None]
    for command in (("sessions", "show"), ("models",), ("stats",)):
        assert "cancelled" in daemon.xybridd(*command).stdout


def test_without_cancelled_and_interrupted_calls_nothing_is_shown_of_them(daemon: Daemon) -> None:
    daemon.xybridd("record", "inference", "m", "1", "5")
    for command in (("sessions", "show"), ("models",), ("stats",), ("errors",)):
        shown = daemon.xybridd(*command).stdout
        assert not {"cancelled", "Interrupted", "processes"} & set(shown.split())
    assert "no process disappeared during a call" in daemon.xybridd("errors", "--interrupted").stdout
    assert daemon.xybridd("errors", "--interrupted", "--by-category").returncode == 2
