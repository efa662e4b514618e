"""The daemon reads rings: whatever is in them, each record is counted once or rejected with its reason."""

from __future__ import annotations

import math
import os
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rings import AT_S, RingWire, Written
from tests.support import WireFailure, inference, ledger_balances, until
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon

CONFIG = "[storage]\ncommit_interval_ms = 20\n[session]\nlost_after_s = 0.2\n"


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(CONFIG).start()


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[RingWire]:
    with RingWire(daemon.socket) as wire:
        yield wire


@pytest.fixture
def written(folder: Path, wire: RingWire) -> Iterator[Written]:
    """A ring with a session, attached to the daemon by its client."""
    written = Written(folder / "rings")
    wire.hello(app="ringing", client_id=written.client_id)
    written.start("site", "42")
    wire.attach(written)
    yield written
    written.ring.close()


def session(daemon: Daemon, session_id: str) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def test_calls_errors_and_stats_are_counted_in_the_rings_session(
    daemon: Daemon, wire: RingWire, written: Written
) -> None:
    written.calls(3, 12.5)
    words = struct.pack("<IId", 7, 11, 41.5)
    bits = (3 | 4) << layout.STATS_SHIFT | 2 << layout.HARDWARE_SHIFT | 1 << layout.TARGET_SHIFT
    number = written.slot(layout.INFERENCE, written.model(), latency_ms=2, bits=bits, words=words)
    more = struct.pack("<d", 412.0)
    written.slot(layout.MORE_STATS, written.model(), bits=32 << layout.STATS_SHIFT, words=more, call=number)
    written.error("CUDA out of memory", written.model())
    written.error("of no model", category=2)
    written.slot(layout.CANCELLED, written.model(), latency_ms=7.0)
    written.slot(layout.VOID)
    assert wire.flush(written) == {"last_seq": written.ring.last, "session_id": written.session_id, "replaced": False}
    found = session(daemon, written.session_id)
    assert (found["total_inferences"], found["total_latency_ms"], found["error_count"]) == (4, 3 * 13 + 2, 2)
    assert found["started_at"] == 1796000000000
    assert [(each["category"], each["model_id"]) for each in found["errors"]] == [
        ("Hardware", "m"),
        ("Preprocessing", None),
    ]
    assert found["by_model"]["m@1"]["last_called"] == int(AT_S * 1000)
    more = found["extensions"]
    assert (more["app"], more["labels"]) == ("ringing", {"site": "42"})
    model = more["models"]["m@1"]
    assert model["cancelled"] == 1
    assert model["latency_ms"]["max"] == 12.5
    stats = model["stats"]
    assert (stats["input_tokens"]["total"], stats["output_tokens"]["total"], stats["memory_peak_mb"]["max"]) == (
        7,
        11,
        412,
    )
    assert stats["tokens_per_second"]["mean"] == 41.5
    assert (stats["hardware_used"], stats["execution_target"]) == ({"gpu": 1}, {"local": 1})
    assert written.word(layout.DURABLE) == written.ring.last
    assert written.word(layout.COUNTED) == 7


def test_a_ring_wraps_as_often_as_it_likes(daemon: Daemon, wire: RingWire, written: Written) -> None:
    for _ in range(20):
        written.calls(40)
        wire.flush(written)
    assert session(daemon, written.session_id)["total_inferences"] == 800
    assert written.word(layout.LIMIT) == written.ring.last + 64


def test_a_killed_daemon_reads_on_where_its_database_is(daemon: Daemon, folder: Path) -> None:
    written = Written(folder / "rings")
    written.start()
    for turn in range(6):
        with RingWire(daemon.socket) as wire:
            wire.hello(app="ringing", client_id=written.client_id)
            wire.attach(written)
            written.calls(9)
            if turn % 2:
                wire.flush(written)
                written.calls(5)
            daemon.kill()
        daemon.start()
    with RingWire(daemon.socket) as wire:
        wire.hello(app="ringing", client_id=written.client_id)
        wire.attach(written)
        wire.flush(written)
        assert session(daemon, written.session_id)["total_inferences"] == 6 * 9 + 3 * 5
        ledger = daemon.status()["ledger"]
        assert (ledger["counted"], ledger["duplicates"]) == (6 * 9 + 3 * 5, 0)
    written.ring.close()


