"""Batches have numbers: whatever is sent again is counted once, whatever is missing is counted as missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, ledger, new_id, producer, refusal, request_line, total
from tests.support import WireFailure, inference, ledger_balances, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon, Wire


@pytest.fixture(scope="module")
def config() -> str:
    """A background batch waits a minute for company: long enough to look at it while it waits."""
    return "[storage]\ncommit_interval_ms = 60000\n"


def test_a_batch_sent_twice_is_counted_once(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        assert batch(wire, 1, 3) == {"last_seq": 1, "session_id": session_id}
        assert batch(wire, 1, 3) == {"last_seq": 1, "session_id": session_id}
    assert total(served, session_id) == 3


def test_an_old_number_with_other_records_changes_nothing(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        batch(wire, 1)
        batch(wire, 2)
        before = ledger(served)["duplicates"]
        assert batch(wire, 1, 7)["last_seq"] == 2
        assert ledger(served)["duplicates"] == before + 7
    assert total(served, session_id) == 2


def test_a_batch_that_is_not_durable_yet_and_comes_again_is_answered_with_the_first(served: Daemon) -> None:
    client_id = new_id()
    first, session_id = producer(served, client_id=client_id)
    with first, served.wire() as second, served.wire() as other:
        held = first.send("record.batch", seq=1, records=[inference()])
        assert first.call("session.get")["total_inferences"] == 1  # applied
        assert second.hello(client_id=client_id)["last_seq"] == 0  # not durable
        again = second.send("record.batch", seq=1, records=[inference()])
        assert second.call("session.get")["session_id"] == session_id  # it was heard
        assert not readable(first.sock, 0.1)
        assert not readable(second.sock, 0.1)
        other.call("daemon.flush")
        assert first.answer_to(held)["last_seq"] == 1
        assert second.answer_to(again)["last_seq"] == 1
    assert total(served, session_id) == 1


def test_flush_of_one_batch_answers_those_before_it(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        held = [wire.send("record.batch", seq=seq, records=[inference()]) for seq in (1, 2, 3)]
        assert batch(wire, 4)["last_seq"] == 4
        assert [wire.answer_to(each)["last_seq"] for each in held] == [1, 2, 3]
    assert total(served, session_id) == 4


def test_a_repeated_batch_may_ask_for_the_flush_that_the_first_did_not(served: Daemon) -> None:
    client_id = new_id()
    first, session_id = producer(served, client_id=client_id)
    with first, served.wire() as second:
        held = first.send("record.batch", seq=1, records=[inference()])
        first.call("session.get")
        second.hello(client_id=client_id)
        assert batch(second, 1)["last_seq"] == 1
        assert first.answer_to(held)["last_seq"] == 1
    assert total(served, session_id) == 1


def test_a_kill_takes_back_what_was_not_acknowledged_and_nothing_else(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[storage]\ncommit_interval_ms = 60000\n").start()
    client_id = new_id()
    wire, session_id = producer(daemon, client_id=client_id)
    batch(wire, 1)
    wire.send("record.batch", seq=2, records=[inference()])
    assert wire.call("session.get")["total_inferences"] == 2
    daemon.kill()
    wire.close()
    daemon.start()
    assert total(daemon, session_id) == 1
    with daemon.wire() as again:
        assert again.hello(client_id=client_id)["last_seq"] == 1
        batch(again, 2)
    assert total(daemon, session_id) == 2
    assert ledger_balances(ledger(daemon))
    assert ledger(daemon)["counted"] == 2


def test_a_gap_is_taken_and_counted(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        before = ledger(served)["missing_batches"]
        batch(wire, 1)
        assert batch(wire, 5)["last_seq"] == 5
        assert ledger(served)["missing_batches"] == before + 3
        assert batch(wire, 3)["last_seq"] == 5
    assert total(served, session_id) == 2


def test_producers_do_not_share_numbers(served: Daemon) -> None:
    first, one = producer(served)
    second, two = producer(served)
    with first, second:
        batch(first, 1)
        batch(second, 1)
        batch(second, 2)
    assert (total(served, one), total(served, two)) == (1, 2)


def test_numbers_go_on_across_sessions_of_a_producer(served: Daemon) -> None:
    wire, _ = producer(served)
    with wire:
        batch(wire, 1)
        wire.call("session.end")
        second = wire.call("session.start")["session_id"]
        assert batch(wire, 1, session_id=second)["last_seq"] == 1
        batch(wire, 2)
    assert total(served, second) == 1


def test_a_refused_batch_does_not_use_up_its_number(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        assert refusal(wire, "record.batch", seq=1, records=[inference()], session_id="no").code == "unknown_session"
        before = ledger(served)["missing_batches"]
        assert batch(wire, 1)["last_seq"] == 1
        assert ledger(served)["missing_batches"] == before
    assert total(served, session_id) == 1


def taken(wire: Wire, seq: int) -> int:
    """What a batch is answered with; 0 when it is to come again later."""
    try:
        return int(batch(wire, seq)["last_seq"])
    except WireFailure as failure:
        if failure.code != "overloaded":
            raise
        return 0


def test_a_batch_refused_as_overloaded_may_come_again_after_later_ones(make_daemon: Callable[[str], Daemon]) -> None:
    """A producer that pipelines has sent the next ones already; what was refused must not look like a duplicate."""
    daemon = make_daemon("[limits]\nmax_waiting_answers = 1\n[storage]\ncommit_interval_ms = 60000\n").start()
    wire, session_id = producer(daemon)
    with wire, daemon.wire() as other:
        first = wire.send("record.batch", seq=1, records=[inference()])
        wire.call("session.get")
        assert refusal(wire, "record.batch", seq=2, records=[inference()]).code == "overloaded"
        other.call("daemon.flush")
        assert wire.answer_to(first)["last_seq"] == 1
        acknowledged = 1
        for seq in (3, 2, 3):
            acknowledged = max(acknowledged, taken(wire, seq))
        assert acknowledged == 3
    assert total(daemon, session_id) == 3
    assert ledger(daemon)["missing_batches"] == 0


def test_the_highest_number_of_several_producers_is_taken(make_daemon: Callable[[str], Daemon]) -> None:
    """Gaps add up beyond what SQLite's integers hold; the next record must not notice."""
    daemon = make_daemon("").start()
    for _ in range(3):
        wire, session_id = producer(daemon)
        with wire:
            assert batch(wire, 2**63 - 1)["last_seq"] == 2**63 - 1
            assert wire.call("session.get")["total_inferences"] == 1
    other, session_id = producer(daemon)
    with other:
        batch(other, 1)
    daemon.kill()
    daemon.start()
    assert total(daemon, session_id) == 1


