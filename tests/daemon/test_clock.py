"""A real daemon under a clock that is set while it runs (libfaketime); its monotonic clock goes on as it is."""

from __future__ import annotations

import json
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, new_id, producer
from tests.support import RECEIVER_KEY, inference, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not there (apt-get install faketime)")

SINCE_1970_S = int(time.time()) - 600
DAY_S = 86_400


class Wall:
    """What the daemon's wall clock shows: ours, moved by so many seconds."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, by_s: int) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{by_s:+d}\n")
        draft.replace(self._file)


@pytest.fixture
def wall(folder: Path) -> Wall:
    return Wall(folder)


def session(daemon: Daemon, session_id: str) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def test_a_boot_in_1970_is_mended_when_the_clock_is_set(
    make_daemon: Callable[..., Daemon], wall: Wall, receiver: Receiver
) -> None:
    wall.set(-SINCE_1970_S)
    daemon = make_daemon(
        f'[upload]\nendpoint = "{receiver.url}"\nwait_while_inferring = false\n',
        {**wall.env, "XYBRID_API_KEY": RECEIVER_KEY},
    ).start()
    began_ms = time.time() * 1000
    wire, ended = producer(daemon)
    with wire:
        batch(wire, 1)
        wire.call("session.end")
    assert session(daemon, ended)["started_at"] < DAY_S * 1000
    client_id = new_id()
    with daemon.wire() as wire:
        wire.hello(client_id=client_id)
        going_on = wire.call("session.start")["session_id"]
        batch(wire, 1)
        queued_ms = int((time.time() - SINCE_1970_S) * 1000)  # by the producer's clock, before it is set
        # Killed in 1970, and started again when the clock is right.
        daemon.kill()
    wall.set(0)
    daemon.start()
    with daemon.wire() as wire:
        wire.hello(client_id=client_id, session_id=going_on)
        wire.call("record.batch", seq=2, records=[inference("late", timestamp_ms=queued_ms)], flush=True)
        metrics = wire.call("session.get")
    now_ms = time.time() * 1000
    for shown in (metrics, session(daemon, ended)):
        times = [shown["started_at"], *(model["last_called"] for model in shown["by_model"].values())]
        assert all(began_ms - 2000 <= each <= now_ms + 2000 for each in times), times
    assert metrics["total_inferences"] == 2
    # The export that was made in 1970 is followed by one with the true times.
    until(lambda: (ended, 2) in receiver.counts(), "a new revision")
    (event,) = json.loads(receiver.last_body())["events"]
    assert abs(datetime.fromisoformat(event["payload"]["session"]["started_at"]).timestamp() * 1000 - began_ms) < 60_000
    assert event["payload"]["metrics"]["total_inferences"] == 1
    assert set(receiver.counts().values()) == {1}


def _counted(receiver: Receiver, session_id: str) -> bool:
    return (session_id, 1) in receiver.counts()


def test_steps_of_a_day_change_nothing_and_stall_nothing(
    make_daemon: Callable[..., Daemon], wall: Wall, receiver: Receiver
) -> None:
    wall.set(0)
    daemon = make_daemon(
        f'[upload]\nendpoint = "{receiver.url}"\nwait_while_inferring = false\nmax_requests_per_minute = 1000\n',
        {**wall.env, "XYBRID_API_KEY": RECEIVER_KEY},
    ).start()
    first, kept = producer(daemon)
    with first:
        batch(first, 1)
        before = first.call("session.get")
        for step_s in (DAY_S, 0, -DAY_S, 0):
            wall.set(step_s)
            wire, ended = producer(daemon)
            with wire:
                batch(wire, 1)
                wire.call("session.end")
            until(partial(_counted, receiver, ended), "an export, whatever the wall clock shows")
        after = session(daemon, kept)
    assert (after["started_at"], after["by_model"]) == (before["started_at"], before["by_model"])
    assert list(receiver.counts().values()) == [1] * 4


def test_a_receiver_that_is_down_is_asked_no_more_and_no_less_for_a_clock_that_jumps(
    make_daemon: Callable[..., Daemon], wall: Wall
) -> None:
    wall.set(0)
    daemon = make_daemon(
        '[upload]\nendpoint = "http://127.0.0.1:1"\nwait_while_inferring = false\n',
        {**wall.env, "XYBRID_API_KEY": RECEIVER_KEY},
    ).start()
    wire, _ = producer(daemon)
    with wire:
        batch(wire, 1)
        wire.call("session.end")
    until(lambda: daemon.status()["upload"]["sinks"][0]["failures"] >= 3, "the circuit breaker")
    waited_s = daemon.status()["upload"]["sinks"][0]["next_attempt_in_s"]
    for step_s in (DAY_S, -DAY_S):
        wall.set(step_s)
        wire, _ = producer(daemon)
        with wire:
            batch(wire, 1)
        sink = daemon.status()["upload"]["sinks"][0]
        # The wait goes on as it was: neither over at once nor a day longer.
        assert 0 < sink["next_attempt_in_s"] <= waited_s
        assert sink["failures"] == 3