def test_a_ring_that_is_attached_again_counts_nothing_twice(daemon: Daemon, wire: RingWire, written: Written) -> None:
    written.calls(5)
    wire.flush(written)
    with RingWire(daemon.socket) as again:
        again.hello(app="ringing", client_id=written.client_id)
        assert again.attach(written)["last_seq"] == written.ring.last
        written.calls(5)
        again.flush(written)
    assert session(daemon, written.session_id)["total_inferences"] == 10


def test_batches_go_on_beside_rings(daemon: Daemon, wire: RingWire, written: Written) -> None:
    written.calls(5)
    wire.flush(written)
    wire.call("record.batch", seq=1, records=[inference()] * 3, session_id=written.session_id, flush=True)
    wire.call("record.inference", model_id="m", version="1", latency_ms=1, session_id=written.session_id)
    assert session(daemon, written.session_id)["total_inferences"] == 9


def test_subscribers_get_the_records_of_a_ring(daemon: Daemon, wire: RingWire, written: Written) -> None:
    with RingWire(daemon.socket) as subscriber:
        subscriber.call("records.watch", app="ringing")
        written.calls(2, 3.5)
        written.error("at ada@example.org", written.model())
        wire.call("ring.wake")
        told: list[Any] = []
        while len(told) < 3:
            told += subscriber.hear("records.counted")["records"]
    assert [each["type"] for each in told] == ["inference", "inference", "error"]
    assert told[0] == {
        "type": "inference",
        "model_id": "m",
        "version": "1",
        "latency_ms": 3.5,
        "timestamp_ms": 1796000000250,
    }
    assert told[2]["error"] == "at [email]"


def test_a_ring_at_rest_sleeps_until_its_client_wakes_it(daemon: Daemon, wire: RingWire, written: Written) -> None:
    told = wire.hear("ring.idle")
    assert told == {"ring_id": written.ring_id, "seq": written.ring.last}
    assert written.word(layout.ASLEEP) == 1
    written.calls(1)
    wire.call("ring.wake")
    until(lambda: written.word(layout.DURABLE) == written.ring.last, "the record to be on disk")
    assert session(daemon, written.session_id)["total_inferences"] == 1


# What must not be trusted

BAD_SLOTS: dict[str, dict[str, Any]] = {
    "latency that is not a number": {"latency_ms": math.nan},
    "latency without end": {"latency_ms": math.inf},
    "latency below zero": {"latency_ms": -1.0},
    "latency past 2**53": {"latency_ms": 2.0**54},
    "time that is not a number": {"at_s": math.nan},
    "time before 1970": {"at_s": -5.0},
    "time without end": {"at_s": math.inf},
    "entry that is not there": {"entry": 500},
    "entry in the midst of another": {"entry": 2},
    "entry of another kind": {"entry": 1},
    "kind that is unknown": {"kind": 99},
    "error without a text": {"kind": layout.ERROR, "entry": 0},
    "category that is unknown": {"kind": layout.ERROR, "bits": 77 << layout.CATEGORY_SHIFT},
}


@pytest.mark.parametrize("bad", BAD_SLOTS)
def test_a_slot_that_is_wrong_costs_itself_alone(daemon: Daemon, wire: RingWire, written: Written, bad: str) -> None:
    written.calls(3)
    given = {"kind": layout.INFERENCE, "entry": written.model(), "latency_ms": 1.0} | BAD_SLOTS[bad]
    written.slot(given.pop("kind"), given.pop("entry"), **given)
    written.calls(2)
    wire.flush(written)
    assert session(daemon, written.session_id)["total_inferences"] == 5
    ledger = daemon.status()["ledger"]
    assert ledger["rejected"] == {"invalid_params": 1}
    assert ledger_balances(ledger)
    assert (written.word(layout.COUNTED), written.word(layout.REJECTED)) == (5, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 2.0**60])
