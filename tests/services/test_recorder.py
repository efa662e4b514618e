from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.core.given import call, error
from tests.services.given import (
    ADA,
    BOB,
    OWNER,
    Bench,
    ManualClock,
    bench,
    disk_full,
    run,
    until,
)
from xybridd.core.registry import Identity, Registry
from xybridd.errors import (
    CorruptDatabase,
    HelloRequired,
    Overloaded,
    PermissionDenied,
    SessionEnded,
    StorageError,
    StorageUnavailable,
    UnknownSession,
)
from xybridd.protocol.messages import LARGEST_SEQ
from xybridd.storage import rows
from xybridd.storage.opening import salvage

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

CLIENT = "6a6c7f4e-0000-4000-8000-000000000001"

# Batches


def test_a_batch_counts_once_however_often_it_comes(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            for seq in (1, 1, 2, 1, 2):
                assert (await b.batch(link, seq, [call(), error()]))[1] == session_id
            assert await b.calls(session_id) == 2
            shown = b.recorder.ledger.shown()
            assert (shown["received"], shown["counted"], shown["duplicates"]) == (10, 4, 6)
            await b.balances()

    run(test())


def test_a_batch_that_comes_again_before_it_is_durable_waits_like_the_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, commit_interval_s=3600.0) as b:
            link, session_id = await b.bound(await b.producer(client_id=CLIENT))
            await b.settled()
            options: dict[str, Any] = {"session_id": None, "flush": False, "dropped": 0}
            _, _, first = await b.recorder.batch(link, 1, [call()], **options)
            again = await b.producer(client_id=CLIENT)
            seq, _, second = await b.recorder.batch(again, 1, [call()], **options)
            assert (seq, first is None, second is None) == (1, False, False)
            await b.settled()
            assert first is not None
            assert second is not None
            assert first.done()
            assert second.done()
            assert await b.calls(session_id) == 1
            await b.balances()

    run(test())


def test_who_only_reads_or_says_hello_costs_no_memory(tmp_path: Path) -> None:
    """One connection, and no commit that would let go of what is not used."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            link, made = await b.producer(), []
            for _ in range(3 * Registry.KEPT):
                made.append((await b.bound(link))[1])
                await b.recorder.end(link, None)
            await b.settled()
            reader, registry = b.link(OWNER), b.recorder.registry
            for session_id in made:
                assert (await b.recorder.metrics(reader, session_id)).session_id == session_id
                assert len(registry.sessions) <= 2 * Registry.KEPT
            for _ in range(3 * Registry.KEPT):
                await b.recorder.hello(reader, Identity(OWNER, "app", str(uuid4())), None)
                assert reader.producer in registry.producers.values()
                assert len(registry.producers) <= 2 * Registry.KEPT + 1

    run(test())


def test_a_gap_is_taken_and_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 3)
            await b.batch(link, 7, dropped=5)
            assert await b.batch(link, 5) == (7, session_id)
            shown = b.recorder.ledger.shown()
            assert (shown["missing_batches"], shown["dropped_by_clients"], shown["duplicates"]) == (5, 5, 1)

    run(test())


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound(await b.producer(client_id=CLIENT))
            await b.batch(link, 1)
            await b.batch(link, 2)
        async with bench(tmp_path) as b:
            link = b.link()
            assert await b.recorder.hello(link, Identity(ADA, "app", CLIENT), None) == 2
            assert link.current == session_id
            await b.batch(link, 2)
            await b.batch(link, 3)
            assert await b.calls(session_id) == 3
            await b.balances()

    run(test())


def test_client_ids_of_two_users_are_two_producers(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            for uid in (ADA, BOB):
                link, session_id = await b.bound(await b.producer(uid, CLIENT))
                await b.batch(link, 1)
                assert await b.calls(session_id) == 1

    run(test())


def test_the_largest_numbers_do_not_stop_the_daemon(tmp_path: Path) -> None:
    """Two producers that lost all but their last batch, as their numbers say: the sum is more than SQLite holds."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            for _ in range(2):
                link, session_id = await b.bound()
                options: dict[str, Any] = {"session_id": None, "flush": True, "dropped": 2**53}
                await b.recorder.batch(link, LARGEST_SEQ, [call()], **options)
            writing = asyncio.ensure_future(b.settled())
            await until(lambda: writing.done() or b.recorder.committer.failure)
            assert b.recorder.committer.failure is None
            assert await b.calls(session_id) == 1

    run(test())