def test_records_dropped_by_producers_may_add_up_to_any_number(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_waiting_answers = 1000000\n").start()
    wire, session_id = producer(daemon)
    with wire:
        for first in range(1, 1101, 100):
            numbers = range(first, first + 100)
            sent = [wire.send("record.batch", seq=seq, records=[], dropped=2**53, flush=True) for seq in numbers]
            assert [wire.answer_to(each)["last_seq"] for each in sent] == list(numbers)
        batch(wire, 1101)
    assert total(daemon, session_id) == 1


def test_pipelined_batches_are_applied_in_their_order(served: Daemon) -> None:
    wire, session_id = producer(served)
    before = ledger(served)["missing_batches"]
    with wire:
        lines = [request_line(1000 + seq, "record.batch", seq=seq, records=[inference()]) for seq in range(1, 301)]
        wire.sock.sendall(b"".join(lines))
        wire.call("daemon.flush")
    assert total(served, session_id) == 300
    assert ledger(served)["missing_batches"] == before


def test_a_producer_that_reconnects_on_each_batch_is_counted_once(served: Daemon) -> None:
    client_id = new_id()
    first, session_id = producer(served, client_id=client_id)
    first.close()
    for seq in range(1, 21):
        with served.wire() as wire:
            assert wire.hello(client_id=client_id)["last_seq"] == seq - 1
            batch(wire, seq)
        with served.wire() as wire:
            wire.hello(client_id=client_id)
            batch(wire, seq)
    assert total(served, session_id) == 20


def test_many_producers_that_left_are_still_known(served: Daemon) -> None:
    """More than are kept in memory: what is read back from the disk says the same."""
    known: dict[str, Any] = {}
    for _ in range(100):
        client_id = new_id()
        wire, session_id = producer(served, client_id=client_id)
        with wire:
            batch(wire, 1)
            wire.call("session.end")
        known[client_id] = session_id
    for client_id, session_id in known.items():
        with served.wire() as wire:
            assert wire.hello(client_id=client_id)["last_seq"] == 1
            assert batch(wire, 1, session_id=session_id)["last_seq"] == 1
            assert wire.call("session.get", session_id=session_id)["total_inferences"] == 1