def test_a_stat_that_is_wrong_costs_itself_alone(
    daemon: Daemon, wire: RingWire, written: Written, value: float
) -> None:
    for number in (value, 10.0):
        words = struct.pack("<d", number)
        written.slot(layout.INFERENCE, written.model(), bits=4 << layout.STATS_SHIFT, words=words)
    wire.flush(written)
    found = session(daemon, written.session_id)
    assert found["total_inferences"] == 2
    assert found["extensions"]["models"]["m@1"]["stats"]["tokens_per_second"]["count"] == 1


def attach_file(wire: RingWire, path: Path) -> WireFailure:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(WireFailure) as caught:
            wire.call_with_file("ring.attach", fd)
    finally:
        os.close(fd)
    return caught.value


def test_what_is_not_a_ring_is_refused_with_the_reason(wire: RingWire, folder: Path) -> None:
    wire.hello(app="a")
    ring = Written(folder / "rings")
    whole = ring.path.read_bytes()
    spoiled = {
        "empty": (b"", "too short"),
        "text": (b"x" * 5000, "not a ring"),
        "cut": (whole[:-1], "has not"),
        "longer": (whole + b"\0", "has not"),
        "too many slots": (whole[:16] + struct.pack("<I", 2**30) + whole[20:], "slots"),
        "no power of two": (whole[:16] + struct.pack("<I", 63) + whole[20:], "slots"),
        "no producer": (whole[:4104] + bytes(4096 - 8) + whole[8192:], "producer"),
    }
    for name, (data, reason) in spoiled.items():
        path = folder / name.replace(" ", "-")
        path.write_bytes(data)
        failure = attach_file(wire, path)
        assert failure.code == "invalid_params"
        assert reason in failure.message, name
    os.mkfifo(folder / "pipe")
    assert "no file came" in attach_file(wire, folder / "pipe").message
    with pytest.raises(WireFailure, match="no file came"):
        wire.call("ring.attach")
    ring.ring.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, and ask as another user")
def test_a_ring_of_another_user_is_refused(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    from tests.daemon.test_other_user import NOBODY  # noqa: PLC0415

    daemon = make_daemon('[socket]\nmode = "0666"\n')
    for each in (folder, daemon.folder):
        each.chmod(0o755)
    daemon.start()
    written = Written(folder / "rings")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with RingWire(daemon.socket) as wire:
                wire.hello(app="thief")
                try:
                    wire.attach(written)
                except WireFailure as failure:
                    code = 0 if "another user" in failure.message else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    written.ring.close()


def test_a_file_that_shrinks_is_no_end_of_the_daemon(daemon: Daemon, wire: RingWire, written: Written) -> None:
    written.calls(3)
    wire.flush(written)
    written.calls(3)
    os.truncate(written.path, 4096 + 4096 + 64)
    wire.call("ring.wake")
    until(lambda: "not read any further" in daemon.said() or daemon.status()["ledger"]["counted"] == 3, "the end of it")
    assert daemon.status()["state"] == "ok"
    assert session(daemon, written.session_id)["total_inferences"] == 3


def test_numbers_that_jump_are_not_followed(daemon: Daemon, wire: RingWire, written: Written) -> None:
    written.calls(2)
    for number in (2**40, 2**63, 7777):
        at = written.ring.geometry.slots_at + (number % 64) * 64
        with written.path.open("r+b") as file:
            file.seek(at)
            file.write(layout.SLOT.pack(1.0, AT_S, layout.describe(layout.INFERENCE, written.model()), b"", 0, number))
    wire.flush(written)
    assert session(daemon, written.session_id)["total_inferences"] == 2
    assert daemon.status()["state"] == "ok"


def test_the_daemon_ends_while_a_client_goes(daemon: Daemon, wire: RingWire, written: Written) -> None:
    written.calls(3)
    daemon.signal(signal.SIGSTOP)
    wire.close()
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    assert daemon.stop() == 0


def test_files_that_nothing_asks_for_are_closed(daemon: Daemon, folder: Path) -> None:
    """Sockets at once: a connection that is sent its own other end would never end."""

    def held() -> list[str]:
        found = []
        for each in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(each.readlink()))
        return [path for path in found if path.startswith(str(folder / "file"))]

    with RingWire(daemon.socket) as wire, (folder / "file").open("w+b") as file:
        for _ in range(30):
            wire.call_with_file("daemon.status", wire.sock.fileno())
            wire.call_with_file("daemon.status", file.fileno())
        assert 0 < len(held()) <= 8
    until(lambda: not held(), "the files to be closed")
    until(lambda: daemon.status()["connections"] == 1, "the connection to end")


