"""``xybridd test``: every step shown with its time, nothing left behind, and what to do when one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.outward import sending_to, told
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver

STEPS = ["connect", "hello", "session", "record", "read back", "ledger", "export", "end", "forget"]


def names(found: Any) -> list[str]:
    return [each["step"] for each in found["steps"]]


def events(receiver: Receiver) -> list[Any]:
    return [event for batch in receiver.seen()["batches"] for event in batch["events"]]


def test_each_step_with_its_time_and_nothing_left(daemon: Daemon) -> None:
    shown = daemon.xybridd("test")
    assert shown.returncode == 0
    assert [line.split("  ")[0].removeprefix("✓ ").strip() for line in shown.stdout.splitlines()[:-1]] == STEPS
    assert "all is well" in shown.stdout
    assert told(daemon, "sessions", "list") == []
    assert told(daemon, "models") == []
    assert daemon.status()["ledger"]["removed"] == {"forgotten": 1}


def test_kept_it_is_there_under_its_own_name(daemon: Daemon) -> None:
    found = told(daemon, "test", "--keep")
    assert (found["ok"], found["kept"], names(found)) == (True, True, STEPS[:-1])
    assert all(each["ms"] >= 0 and each["ok"] for each in found["steps"])
    (session,) = told(daemon, "sessions", "list")
    assert (session["app"], session["session_id"], session["labels"]) == (
        "xybridd-test", found["session_id"], {"synthetic": "true"}
    )  # fmt: skip


def test_with_upload_it_arrives_and_its_deletion_is_asked_for(
    make_daemon: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = sending_to(make_daemon, receiver)
    found = told(daemon, "test", "--upload")
    assert "accepted by xybrid" in next(each["said"] for each in found["steps"] if each["step"] == "upload")
    first = events(receiver)[0]
    assert (first["event_type"], first["session_id"]) == ("SessionExport", found["session_id"])
    until(lambda: len(events(receiver)) == 2, "the request for deletion")
    assert (events(receiver)[1]["event_type"], events(receiver)[1]["session_id"]) == (
        "SessionDeletion", found["session_id"]
    )  # fmt: skip


def test_without_upload_nothing_leaves_although_it_is_configured(
    make_daemon: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = sending_to(make_daemon, receiver)
    found = told(daemon, "test")
    assert names(found) == [step for step in STEPS if step != "end"]
    daemon.xybridd("upload", "now")
    (sink,) = daemon.status()["upload"]["sinks"]
    assert (sink["made"], events(receiver)) == (0, [])


@pytest.mark.parametrize(
    ("config", "arguments", "step", "words"),
    [
        ("", ["--upload"], "configured", "upload is off"),
        ("[limits]\nmax_sessions = 1\n", [], "session", "max_sessions"),
        (
            '[upload]\nendpoint = "http://127.0.0.1:9"\nwait_while_inferring = false\n',
            ["--upload", "--timeout", "1"], "upload", "not accepted within 1 s",
        ),
    ],
)  # fmt: skip
def test_the_step_that_fails_is_named_with_what_to_do(
    make_daemon: Callable[..., Daemon], config: str, arguments: list[str], step: str, words: str
) -> None:
    daemon = make_daemon(config, {"XYBRID_API_KEY": "a-key-for-nobody"} if "upload" in config else {}).start()
    with daemon.wire() as wire:
        wire.hello()
        wire.call("session.start")
        done = daemon.xybridd("test", *arguments)
        assert done.returncode == 1
        *_, failed, todo = done.stdout.splitlines()
        assert failed.startswith(f"✗ {step}")
        assert words in failed
        assert "what to do: see xybridd" in todo
        found = told(daemon, "test", *arguments, exits=1)
        assert (found["ok"], names(found)[-1]) == (False, step)
        assert [each["app"] for each in wire.call("session.list")["sessions"]] == ["test"]


def test_without_a_daemon_it_exits_3(make_daemon: Callable[..., Daemon]) -> None:
    done = make_daemon().xybridd("test")
    assert (done.returncode, done.stdout) == (3, "")
    assert "xybridd run" in done.stderr