def test_a_name_that_is_no_text_does_not_stop_the_daemon(tmp_path: Path) -> None:
    """A process may call itself anything; Python shows bytes that are no UTF-8 as lone surrogates."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.recorder.record(b.link(process="caf\udce9"), call(), None)
            writing = asyncio.ensure_future(b.settled())
            await until(lambda: writing.done() or b.recorder.committer.failure)
            assert b.recorder.committer.failure is None

    run(test())


def test_a_batch_needs_a_producer(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            with pytest.raises(HelloRequired):
                await b.batch(b.link(), 1)

    run(test())


def test_batches_behind_a_refused_one_wait_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, max_sessions=1) as b:
            _, other = await b.bound()
            link = await b.producer()
            with pytest.raises(Overloaded):
                await b.batch(link, 1)
            await b.recorder.end(b.link(), other)
            with pytest.raises(Overloaded, match="batch 1 was refused"):
                await b.batch(link, 2)
            await b.batch(link, 1)
            _, session_id = await b.batch(link, 2)
            assert session_id is not None
            assert await b.calls(session_id) == 2
            assert b.recorder.ledger.shown()["missing_batches"] == 0

    run(test())


# Late records: the table in core/registry.py


async def _ended(b: Bench, link: Any, _: str) -> None:
    await b.recorder.end(link, None)


async def _reset(b: Bench, _: Any, session_id: str) -> None:
    await b.recorder.reset(b.link(), session_id)


async def _client_lost(b: Bench, link: Any, _: str) -> None:
    b.recorder.disconnected(link)
    b.clock.move(31)
    b.recorder.sweep()


async def _rollover(b: Bench, _: Any, __: str) -> None:
    b.clock.move(86_401)
    b.recorder.sweep()


@pytest.mark.parametrize(("ending", "reason"), [(_ended, "ended"), (_reset, "reset")])
def test_after_an_end_that_the_app_gave_records_are_refused(tmp_path: Path, ending: Any, reason: str) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            await ending(b, link, session_id)
            assert await b.ended(session_id) == reason
            for named in (None, session_id):
                with pytest.raises(SessionEnded):
                    await b.batch(link, 2, session_id=named)
                with pytest.raises(SessionEnded):
                    await b.recorder.record(link, call(), named)
            assert await b.calls(session_id) == 1
            await b.balances()

    run(test())


def test_a_lost_producer_delivers_late(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound(await b.producer(client_id=CLIENT))
            await b.batch(link, 1)
            await _client_lost(b, link, session_id)
            lost_at = (await b.recorder.metrics(b.link(), session_id)).ended_at
            assert lost_at == b.clock.wall_ms() - 31_000
            back = await b.producer(client_id=CLIENT)
            assert back.current is None
            assert await b.batch(back, 2, session_id=session_id) == (2, session_id)
            metrics = await b.recorder.metrics(b.link(), session_id)
            assert (metrics.total_inferences, metrics.ended_at) == (2, lost_at)
            assert (metrics.extensions["end_reason"], metrics.extensions["revision"]) == ("client_lost", 2)
            await b.balances()

    run(test())


def test_an_idle_session_takes_what_comes_late(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link = b.link()
            session_id, _ = await b.recorder.start(link, None, None, {})
            await b.recorder.record(link, call(), None)
            heard = b.clock.wall_ms()
            b.clock.move(1800)
            b.recorder.sweep()
            await b.recorder.record(link, call(), session_id)
            metrics = await b.recorder.metrics(link, session_id)
            assert (metrics.total_inferences, metrics.ended_at) == (2, heard)
            assert (metrics.extensions["end_reason"], metrics.extensions["revision"]) == ("idle", 2)

    run(test())


def test_after_a_rollover_the_producer_goes_on_in_the_next(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, first = await b.bound()
            await b.batch(link, 1)
            await _rollover(b, link, first)
            _, second = await b.batch(link, 2)
            assert second not in (None, first)
            assert await b.batch(link, 3, session_id=first) == (3, second)
            b.clock.move(86_401)
            b.recorder.sweep()
            _, third = await b.batch(link, 4, session_id=first)
            assert third not in (first, second)
            assert [await b.calls(str(name)) for name in (first, second, third)] == [1, 2, 1]
            assert await b.ended(first) == "rollover"
            b.recorder.disconnected(link)
            b.clock.move(31)
            b.recorder.sweep()
            assert await b.ended(str(third)) == "client_lost"
            await b.balances()

    run(test())


def test_the_next_session_is_like_the_one_before(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link = await b.producer(app="kiosk")
            first, _ = await b.recorder.start(link, None, None, {"room": "7"})
            await _rollover(b, link, first)
            _, second = await b.batch(link, 1)
            metrics = await b.recorder.metrics(link, second)
            assert metrics.extensions["labels"] == {"room": "7"}
            assert metrics.extensions["app"] == "kiosk"
            assert metrics.hardware_capabilities is not None

    run(test())


def test_a_session_of_another_boot_ends_and_takes_what_comes_late(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            link, session_id = await b.bound(await b.producer(client_id=CLIENT))
            await b.batch(link, 1)
            heard = clock.wall_ms()
        clock.move(60)
        async with bench(tmp_path, clock, boot_id="another") as b:
            assert await b.ended(session_id) == "device_restarted"
            link = await b.producer(client_id=CLIENT)
            assert link.current is None
            assert await b.batch(link, 2, session_id=session_id) == (2, session_id)
            metrics = await b.recorder.metrics(link, session_id)
            assert (metrics.total_inferences, metrics.ended_at) == (2, heard)
            assert metrics.extensions["revision"] == 2
            await b.balances()

    run(test())


def test_within_a_boot_a_session_is_taken_up_and_lost_in_time(tmp_path: Path) -> None:
    async def test() -> None:
        clock, lonely = ManualClock(), []
        async with bench(tmp_path, clock) as b:
            _, session_id = await b.bound()
        async with bench(tmp_path, clock) as b:
            b.recorder.on_lonely = lambda: lonely.append(1)
            assert b.recorder.next_loss_in_s() == 30
            assert await b.ended(session_id) is None
            clock.move(30)
            b.recorder.sweep()
            assert await b.ended(session_id) == "client_lost"

    run(test())


def test_an_end_stands_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            _, ticket = await b.recorder.end(link, None)
            assert ticket is not None
            await ticket
        async with bench(tmp_path, boot_id="another") as b:
            with pytest.raises(SessionEnded):
                await b.recorder.record(b.link(), call(), session_id)
            with pytest.raises(SessionEnded):
                await b.recorder.end(b.link(), session_id)
            with pytest.raises(SessionEnded):
                await b.producer(session_id=session_id)

    run(test())


# Sessions


def test_starting_ones_own_active_session_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.producer(), str(uuid4())
            await b.recorder.start(link, session_id, None, {"a": "b"})
            await b.batch(link, 1)
            await b.recorder.start(link, session_id, None, {})
            metrics = await b.recorder.metrics(link, None)
            assert (metrics.session_id, metrics.total_inferences) == (session_id, 1)
            assert metrics.extensions["labels"] == {"a": "b"}

    run(test())


def test_one_proposed_id_is_one_session_however_it_is_started(tmp_path: Path) -> None:
    """A producer that reconnects while its first request still waits for the disk proposes the same id again."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            session_id = str(uuid4())
            links = [await b.producer(client_id=CLIENT) for _ in range(3)]
            await asyncio.gather(*(b.recorder.start(link, session_id, None, {}) for link in links))
            tracked = b.recorder.registry.sessions[session_id]
            assert set(tracked.attached) == {link.link_id for link in links}
            for seq, link in enumerate(links, start=1):
                await b.batch(link, seq)
            assert await b.calls(session_id) == 3
            await b.balances()

    run(test())