# What is missing


def test_a_missing_slot_is_waited_for_and_counted_when_it_comes(
    daemon: Daemon, wire: RingWire, written: Written
) -> None:
    written.calls(2)
    missing = written.ring.recorder.reserve()
    written.calls(3)
    reached = wire.flush(written)
    assert reached["last_seq"] == missing - 1
    # After a second the reader goes on behind it.
    until(lambda: session(daemon, written.session_id)["total_inferences"] == 5, "those behind it")
    written.slot(layout.INFERENCE, written.model(), latency_ms=1.0, number=missing)
    wire.call("ring.wake")
    until(lambda: session(daemon, written.session_id)["total_inferences"] == 6, "the late one")
    assert ledger_balances(daemon.status()["ledger"])


def test_a_missing_slot_keeps_its_place_in_the_ring_over_a_kill(daemon: Daemon, written: Written) -> None:
    missing = written.ring.recorder.reserve()
    written.calls(10)
    until(lambda: session(daemon, written.session_id)["total_inferences"] == 10, "those behind it")
    until(lambda: written.word(layout.DURABLE) == written.ring.last, "the disk")
    assert written.word(layout.LIMIT) == missing - 1 + 64
    daemon.kill()
    daemon.start()
    with RingWire(daemon.socket) as again:
        again.hello(app="ringing", client_id=written.client_id)
        again.attach(written)
        written.slot(layout.INFERENCE, written.model(), latency_ms=1.0, number=missing)
        again.flush(written)
        until(lambda: session(daemon, written.session_id)["total_inferences"] == 11, "the late one")


# Rings of processes that are gone


def test_a_ring_of_a_process_that_is_gone_is_drained_once(daemon: Daemon, wire: RingWire, folder: Path) -> None:
    written = Written(folder / "rings")
    written.start()
    written.calls(7)
    written.ring.recorder.reserve()  # a call that never returned
    written.calls(2)
    written.end()
    written.close()
    copy = written.path.read_bytes()
    for _ in range(3):
        assert wire.drain(written.path) == {"drained": True}
        written.path.write_bytes(copy)
    found = session(daemon, written.session_id)
    assert found["total_inferences"] == 9
    assert found["extensions"]["end_reason"] == "ended"
    assert "processes" not in found["extensions"]


def test_records_of_before_the_end_of_a_shared_session_are_its_own(
    daemon: Daemon, wire: RingWire, folder: Path
) -> None:
    owner = Written(folder / "rings")
    worker = Written(folder / "rings", session_id=owner.session_id)
    owner.start()
    worker.start(joined=True)
    worker.calls(4)
    owner.calls(1)
    owner.end()
    for each in (owner, worker):
        each.close()
        wire.drain(each.path)
    found = session(daemon, owner.session_id)
    assert found["total_inferences"] == 5
    assert found["extensions"]["processes"] == {"lost": 1}


def test_a_session_that_was_reset_gets_no_late_records(daemon: Daemon, wire: RingWire, folder: Path) -> None:
    written = Written(folder / "rings")
    wire.hello(app="a")
    wire.call("session.start", session_id=written.session_id)
    wire.call("session.reset")
    written.start()
    written.calls(2)
    written.close()
    wire.drain(written.path)
    assert session(daemon, written.session_id)["total_inferences"] == 0
    assert daemon.status()["ledger"]["counted"] == 2


