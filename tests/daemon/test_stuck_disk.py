"""A database that does not answer for a while: somebody else holds its lock, as a backup or a shell would."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.daemon.scenes import batch, database, ledger, new_id, producer, request_line, rss_mib, total
from tests.support import inference, ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon, Wire


@contextlib.contextmanager
def held(daemon: Daemon) -> Iterator[None]:
    """While inside, nothing can be written to the database, and the daemon's thread waits for it."""
    with contextlib.closing(sqlite3.connect(database(daemon), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def stored_session(daemon: Daemon) -> str:
    """A session that is on disk and not in the daemon's memory."""
    wire, session_id = producer(daemon)
    with wire:
        wire.call("session.end")
    daemon.stop()
    daemon.start()
    return session_id


def test_what_waited_for_a_locked_database_is_there_once(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    with wire:
        with held(daemon):
            sent = wire.send("record.batch", seq=1, records=[inference()] * 3, flush=True)
            until(lambda: "cannot write to the database" in daemon.said(), "the daemon to notice")
        assert wire.answer_to(sent)["last_seq"] == 1
        until(lambda: daemon.status()["state"] == "ok", "the daemon to recover")
        batch(wire, 2)
    assert total(daemon, session_id) == 4
    assert ledger_balances(ledger(daemon))


def test_what_is_in_memory_is_answered_while_the_disk_hangs(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    with wire, daemon.wire() as reader:
        with held(daemon):
            sent = wire.send("record.batch", seq=1, records=[inference()], flush=True)
            until(lambda: wire.call("session.get")["total_inferences"] == 1, "the batch to be applied")
            assert reader.call("session.get", session_id=session_id)["total_inferences"] == 1
        assert wire.answer_to(sent)["last_seq"] == 1


def test_lines_that_pile_up_behind_a_hanging_disk_are_bounded(daemon: Daemon) -> None:
    stored = stored_session(daemon)
    good, _ = producer(daemon)
    before = rss_mib(daemon.pid)
    with good, daemon.wire() as flood, held(daemon):
        good.send("record.batch", seq=1, records=[inference()], flush=True)
        flood.sock.sendall(request_line(1, "session.get", session_id=stored))  # waits behind the write
        pour(flood, 300)
        good.call("session.get")
        assert rss_mib(daemon.pid) < before + 100


def pour(wire: Wire, size_mib: int) -> None:
    """As many lines of almost a MiB as are taken at once."""
    line = request_line(2, "daemon.flush")[:-1] + b" " * 1_000_000 + b"\n"
    wire.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(size_mib):
            wire.sock.sendall(line)


def test_it_ends_in_time_though_the_disk_hangs(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    with wire:
        with held(daemon):
            wire.send("record.batch", seq=1, records=[inference()], flush=True)
            assert wire.call("session.get")["total_inferences"] == 1
            assert daemon.stop() == 0
        assert wire.closed_by_peer()
    daemon.start()
    assert total(daemon, session_id) == 0


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_batch_that_was_not_acknowledged_is_taken_after_a_restart(
    make_daemon: Callable[[], Daemon], killed: bool
) -> None:
    daemon = make_daemon().start()
    client_id = new_id()
    wire, session_id = producer(daemon, client_id=client_id)
    with wire, held(daemon):
        wire.send("record.batch", seq=1, records=[inference()], flush=True)
        assert wire.call("session.get")["total_inferences"] == 1
        if killed:
            daemon.kill()
        else:
            daemon.stop()
    daemon.start()
    with daemon.wire() as again:
        assert again.hello(client_id=client_id)["last_seq"] == 0
        assert batch(again, 1)["session_id"] == session_id
    assert total(daemon, session_id) == 1