def test_a_record_between_two_starts_of_one_id_is_not_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            session_id = str(uuid4())
            first, second = await b.producer(client_id=CLIENT), await b.producer(client_id=CLIENT)

            async def start_and_record() -> None:
                await b.recorder.start(first, session_id, None, {})
                await b.recorder.batch(first, 1, [call()], session_id=None, flush=True, dropped=0)

            await asyncio.gather(start_and_record(), b.recorder.start(second, session_id, None, {}))
            await b.batch(second, 2)
            assert await b.calls(session_id) == 2
            await b.balances()

    run(test())


def test_ten_calls_without_a_session_are_one_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            answers = await asyncio.gather(*(b.recorder.record(b.link(), call(), None) for _ in range(10)))
            (session_id,) = {answer for answer, _ in answers}
            assert await b.calls(session_id) == 10
            for link in (b.link(BOB), b.link(process="else")):
                other, _ = await b.recorder.record(link, call(), None)
                assert other != session_id
            b.clock.move(1800)
            b.recorder.sweep()
            assert (await b.recorder.metrics(b.link(), None)).session_id == session_id
            fresh, _ = await b.recorder.record(b.link(), call(), None)
            assert fresh != session_id

    run(test())


def test_an_implicit_session_is_found_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            session_id, _ = await b.recorder.record(b.link(), call(), None)
        async with bench(tmp_path) as b:
            again, _ = await b.recorder.record(b.link(), call(), None)
            assert again == session_id
            assert await b.calls(session_id) == 2

    run(test())


