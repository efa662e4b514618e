"""A disk that is really full: a small file system of its own. Needs the right to mount."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.daemon.scenes import end_reason, ledger, new_id, producer, refusal, total
from tests.support import inference, ledger_balances, readable, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")


@pytest.fixture
def on_disk(disk: Path, make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    daemon = make_daemon("[storage]\ncommit_interval_ms = 0\n", {"XYBRIDD_DATA_DIR": str(disk / "data")})
    daemon.data = disk / "data"
    try:
        yield daemon
    finally:
        daemon.end()


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096):
            while True:
                with contextlib.suppress(OSError):
                    file.write(b"\x00" * size)
                    continue
                break
    return ballast


def records(number: int) -> list[dict[str, object]]:
    """Enough of them that a commit needs new pages."""
    return [inference(model_id=f"{number}-{each}" + "x" * 200, latency_ms=number) for each in range(50)]


def test_while_the_disk_is_full_answers_are_withheld_and_records_refused(on_disk: Daemon, disk: Path) -> None:
    on_disk.start()
    client_id = new_id()
    wire, session_id = producer(on_disk, client_id=client_id)
    with wire:
        wire.call("record.batch", seq=1, records=records(1), flush=True)
        ballast = fill(disk)
        held = wire.send("record.batch", seq=2, records=records(2), flush=True)
        until(lambda: on_disk.status()["state"] == "degraded", "the daemon to notice")
        assert "full" in on_disk.status()["reason"]
        for method, params in (
            ("record.batch", {"seq": 3, "records": records(3)}),
            ("record.error", {"error": "e"}),
            ("session.start", {}),
            ("session.end", {}),
            ("session.reset", {}),
        ):
            failure = refusal(wire, method, **params)
            assert failure.code == "storage_unavailable"
            assert failure.data["retry_after_ms"] > 0
        assert not readable(wire.sock, 0.2)
        assert wire.call("session.get")["total_inferences"] == 100  # reading goes on
        with on_disk.wire() as again:
            assert again.hello(client_id=client_id)["last_seq"] == 1
        ballast.unlink()
        assert wire.answer_to(held)["last_seq"] == 2
        until(lambda: on_disk.status()["state"] == "ok", "the daemon to recover")
        assert wire.call("record.batch", seq=2, records=records(2), flush=True)["last_seq"] == 2
        assert wire.call("record.batch", seq=3, records=records(3), flush=True)["last_seq"] == 3
    assert total(on_disk, session_id) == 150
    assert ledger_balances(ledger(on_disk))
    assert ledger(on_disk)["missing_batches"] == 0
    on_disk.kill()
    on_disk.start()
    assert total(on_disk, session_id) == 150
    assert end_reason(on_disk, session_id) is None


def test_what_was_pipelined_behind_a_refused_batch_is_not_taken_before_it(on_disk: Daemon, disk: Path) -> None:
    on_disk.start()
    wire, session_id = producer(on_disk)
    with wire:
        ballast = fill(disk)
        first = wire.send("record.batch", seq=1, records=records(1), flush=True)
        until(lambda: on_disk.status()["state"] == "degraded", "the daemon to notice")
        assert refusal(wire, "record.batch", seq=2, records=records(2)).code == "storage_unavailable"
        ballast.unlink()
        assert wire.answer_to(first)["last_seq"] == 1
        assert refusal(wire, "record.batch", seq=3, records=records(3)).code == "overloaded"
        for seq in (2, 3):
            assert wire.call("record.batch", seq=seq, records=records(seq), flush=True)["last_seq"] == seq
    assert total(on_disk, session_id) == 150
    assert ledger(on_disk)["missing_batches"] == 0


def test_a_daemon_killed_while_the_disk_is_full_lost_only_what_it_did_not_acknowledge(
    on_disk: Daemon, disk: Path
) -> None:
    on_disk.start()
    client_id = new_id()
    wire, session_id = producer(on_disk, client_id=client_id)
    with wire:
        wire.call("record.batch", seq=1, records=records(1), flush=True)
        ballast = fill(disk)
        wire.send("record.batch", seq=2, records=records(2), flush=True)
        until(lambda: on_disk.status()["state"] == "degraded", "the daemon to notice")
        on_disk.kill()
    ballast.unlink()
    on_disk.start()
    assert total(on_disk, session_id) == 50
    with on_disk.wire() as again:
        assert again.hello(client_id=client_id)["last_seq"] == 1
        again.call("record.batch", seq=2, records=records(2), flush=True)
    assert total(on_disk, session_id) == 100


def test_it_stops_in_time_though_the_disk_is_full(on_disk: Daemon, disk: Path) -> None:
    on_disk.start()
    wire, session_id = producer(on_disk)
    with wire:
        ballast = fill(disk)
        held = wire.send("record.batch", seq=1, records=records(1), flush=True)
        until(lambda: on_disk.status()["state"] == "degraded", "the daemon to notice")
        assert on_disk.stop() == 0
        with contextlib.suppress(AssertionError, ConnectionResetError):
            pytest.fail(f"acknowledged, but not on disk: {wire.answer_to(held)}")
    ballast.unlink()
    on_disk.start()
    assert total(on_disk, session_id) == 0


def test_starting_on_a_full_disk_is_a_clear_error(on_disk: Daemon, disk: Path) -> None:
    fill(disk)
    on_disk.launch()
    assert on_disk.process is not None
    assert on_disk.process.wait(30) == 1
    assert "Traceback" not in on_disk.said()


def test_starting_again_on_a_full_disk_is_a_clear_error_or_works(on_disk: Daemon, disk: Path) -> None:
    on_disk.start()
    wire, session_id = producer(on_disk)
    with wire:
        wire.call("record.batch", seq=1, records=records(1), flush=True)
    on_disk.kill()
    ballast = fill(disk)
    on_disk.launch()
    until(lambda: on_disk.process is None or on_disk.process.poll() is not None or "ready" in on_disk.said(), "it")
    assert "Traceback" not in on_disk.said()
    on_disk.end()
    ballast.unlink()
    on_disk.start()
    assert total(on_disk, session_id) == 50


def test_what_it_kept_of_disk_for_itself_does_not_fill_it(on_disk: Daemon) -> None:
    """Thousands of commits to a few rows need no more than a few pages and a log of bounded size."""
    on_disk.start()
    wire, session_id = producer(on_disk)
    with wire:
        for seq in range(1, 2001):
            wire.call("record.batch", seq=seq, records=[inference()], flush=True)
        assert on_disk.status()["state"] == "ok"
    assert total(on_disk, session_id) == 2000


def test_damage_that_is_found_while_the_disk_is_full_is_mended_when_there_is_space(on_disk: Daemon, disk: Path) -> None:
    on_disk.start()
    client_id = new_id()
    first, session_id = producer(on_disk, client_id=client_id)
    with first:
        for seq in range(1, 11):
            first.call("record.batch", seq=seq, records=records(seq), flush=True)
    on_disk.stop()
    on_disk.start()
    with on_disk.wire() as wire:
        assert wire.hello(client_id=client_id)["last_seq"] == 10
        scribble(on_disk.data / "xybridd.db")
        ballast = fill(disk)
        everywhere = [record for seq in range(1, 11) for record in records(seq)]
        held = wire.send("record.batch", seq=11, records=everywhere, flush=True)
        until(lambda: "cannot write to the database" in on_disk.said(), "the daemon to notice")
        assert on_disk.status()["state"] == "degraded"
        ballast.unlink()
        assert wire.answer_to(held)["last_seq"] == 11
    assert total(on_disk, session_id) == 1000
    on_disk.kill()
    on_disk.start()
    assert total(on_disk, session_id) == 1000
    assert ledger_balances(ledger(on_disk))


def scribble(path: Path) -> None:
    """Overwrite all of a database but its first pages."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4 * 4096)
        file.write(b"\xa5" * (size - 4 * 4096))
