"""Clients whose requests are refused for a permanent reason are listed in ``daemon.status``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import new_id, producer
from tests.daemon.test_other_user import NOBODY, as_nobody
from tests.support import WireFailure, inference, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon, Wire


def refused(wire: Wire, method: str, **params: Any) -> WireFailure:
    with pytest.raises(WireFailure) as failure:
        wire.call(method, **params)
    return failure.value


def listed(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.status()["refused_clients"]
    return found


def test_equal_refusals_are_one_entry_with_a_count(daemon: Daemon) -> None:
    assert listed(daemon) == []
    with daemon.wire() as wire:
        for _ in range(3):
            failure = refused(wire, "hello", app="kiosk", client_id="no UUID")
    (entry,) = listed(daemon)
    last_at_ms = entry.pop("last_at_ms")
    assert abs(last_at_ms - time.time() * 1000) < 60_000
    assert entry == {
        "uid": os.getuid(), "app": "kiosk", "method": "hello", "code": "invalid_params",
        "message": failure.message, "count": 3,
    }  # fmt: skip


def test_the_app_is_the_one_that_hello_named_and_the_latest_stands_first(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello("kiosk")
        refused(wire, "session.start", labels={"site": 42})
        refused(wire, "ring.attach")
        refused(wire, "ring.drain")
    assert [(each["method"], each["app"]) for each in listed(daemon)] == [
        ("ring.drain", "kiosk"), ("ring.attach", "kiosk"), ("session.start", "kiosk")
    ]  # fmt: skip


def test_other_methods_are_not_listed(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello("kiosk")
        refused(wire, "record.batch", seq=1, records=[inference(latency_ms=-1)])
        refused(wire, "session.get", session_id=new_id())
        refused(wire, "no.such.method")
    assert listed(daemon) == []


def test_a_refusal_that_may_be_tried_again_is_not_listed(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_sessions = 1\n").start()
    with daemon.wire() as first, daemon.wire() as second:
        first.hello()
        first.call("session.start")
        second.hello()
        assert refused(second, "session.start").code == "overloaded"
    assert listed(daemon) == []


def test_memory_is_bounded_and_texts_are_cut(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        for number in range(40):
            refused(wire, "hello", app=f"app-{number}", client_id=1)
        refused(wire, "hello", app="x" * 10_000, client_id=1)
    found = listed(daemon)
    assert len(found) == 16
    assert [each["app"] for each in found[1:]] == [f"app-{number}" for number in range(39, 24, -1)]
    assert len(found[0]["app"]) == 128


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_others_see_only_their_own(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[socket]\nmode = "0666"\n').start()
    daemon.folder.parent.chmod(0o755)
    wire, session_id = producer(daemon)
    with wire:
        refused(wire, "session.start", labels=1)
        *_, status = as_nobody(
            daemon,
            ("hello", {"app": "theirs", "client_id": new_id(), "session_id": session_id}),
            ("session.start", {"session_id": "no UUID"}),
            ("daemon.status", {}),
        )
    assert {each["uid"] for each in status["result"]["refused_clients"]} == {NOBODY}
    assert {each["uid"] for each in listed(daemon)} == {NOBODY, 0}


#: Records once, and lives until its standard input ends.
AN_APP = """
import sys, xybridd
client = xybridd.connect(app="kiosk")
client.record_inference("m", "1", 5.0)
client.flush(30)
print("on", flush=True)
sys.stdin.read()
"""


def test_status_counts_attached_rings(daemon: Daemon) -> None:
    assert daemon.status()["rings"] == {"attached": 0}
    with subprocess.Popen(
        [sys.executable, "-c", AN_APP], env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"on\n"
        assert daemon.status()["rings"] == {"attached": 1}
    until(lambda: daemon.status()["rings"] == {"attached": 0}, "the ring to be closed")
