"""Memory is bounded, and who misbehaves harms only itself."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from tests.daemon.scenes import batch, end_reason, ledger, producer, refusal, request_line, rss_mib, total
from tests.support import Wire, inference, ledger_balances, readable, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon

#: What the daemon may grow by while somebody misbehaves; a few MiB are normal.
GROWTH_MIB = 100


def test_who_does_not_read_its_answers_costs_neither_memory_nor_the_neighbours(daemon: Daemon) -> None:
    slow, session_id = producer(daemon)
    models = [inference(model_id=f"{number:03}" + "m" * 250) for number in range(300)]
    slow.call("record.batch", seq=1, records=models, flush=True)
    good, own = producer(daemon)
    before = rss_mib(daemon.pid)
    with slow, good:
        slow.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            slow.sock.send(b"".join(request_line(number, "session.get") for number in range(2500)))
        for seq in range(1, 21):
            assert batch(good, seq)["last_seq"] == seq
            assert rss_mib(daemon.pid) < before + GROWTH_MIB
    assert total(daemon, own) == 20
    assert total(daemon, session_id) == 300


def test_a_slow_reader_gets_every_answer_in_the_end(daemon: Daemon) -> None:
    wire, _ = producer(daemon)
    models = [inference(model_id=f"{number:03}") for number in range(50)]
    wire.call("record.batch", seq=1, records=models, flush=True)
    with wire:
        wire.sock.sendall(b"".join(request_line(number, "session.get") for number in range(500)))
        assert daemon.status()["state"] == "ok"
        assert [wire.read()["id"] for _ in range(500)] == list(range(500))


def test_a_thousand_connections_are_all_answered(daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(1000)]
        sent = [each.send("record.inference", model_id="m", version="1", latency_ms=1) for each in wires]
        answers = {each.answer_to(request)["session_id"] for each, request in zip(wires, sent, strict=True)}
        assert daemon.status()["connections"] >= 1000
    (session_id,) = answers
    assert total(daemon, session_id) == 1000
    until(lambda: daemon.status()["connections"] <= 2, "the connections to be forgotten")


def test_connections_that_come_and_go_leave_nothing(daemon: Daemon) -> None:
    for _ in range(3):
        for _ in range(300):
            with daemon.wire() as wire:
                wire.send("daemon.status")
    until(lambda: daemon.status()["connections"] <= 1, "the connections to be forgotten")
    assert daemon.status()["state"] == "ok"


def test_sessions_that_one_connection_starts_and_ends_do_not_pile_up(daemon: Daemon) -> None:
    wire, _ = producer(daemon)
    wire.call("session.end")

    def rounds(count: int) -> None:
        for _ in range(count):
            ids = [wire.send("session.start"), wire.send("record.error", error="e" * 500), wire.send("session.end")]
            for each in ids:
                wire.answer_to(each)

    with wire:
        rounds(300)
        before = rss_mib(daemon.pid)
        rounds(2500)
        assert rss_mib(daemon.pid) < before + 8
        assert daemon.status()["sessions"]["active"] == 0


def test_a_peer_frozen_in_the_middle_of_a_line_holds_up_nobody(daemon: Daemon) -> None:
    frozen, session_id = producer(daemon)
    with frozen:
        line = request_line(9, "record.batch", seq=1, records=[inference()], flush=True)
        frozen.sock.sendall(line[:40])
        wire, other = producer(daemon)
        with wire:
            for seq in range(1, 6):
                batch(wire, seq)
        assert total(daemon, other) == 5
        assert not readable(frozen.sock, 0)
        assert end_reason(daemon, session_id) is None
        frozen.sock.sendall(line[40:])
        assert frozen.answer_to(9)["last_seq"] == 1


def test_a_half_closed_peer_still_gets_its_answers(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    with wire:
        lines = [request_line(100 + seq, "record.batch", seq=seq, records=[inference()]) for seq in range(1, 51)]
        wire.sock.sendall(b"".join(lines))
        wire.sock.shutdown(socket.SHUT_WR)
        assert {wire.read()["id"] for _ in range(50)} == {100 + seq for seq in range(1, 51)}
        assert wire.closed_by_peer()
    assert total(daemon, session_id) == 50


def test_a_peer_that_is_gone_before_its_answer_is_counted_all_the_same(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    wire.sock.sendall(request_line(9, "record.batch", seq=1, records=[inference()], flush=True))
    wire.close()
    until(lambda: total(daemon, session_id) == 1, "the batch to be counted")
    assert ledger_balances(ledger(daemon))


# Limits


def test_more_connections_than_the_limit_are_told_so(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_connections = 3\n").start()
    wires = [daemon.wire() for _ in range(3)]
    for each in wires:
        each.call("session.list")
    with daemon.wire() as refused:
        answer = refused.read()
        assert answer["id"] is None
        assert answer["error"]["data"]["code"] == "overloaded"
        assert answer["error"]["data"]["retry_after_ms"] > 0
        assert refused.closed_by_peer()
    for each in wires:
        each.call("session.list")
        each.close()
    until(lambda: can_talk(daemon), "room for a new connection")


def can_talk(daemon: Daemon) -> bool:
    with daemon.wire() as wire:
        wire.send("daemon.status")
        return "result" in wire.read()


def test_unfinished_lines_of_all_together_have_a_budget(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_held_bytes = 1000000\n").start()
    good, session_id = producer(daemon)
    small, _ = producer(daemon)
    greedy = [daemon.wire() for _ in range(4)]
    with good, small:
        small.sock.sendall(b'{"jsonrpc":"2.0","id":1,')
        for each in greedy:
            with contextlib.suppress(OSError):
                each.sock.sendall(b"x" * 300_000)
        until(lambda: any(readable(each.sock, 0) for each in greedy), "the longest line to go")
        told = [each.read()["error"]["data"] for each in greedy if readable(each.sock, 0)]
        assert {each["code"] for each in told} == {"overloaded"}
        assert all(each["retry_after_ms"] > 0 for each in told)
        batch(good, 1)
        small.sock.sendall(b'"method":"daemon.flush"}\n')
        assert small.read()["result"] == {}
    for each in greedy:
        each.close()
    assert total(daemon, session_id) == 1


def test_budget_is_given_back_when_lines_end_or_peers_leave(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_held_bytes = 1000000\n").start()
    for _ in range(5):
        with daemon.wire() as wire:
            line = request_line(1, "daemon.flush")[:-1] + b" " * 600_000
            wire.sock.sendall(line)
            wire.sock.sendall(b"\n")
            assert wire.read()["result"] == {}
            wire.sock.sendall(line)


def test_more_sessions_than_the_limit_are_overloaded(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_sessions = 2\n").start()
    first, _ = producer(daemon)
    second, _ = producer(daemon)
    with first, second:
        failure = refusal(first, "session.start")
        assert failure.code == "overloaded"
        assert failure.data["retry_after_ms"] > 0
        assert batch(first, 1)["last_seq"] == 1
        second.call("session.end")
        assert first.call("session.start")["session_id"]


def test_a_reset_needs_no_room_for_another_session(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_sessions = 1\n").start()
    wire, session_id = producer(daemon)
    with wire:
        assert wire.call("session.reset")["session_id"] != session_id


def test_a_batch_refused_for_want_of_a_session_is_not_taken(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[limits]\nmax_sessions = 1\n").start()
    wire, _ = producer(daemon)
    with wire, daemon.wire() as other:
        other.hello(app="no-room")
        assert refusal(other, "record.batch", seq=1, records=[inference()]).code == "overloaded"
        assert refusal(other, "record.batch", seq=2, records=[inference()]).code == "overloaded"
        wire.call("session.end")
        assert batch(other, 1)["last_seq"] == 1
        assert batch(other, 2)["last_seq"] == 2
        assert other.call("session.get")["total_inferences"] == 2
    assert ledger(daemon)["missing_batches"] == 0


def test_models_and_errors_past_the_limit_count_as_other(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[session]\nmax_models = 3\nmax_errors = 2\n").start()
    wire, _ = producer(daemon)
    with wire:
        for number in range(10):
            wire.call("record.inference", model_id=f"m{number}", version="1", latency_ms=1)
            wire.call("record.error", error=f"e{number}")
        session = wire.call("session.get")
    assert session["total_inferences"] == session["error_count"] == 10
    assert session["by_model"]["other@"]["call_count"] == 7
    assert sum(error["count"] for error in session["errors"]) == 10
    assert len(session["errors"]) == 3


def test_the_log_of_a_daemon_that_saw_all_this_has_no_traceback(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon().start()
    abuse(daemon.socket)
    daemon.stop()
    assert "Traceback" not in daemon.said()


def abuse(path: Path) -> None:
    for junk in (b"\xff\n", b"{}\n" * 100, b"x" * (2**20 + 10), b'{"jsonrpc":"2.0",', b""):
        with Wire(path) as wire, contextlib.suppress(OSError):
            wire.sock.sendall(junk)
    with Wire(path) as wire:
        wire.sock.sendall(b"".join(request_line(number, "daemon.status") for number in range(500)))