def test_without_any_session_there_is_none_to_show(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            for method in (b.recorder.metrics, b.recorder.export, b.recorder.end):
                with pytest.raises(UnknownSession, match="no session yet"):
                    await method(b.link(), None)
            with pytest.raises(UnknownSession):
                await b.recorder.record(b.link(), call(), str(uuid4()))

    run(test())


def test_a_reset_starts_afresh_in_the_same_place(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link = await b.producer(app="kiosk")
            old, _ = await b.recorder.start(link, None, None, {"room": "7"})
            await b.batch(link, 1)
            fresh, ticket = await b.recorder.reset(link, None)
            assert ticket is not None
            await ticket
            assert (await b.ended(old), await b.ended(fresh)) == ("reset", None)
            assert await b.batch(link, 2) == (2, fresh)
            metrics = await b.recorder.metrics(link, None)
            assert (metrics.session_id, metrics.total_inferences) == (fresh, 1)
            assert metrics.extensions["labels"] == {"room": "7"}
            assert await b.calls(old) == 1
            b.recorder.disconnected(link)
            b.clock.move(31)
            b.recorder.sweep()
            assert await b.ended(fresh) == "client_lost"

    run(test())


def test_a_reset_without_a_session_makes_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            session_id, _ = await b.recorder.reset(b.link(), None)
            again, _ = await b.recorder.record(b.link(), call(), None)
            assert again == session_id

    run(test())


def test_a_shared_session_lives_as_long_as_one_is_connected(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            owner, session_id = await b.bound()
            guest = await b.producer(session_id=session_id)
            assert guest.current == session_id
            b.recorder.disconnected(owner)
            b.clock.move(3600)
            b.recorder.sweep()
            await b.batch(guest, 1)
            assert await b.ended(session_id) is None
            b.recorder.disconnected(guest)
            b.clock.move(30)
            b.recorder.sweep()
            assert await b.ended(session_id) == "client_lost"

    run(test())


def test_too_many_sessions_are_refused_until_one_ends(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, max_sessions=2) as b:
            link, _ = await b.bound()
            await b.bound()
            with pytest.raises(Overloaded) as refused:
                await b.bound()
            assert refused.value.data["retry_after_ms"] > 0
            await b.recorder.end(link, None)
            await b.bound()

    run(test())


def test_two_who_ask_for_one_ended_session_share_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            await _client_lost(b, link, session_id)
        async with bench(tmp_path) as b:
            assert session_id not in b.recorder.registry.sessions
            records = (b.recorder.record(b.link(), call(), session_id) for _ in range(5))
            await asyncio.gather(*records)
            assert await b.calls(session_id) == 6
            assert (await b.recorder.metrics(b.link(), session_id)).extensions["revision"] == 6
            await b.balances()

    run(test())


@pytest.mark.parametrize("request_in_flight", ["hello", "start", "batch"])
def test_a_connection_that_breaks_while_its_request_is_carried_out_holds_nothing(
    tmp_path: Path, request_in_flight: str
) -> None:
    """The process was killed while the daemon looked something up for it: nobody else will say that it is gone."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            _, session_id = await b.bound(await b.producer(client_id=CLIENT))
        async with bench(tmp_path) as b:
            link = b.link() if request_in_flight == "hello" else await b.producer()
            requests: dict[str, Any] = {
                "hello": lambda: b.recorder.hello(link, Identity(ADA, "app", CLIENT), None),
                "start": lambda: b.recorder.start(link, session_id, None, {}),
                "batch": lambda: b.batch(link, 1, session_id=session_id),
            }
            working = asyncio.ensure_future(requests[request_in_flight]())
            await asyncio.sleep(0)
            b.recorder.disconnected(link)
            await working
            assert link.producer is None or link.producer.connections == 0
            b.clock.move(60)
            b.recorder.sweep()
            assert await b.ended(session_id) == "client_lost"

    run(test())


# Who may do what


def test_another_users_session_is_unknown(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            _, session_id = await b.bound()
            stranger = b.link(BOB)
            attempts = [
                b.recorder.metrics(stranger, session_id),
                b.recorder.export(stranger, session_id),
                b.recorder.end(stranger, session_id),
                b.recorder.reset(stranger, session_id),
                b.recorder.record(stranger, call(), session_id),
                b.recorder.start(stranger, session_id, None, {}),
                b.producer(BOB, session_id=session_id),
            ]
            for attempt in attempts:
                with pytest.raises(UnknownSession):
                    await attempt
            assert await b.ended(session_id) is None

    run(test())


@pytest.mark.parametrize("uid", [0, OWNER])
def test_root_and_the_daemons_own_user_may_do_everything(tmp_path: Path, uid: int) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            _, session_id = await b.bound()
            privileged = b.link(uid)
            assert (await b.recorder.metrics(privileged, session_id)).session_id == session_id
            b.recorder.flush(privileged)
            await b.recorder.end(privileged, session_id)
            assert await b.ended(session_id) == "ended"

    run(test())


def test_flushing_is_not_for_everybody(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            with pytest.raises(PermissionDenied):
                b.recorder.flush(b.link())

    run(test())


# A disk that refuses


def test_while_the_disk_refuses_nothing_is_applied(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.settled()
            b.store.refuses = disk_full()
            waiting = asyncio.ensure_future(b.batch(link, 1))
            await until(lambda: b.recorder.committer.failure)
            counted = b.recorder.ledger.shown()
            attempts: list[Coroutine[Any, Any, Any]] = [
                b.batch(link, 2),
                b.recorder.record(link, call(), None),
                b.recorder.record(b.link(), call(), None),
                b.recorder.start(link, None, None, {}),
                b.recorder.end(link, None),
                b.recorder.reset(link, None),
            ]
            for attempt in attempts:
                with pytest.raises(StorageUnavailable) as refused:
                    await attempt
                assert refused.value.data["retry_after_ms"] > 0
            assert not waiting.done()
            assert b.recorder.ledger.shown() == counted
            b.store.refuses = None
            assert await waiting == (1, session_id)
            assert await b.batch(link, 2) == (2, session_id)
            assert await b.calls(session_id) == 2
            assert b.recorder.ledger.shown()["missing_batches"] == 0
            await b.balances()

    run(test())


def test_a_disk_that_cannot_be_read_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:

            async def unreadable(_: str) -> None:
                raise StorageError("disk I/O error")

            with monkeypatch.context() as patch:
                patch.setattr(b.store, "session", unreadable)
                with pytest.raises(StorageUnavailable, match="cannot read"):
                    await b.recorder.metrics(b.link(), str(uuid4()))

    run(test())


def test_after_damage_in_use_all_is_there_and_the_ledger_balances(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            old, gone = await b.bound()
            await b.batch(old, 1)
            await b.recorder.end(old, None)
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            b.store.failures = [CorruptDatabase("malformed")]
            await b.batch(link, 2)
            assert [await b.calls(name) for name in (gone, session_id)] == [1, 2]
            await b.balances()
        async with bench(tmp_path) as b:
            assert [await b.calls(name) for name in (gone, session_id)] == [1, 2]
            await b.balances()

    run(test())


def test_a_salvage_that_the_disk_refuses_is_done_when_it_takes_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            refusals = [disk_full()]

            def refused_once(*arguments: Any, **options: Any) -> sqlite3.Connection:
                if refusals:
                    raise refusals.pop()
                return salvage(*arguments, **options)

            monkeypatch.setattr("xybridd.storage.store.salvage", refused_once)
            b.store.failures = [CorruptDatabase("malformed")]
            async with asyncio.timeout(10):
                assert await b.batch(link, 2) == (2, session_id)
            await b.balances()

    run(test())


def _sessions_overwritten(path: Path) -> None:
    """Overwrite every page of the table of sessions; their models and errors stay."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'session'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)


def test_what_damage_in_use_took_stands_in_the_ledger(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            old, gone = await b.bound()
            await b.batch(old, 1)
            await b.recorder.end(old, None)
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            await b.store._read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
            _sessions_overwritten(b.store.path)
            b.store.failures = [CorruptDatabase("malformed")]
            await b.batch(link, 2)
            assert await b.calls(session_id) == 2
            with pytest.raises(UnknownSession):
                await b.calls(gone)
            assert b.recorder.ledger.shown()["removed"] == {"damage": 1}
            await b.balances()

    run(test())


@pytest.mark.parametrize("table", ["session", "session_open", "model", "error", "producer", "ledger"])
def test_damage_that_shows_only_while_reading_does_not_keep_the_daemon_from_starting(
    tmp_path: Path, table: str
) -> None:
    """After a clean end nothing is checked; a page that went bad since is met by the first who reads it."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            for _ in range(60):
                link, _ = await b.bound()
                await b.batch(link, 1, [call(model) for model in "abcdef"] + [error()])
        _overwrite_last_page_of(tmp_path / "xybridd.db", table)
        async with bench(tmp_path) as b:
            await b.bound()
            await b.balances()

    run(test())


def _overwrite_last_page_of(path: Path, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    start = (page - 1) * size
    while data[start] in {2, 5}:  # an interior page: its right-most child has the newest rows
        start = (int.from_bytes(data[start + 8 : start + 12]) - 1) * size
    assert data[start] in {10, 13}  # a leaf
    data[start : start + size] = b"\xa5" * size
    path.write_bytes(data)


# Listing and the ledger


def test_listing_is_of_what_is_on_disk(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            (summary,) = await b.recorder.sessions(rows.SessionFilter(uid=ADA))
            assert (summary.session_id, summary.total_inferences) == (session_id, 1)
            assert await b.recorder.sessions(rows.SessionFilter(uid=BOB)) == []

    run(test())


def test_what_is_refused_stands_in_the_ledger(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.recorder.refuse(3, "invalid_params")
            await b.settled()
            assert await b.store.ledger() == {"received": 3, "rejected.invalid_params": 3}
            await b.balances()

    run(test())


def test_many_who_speak_at_once_share_commits(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            links = [(await b.bound())[0] for _ in range(50)]
            await b.settled()
            before = b.store.writes
            await asyncio.gather(*(b.batch(link, 1) for link in links))
            assert b.store.writes - before <= 2
            await b.balances()

    run(test())