def test_calls_in_progress_are_listed_in_the_session_that_is_lost(daemon: Daemon, folder: Path) -> None:
    written = Written(folder / "rings")
    with RingWire(daemon.socket) as wire:
        pid = os.fork()
        if not pid:  # the process that is lost: the daemon asks whether the one at the other end lives
            with RingWire(daemon.socket) as own:
                own.hello(app="ringing", client_id=written.client_id)
                written.start()
                own.attach(written)
                for call, model_id in ((1, "llama"), (2, "whisper"), (3, "llama")):
                    written.slot(layout.STARTED, written.model(model_id), call=call)
                written.slot(layout.INFERENCE, written.model("whisper"), latency_ms=1.0, call=2)
                own.flush(written)
                os._exit(0)
        os.waitpid(pid, 0)
        del wire
    until(lambda: session(daemon, written.session_id)["extensions"]["end_reason"] == "client_lost", "the loss")
    found = session(daemon, written.session_id)["extensions"]
    assert found["processes"] == {"lost": 1}
    assert [(each["model_id"], each["version"]) for each in found["calls_in_progress"]] == [
        ("llama", "1"),
        ("llama", "1"),
    ]
    assert all(each["running_ms"] >= 0 for each in found["calls_in_progress"])
    written.ring.close()


def test_a_process_that_leaves_a_shared_session_is_not_lost(daemon: Daemon, written: Written) -> None:
    with RingWire(daemon.socket) as other:
        worker = Written(written.path.parent, session_id=written.session_id)
        other.hello(app="ringing", client_id=worker.client_id)
        worker.start(joined=True)
        other.attach(worker)
        worker.calls(2)
        worker.end(layout.LEFT)
        other.flush(worker)
        worker.ring.close()
    found = session(daemon, written.session_id)
    assert found["ended_at"] is None
    assert found["extensions"]["processes"] == {"ended": 1}


def test_the_daemon_finds_the_rings_of_its_own_users_killed_processes(daemon: Daemon) -> None:
    """Also of one that no daemon was told of, as a worker that is killed at once."""
    folder = daemon.data / "spool"
    pid = os.fork()
    if not pid:
        written = Written(folder)
        written.start()
        written.calls(3)
        os._exit(0)
    os.waitpid(pid, 0)
    until(lambda: daemon.status()["ledger"]["counted"] == 3, "the ring to be found")
    until(lambda: not any(folder.iterdir()), "the file to be removed")


def test_a_file_that_is_no_ring_is_set_aside_and_holds_up_none(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(CONFIG)
    folder = daemon.data / "spool"
    written = Written(folder)
    written.start()
    written.calls(3)
    written.close()
    (folder / "0.ring").write_bytes(b"\0" * 100)
    (folder / "0.ring").chmod(0o600)
    (folder / "1.ring").symlink_to(written.path)
    os.mkfifo(folder / "2.ring", 0o600)
    daemon.start()
    until(lambda: daemon.status()["ledger"]["counted"] == 3, "the ring to be read")
    until((folder / "0.damaged").exists, "the file to be set aside")


def test_a_ring_without_a_session_gets_one(wire: RingWire, folder: Path) -> None:
    written = Written(folder / "rings")
    written.calls(3)
    written.close()
    for _ in range(2):
        wire.drain(written.path)
    sessions = wire.call("session.list", app="ringing")["sessions"]
    assert [each["total_inferences"] for each in sessions] == [3]


def test_a_producer_is_told_of_what_a_killed_daemon_had_on_disk(
    daemon: Daemon, wire: RingWire, written: Written
) -> None:
    written.calls(5)
    wire.flush(written)
    before = written.path.read_bytes()[:4096]
    written.calls(7)
    wire.flush(written)
    daemon.kill()
    # As if it had been killed after the commit and before it told the producer.
    with written.path.open("r+b") as file:
        file.write(before)
    daemon.start()
    with RingWire(daemon.socket) as again:
        again.hello(app="ringing", client_id=written.client_id)
        again.attach(written)
        again.flush(written)
    assert written.ring.counts() == (12, 0, 0)
    assert session(daemon, written.session_id)["total_inferences"] == 12
