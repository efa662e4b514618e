"""When sessions end by themselves, and what becomes of records that come late."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.daemon.scenes import batch, change, end_reason, new_id, producer, refusal, total
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon


@pytest.fixture(scope="module")
def config() -> str:
    return "[session]\nlost_after_s = 0.3\n"


def lost(daemon: Daemon) -> str:
    """A session whose producer left without a word."""
    wire, session_id = producer(daemon)
    batch(wire, 1)
    wire.close()
    until(lambda: end_reason(daemon, session_id), "the session to end")
    return session_id


def test_a_producer_that_is_gone_is_client_lost(served: Daemon) -> None:
    session_id = lost(served)
    assert end_reason(served, session_id) == "client_lost"
    with served.wire() as wire:
        assert wire.call("session.get", session_id=session_id)["ended_at"] is not None


def test_a_connected_producer_is_not_lost(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        lost(served)  # a witness that had as much time
        assert end_reason(served, session_id) is None


def test_a_second_connection_of_the_producer_keeps_its_session(served: Daemon) -> None:
    client_id = new_id()
    first, session_id = producer(served, client_id=client_id)
    with served.wire() as second:
        second.hello(client_id=client_id)
        first.close()
        lost(served)
        assert end_reason(served, session_id) is None
        assert batch(second, 1)["session_id"] == session_id


def test_a_guest_that_joined_keeps_the_session(served: Daemon) -> None:
    owner, session_id = producer(served)
    with served.wire() as guest:
        guest.hello(app="guest", session_id=session_id)
        owner.close()
        lost(served)
        assert end_reason(served, session_id) is None
    until(lambda: end_reason(served, session_id) == "client_lost", "the session to end with its last guest")


def test_a_guest_that_named_the_session_in_a_call_keeps_it(served: Daemon) -> None:
    owner, session_id = producer(served)
    with served.wire() as guest:
        guest.call("record.error", error="e", session_id=session_id)
        owner.close()
        lost(served)
        assert end_reason(served, session_id) is None


def test_a_producer_that_comes_back_in_time_goes_on(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("")
    daemon.start()
    client_id = new_id()
    wire, session_id = producer(daemon, client_id=client_id)
    wire.close()
    with daemon.wire() as again:
        again.hello(client_id=client_id)
        assert again.call("session.get")["session_id"] == session_id
        daemon.config.write_text("[session]\nlost_after_s = 0.2\n")
        daemon.signal(signal.SIGHUP)
        until(lambda: "session.lost_after_s" in daemon.said(), "the config to be applied")
        lost(daemon)
        assert end_reason(daemon, session_id) is None


def test_a_late_batch_is_taken_and_the_session_keeps_its_end(served: Daemon) -> None:
    session_id = lost(served)
    with served.wire() as wire:
        before = wire.call("session.get", session_id=session_id)
        wire.hello()
        assert batch(wire, 1, 2, session_id=session_id)["session_id"] == session_id
        after = wire.call("session.get", session_id=session_id)
    assert after["total_inferences"] == before["total_inferences"] + 2
    assert after["ended_at"] == before["ended_at"]
    assert after["extensions"]["end_reason"] == "client_lost"
    assert after["extensions"]["revision"] == before["extensions"]["revision"] + 1


def test_a_late_single_record_is_taken(served: Daemon) -> None:
    session_id = lost(served)
    with served.wire() as wire:
        wire.call("record.inference", model_id="m", version="1", latency_ms=1, session_id=session_id)
    assert total(served, session_id) == 2


def test_a_lost_session_is_not_joined_by_hello(served: Daemon) -> None:
    session_id = lost(served)
    with served.wire() as wire:
        failure = refusal(wire, "hello", app="late", client_id=new_id(), session_id=session_id)
    assert failure.code == "session_ended"


def test_a_session_without_hello_is_bound_to_no_connection(served: Daemon) -> None:
    with served.wire() as wire:
        session_id = wire.call("session.start")["session_id"]
    lost(served)
    assert end_reason(served, session_id) is None


# Over a restart of the daemon


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_open_sessions_go_on_after_a_restart(daemon: Daemon, killed: bool) -> None:
    client_id = new_id()
    wire, bound = producer(daemon, client_id=client_id)
    batch(wire, 1)
    with daemon.wire() as shell:
        shell.hello(app="shell")
        implicit = shell.call("record.error", error="e")["session_id"]
    wire.close()
    if killed:
        daemon.kill()
    else:
        assert daemon.stop() == 0
    daemon.start()
    with daemon.wire() as again:
        assert again.hello(client_id=client_id)["last_seq"] == 1
        assert batch(again, 2)["session_id"] == bound
        assert again.call("session.get")["total_inferences"] == 2
    with daemon.wire() as shell:
        shell.hello(app="shell")
        assert shell.call("record.error", error="e")["session_id"] == implicit


def test_a_producer_that_does_not_come_back_after_a_restart_is_lost(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[session]\nlost_after_s = 0.3\n").start()
    wire, session_id = producer(daemon)
    daemon.kill()
    wire.close()
    daemon.start()
    until(lambda: end_reason(daemon, session_id) == "client_lost", "the session to end")


def test_a_session_of_another_boot_ends_as_device_restarted(daemon: Daemon) -> None:
    wire, session_id = producer(daemon)
    wire.call("record.inference", model_id="m", version="1", latency_ms=1)
    wire.close()
    daemon.stop()
    change(daemon, "UPDATE session SET boot_id = 'another boot'")
    daemon.start()
    with daemon.wire() as again:
        session = again.call("session.get", session_id=session_id)
        assert session["extensions"]["end_reason"] == "device_restarted"
        assert session["ended_at"] >= session["started_at"]
        again.hello()
        assert batch(again, 1, session_id=session_id)["session_id"] == session_id
        late = again.call("session.get", session_id=session_id)
        assert late["total_inferences"] == 2
        assert late["extensions"]["end_reason"] == "device_restarted"
        assert late["extensions"]["revision"] == session["extensions"]["revision"] + 1


def test_what_ended_before_a_restart_stays_ended(daemon: Daemon) -> None:
    wire, ended = producer(daemon)
    wire.call("session.end")
    reset = wire.call("session.start")["session_id"]
    wire.call("session.reset")
    wire.close()
    daemon.kill()
    daemon.start()
    assert end_reason(daemon, ended) == "ended"
    assert end_reason(daemon, reset) == "reset"
    with daemon.wire() as again:
        assert refusal(again, "session.end", session_id=ended).code == "session_ended"
        assert refusal(again, "record.error", error="e", session_id=reset).code == "session_ended"


# Idle and rollover. A sweep runs each minute, and whenever a lost producer's time is up: that is what moves it here.


def swept_until(daemon: Daemon, session_id: str) -> str:
    """Let producers be lost until a sweep has ended the session; why it ended."""

    def swept() -> str | None:
        lost(daemon)
        reason: str | None = end_reason(daemon, session_id)
        return reason

    return str(until(swept, "the session to be swept"))


@pytest.fixture
def hasty(make_daemon: Callable[[str], Daemon]) -> Daemon:
    return make_daemon("[session]\nlost_after_s = 0.2\nidle_timeout_s = 0.6\nrollover_s = 1e6\n").start()


@pytest.fixture
def rolling(make_daemon: Callable[[str], Daemon]) -> Daemon:
    return make_daemon("[session]\nlost_after_s = 0.2\nrollover_s = 0.6\n").start()


def test_an_implicit_session_without_records_ends_as_idle(hasty: Daemon) -> None:
    with hasty.wire() as wire:
        wire.hello(app="idles")
        session_id = wire.call("record.error", error="e")["session_id"]
        assert swept_until(hasty, session_id) == "idle"
        late = wire.call("record.error", error="e", session_id=session_id)
        assert late["session_id"] == session_id
        assert wire.call("session.get", session_id=session_id)["error_count"] == 2
        assert wire.call("record.error", error="e")["session_id"] != session_id


def test_a_bound_session_whose_producer_is_there_is_never_idle(hasty: Daemon) -> None:
    wire, bound = producer(hasty)
    with wire, hasty.wire() as shell:
        shell.hello(app="idles")
        unbound = shell.call("record.error", error="e")["session_id"]
        assert swept_until(hasty, unbound) == "idle"
        assert end_reason(hasty, bound) is None


def test_a_producer_goes_on_in_the_successor_without_noticing(rolling: Daemon) -> None:
    client_id = new_id()
    wire, old = producer(rolling, client_id=client_id)
    with wire:
        wire.call("record.batch", seq=1, records=[], flush=True)
        assert swept_until(rolling, old) == "rollover"
        successor = batch(wire, 2)["session_id"]
        assert successor != old
        assert wire.call("session.get")["session_id"] == successor
        assert end_reason(rolling, successor) is None
    assert total(rolling, old) == 0
    assert total(rolling, successor) == 1


def test_a_batch_for_a_session_that_rolled_over_goes_to_its_successor(rolling: Daemon) -> None:
    wire, old = producer(rolling)
    with wire:
        assert swept_until(rolling, old) == "rollover"
        successor = batch(wire, 1, session_id=old)["session_id"]
        assert successor != old
        single = wire.call("record.inference", model_id="m", version="1", latency_ms=1, session_id=old)
        assert single["session_id"] == successor
        rolling.kill()
    rolling.start()
    with rolling.wire() as again:
        again.hello()
        assert batch(again, 1, session_id=old)["session_id"] == successor
    assert total(rolling, successor) == 3
    assert total(rolling, old) == 0


def test_after_a_rollover_the_successor_is_the_producers(rolling: Daemon) -> None:
    client_id = new_id()
    wire, old = producer(rolling, client_id=client_id)
    assert swept_until(rolling, old) == "rollover"
    with rolling.wire() as again:
        again.hello(client_id=client_id)
        wire.close()
        successor = batch(again, 1)["session_id"]
        assert successor != old
        lost(rolling)
        assert end_reason(rolling, successor) in {None, "rollover"}


def test_an_implicit_session_rolls_over_into_an_implicit_one(rolling: Daemon) -> None:
    with rolling.wire() as first:
        first.hello(app="shell")
        old = first.call("record.error", error="e")["session_id"]
    assert swept_until(rolling, old) == "rollover"
    answered = set()
    for _ in range(3):
        with rolling.wire() as each:
            each.hello(app="shell")
            answered.add(each.call("record.error", error="e")["session_id"])
    assert len(answered) == 1
    assert old not in answered
