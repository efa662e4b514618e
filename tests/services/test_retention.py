from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.core.given import call, error
from tests.services.far_end import OK, Desk, FarEnd, desk, status
from tests.services.given import ADA, BOB, DAY_S, Bench, ManualClock, bench, disk_full, run, until
from xybridd.core.delivery import Item
from xybridd.errors import UnknownSession
from xybridd.services.retention import Retention
from xybridd.storage import outbox
from xybridd.storage import retention as module

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.protocol.records import Record

RECORDS: list[Record] = [call(), call("n"), error("boom")]


def retention(b: Bench, *, days: float = 30, quota_bytes: int = 2**40) -> Retention:
    return Retention(b.store, b.recorder, b.clock, days, quota_bytes)


async def ended_sessions(b: Bench, number: int) -> list[str]:
    made = []
    for _ in range(number):
        link, session_id = await b.bound()
        await b.batch(link, 1, RECORDS)
        await b.recorder.end(link, None)
        b.recorder.disconnected(link)
        b.clock.move(60)
        made.append(session_id)
    await b.settled()
    return made


def test_what_is_past_its_time_goes_and_stands_in_the_ledger(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            old = await ended_sessions(b, 3)
            link, still_open = await b.bound()
            await b.batch(link, 1)
        clock.move(30 * DAY_S - 60)
        async with bench(tmp_path, clock) as b:
            await retention(b).run()
            gone, kept = old[:2], old[2:]
            for session_id in gone:
                with pytest.raises(UnknownSession):
                    await b.calls(session_id)
            assert [await b.calls(session_id) for session_id in [*kept, still_open]] == [2, 1]
            assert b.recorder.ledger.shown()["removed"] == {"retention": 6}
            await b.balances()

    run(test())


def test_a_session_that_ended_in_this_run_goes_too_when_its_time_is_up(tmp_path: Path) -> None:
    """A daemon may run for months: what it still has in memory is no reason to keep it past its time."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            (session_id,) = await ended_sessions(b, 1)
            b.clock.move(31 * DAY_S)
            await retention(b).run()
            with pytest.raises(UnknownSession):
                await b.calls(session_id)
            await b.balances()

    run(test())


def test_over_the_quota_the_oldest_go(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            made = await ended_sessions(b, 150)
        async with bench(tmp_path, clock) as b:
            quota = (await b.store.use()).used_bytes // 2
            await retention(b, quota_bytes=quota).run()
            left = {session_id for session_id in made if await b.store.session(session_id) is not None}
            assert 0 < len(left) < len(made)
            assert left == set(made[-len(left) :])
            assert b.recorder.ledger.shown()["removed"] == {"quota": 3 * (len(made) - len(left))}
            await b.balances()

    run(test())


async def producers(b: Bench, number: int, uid: int) -> list[str]:
    """Producers that came, sent a batch and went; their client ids."""
    made = []
    for _ in range(number):
        link = await b.producer(uid)
        await b.batch(link, 1)
        b.recorder.disconnected(link)
        b.clock.move(1)
        assert link.identity is not None
        made.append(str(link.identity.client_id))
    await b.settled()
    return made


async def known(b: Bench, client_ids: list[str], uid: int) -> list[bool]:
    return [await b.store.producer(uid, client_id) is not None for client_id in client_ids]


def test_of_each_user_the_latest_producers_are_remembered_and_those_that_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRODUCERS_EACH", 20)

    async def test() -> None:
        async with bench(tmp_path) as b:
            quiet = await b.producer(ADA)
            await b.batch(quiet, 1)
            b.clock.move(1)
            of_ada, of_bob = await producers(b, 50, ADA), await producers(b, 20, BOB)
            await retention(b).run()
            assert await known(b, of_ada, ADA) == [False] * 30 + [True] * 20
            assert all(await known(b, of_bob, BOB))
            b.recorder.disconnected(quiet)
            assert quiet.identity is not None
            again = await b.producer(ADA, quiet.identity.client_id)
            await b.batch(again, 2)
            assert b.recorder.ledger.shown()["missing_batches"] == 0
            await b.balances()

    run(test())


def test_over_the_quota_what_is_remembered_of_producers_goes_before_anybodys_sessions(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            made = await ended_sessions(b, 5)
            quota = await b.store.used_bytes() + 2**16
            await producers(b, 1500, BOB)
            assert await b.store.used_bytes() > quota
            await retention(b, quota_bytes=quota).run()
            assert [await b.calls(session_id) for session_id in made] == [2] * 5
            assert b.recorder.ledger.shown()["removed"] == {}

    run(test())


def test_two_rounds_at_once_count_what_goes_once(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            await ended_sessions(b, 3)
        clock.move(31 * DAY_S)
        async with bench(tmp_path, clock) as b:
            await asyncio.gather(retention(b).run(), retention(b).run())
            assert b.recorder.ledger.shown()["removed"] == {"retention": 9}
            await b.balances()

    run(test())


def test_a_disk_that_refuses_delays_it(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            await ended_sessions(b, 2)
        clock.move(31 * DAY_S)
        async with bench(tmp_path, clock) as b:
            await b.settled()
            b.store.failures = [disk_full()]
            await retention(b).run()
            assert b.recorder.ledger.shown()["removed"] == {"retention": 6}
            await b.balances()

    run(test())


def test_a_session_that_is_asked_for_while_it_goes_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            (session_id,) = await ended_sessions(b, 1)
        async with bench(tmp_path, clock) as b:
            ticket = b.recorder.remove({session_id: 3}, "retention")
            with pytest.raises(UnknownSession):
                await b.calls(session_id)
            assert ticket is not None
            await ticket
            with pytest.raises(UnknownSession):
                await b.calls(session_id)
            await b.balances()

    run(test())


def test_what_a_producer_just_asked_for_is_left_for_later(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            b.recorder.disconnected(link)
            clock.move(31)
            b.recorder.sweep()
        async with bench(tmp_path, clock) as b:
            late = asyncio.ensure_future(b.recorder.record(b.link(), call(), session_id))
            expired = await b.store.expired(clock.wall_ms() + 1)
            await late
            b.recorder.remove(expired, "retention")
            assert await b.calls(session_id) == 2
            await b.balances()

    run(test())


# What is still to be sent


def session_ids(far: FarEnd) -> set[str]:
    return set(far.sessions)


async def here(d: Desk, made: list[str]) -> list[str]:
    """Those that are still in the database, in their order."""
    return [session_id for session_id in made if await d.b.store.session(session_id) is not None]


async def ended_one_by_one(d: Desk, number: int) -> list[str]:
    made = []
    for _ in range(number):
        made += await d.ended(1)
        d.b.clock.move(60)
    return made


def test_what_is_still_to_be_sent_is_not_past_its_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path) as d:
            sent = await d.ended(2)
            await d.at_rest()
            d.xybrid.says = lambda _job: status(503)
            waiting = await d.ended(2)
            await d.at_rest()
            d.b.clock.move(31 * DAY_S)
            await d.uploader.pause(paused=True)
            await retention(d.b).run()
            assert await here(d, [*sent, *waiting]) == waiting
            d.xybrid.says = lambda _job: OK
            await d.uploader.pause(paused=False)
            await d.at_rest()
            assert session_ids(d.xybrid) == {*sent, *waiting}
            await retention(d.b).run()
            assert await here(d, waiting) == []
            assert (await d.tally()).delivered == 4
            await d.balances()

    run(test())


def test_a_dead_letter_keeps_no_session_past_its_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path) as d:
            d.xybrid.says = lambda _job: status(422)
            made = await d.ended(2)
            await d.at_rest()
            assert (await d.tally()).dead == 2
            d.b.clock.move(31 * DAY_S)
            await retention(d.b).run()
            assert await here(d, made) == []
            tally = await d.tally()
            assert (tally.dead, tally.evicted) == (0, 2)
            await d.balances()

    run(test())


def test_over_the_quota_what_was_sent_goes_first_and_then_the_oldest(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path, most_items=3) as d:
            await d.uploader.pause(paused=True)
            unsent = await ended_one_by_one(d, 60)
            await d.uploader.pause(paused=False)
            d.xybrid.says = lambda _job: status(503)
            await d.at_rest()
            batch = unsent[:3]  # it may have arrived, and goes again as it is
            await d.uploader.pause(paused=True)
            d.b.recorder.pending.sinks = ()
            done = await ended_one_by_one(d, 90)  # newer, and nobody waits for them
            used = await d.b.store.used_bytes()
            await retention(d.b, quota_bytes=int(used * 0.97)).run()
            left = await here(d, [*unsent, *done])
            assert left[: len(unsent)] == unsent
            assert 0 < len(left) - len(unsent) < len(done)
            assert left[len(unsent) :] == done[-(len(left) - len(unsent)) :]
            used = await d.b.store.used_bytes()
            await retention(d.b, quota_bytes=used // 2).run()
            assert await d.b.store.used_bytes() <= used // 2
            left = await here(d, [*unsent, *done])
            assert left[:3] == batch
            assert 3 < len(left) < len(unsent)
            assert left[3:] == unsent[-(len(left) - 3) :]
            tally = await d.tally()
            assert (tally.evicted, tally.queued) == (len(unsent) - len(left), len(left))
            assert d.b.recorder.ledger.shown()["removed"] == {"quota": 150 - len(left)}
            await d.balances()
            d.xybrid.says = lambda _job: OK
            await d.uploader.pause(paused=False)
            await d.pass_time(301)
            assert sorted(d.xybrid.sessions) == sorted(left)
            await d.balances()

    run(test())


def imported(number: int) -> list[Item]:
    return [
        Item(
            "session",
            f"elsewhere-{each}",
            1,
            5,
            "other",
            "linux",
            "app",
            "",
            bytes(random.Random(each).randbytes(4000)),
        )
        for each in range(number)
    ]


def test_exports_of_other_devices_count_and_go_last(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path) as d:
            await d.uploader.pause(paused=True)
            await d.b.store.transact(partial(outbox.take_in, items=imported(100), sinks=("xybrid",)))
            own = await ended_one_by_one(d, 20)
            await retention(d.b, quota_bytes=200_000).run()
            assert await d.b.store.used_bytes() <= 200_000
            assert await here(d, own) == []
            tally = await d.tally()
            assert 0 < tally.queued < 100
            assert tally.evicted == 120 - tally.queued
            await d.balances()
            await d.uploader.pause(paused=False)
            await d.at_rest()
            assert d.xybrid.sessions == [f"elsewhere-{each}" for each in range(100 - tally.queued, 100)]

    run(test())


def test_marks_of_what_was_brought_from_elsewhere_go_when_they_are_old(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path) as d:
            items = imported(3)
            assert await d.b.store.transact(partial(outbox.take_in, items=items, sinks=("xybrid",))) == 3
            d.uploader.wake()
            await d.at_rest()
            assert await d.b.store.transact(partial(outbox.take_in, items=items, sinks=("xybrid",))) == 0
            await retention(d.b).run()  # they say that they were made in 1970
            assert await d.b.store.transact(partial(outbox.take_in, items=items, sinks=("xybrid",))) == 3
            await d.balances()

    run(test())


def test_minutes_count_and_go_with_their_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path, "otlp") as d:
            await d.uploader.pause(paused=True)
            for _ in range(20):
                link, _ = await d.b.bound()
                for seq in range(1, 6):
                    await d.b.batch(link, seq, RECORDS)
                    d.b.clock.move(60)
                    d.b.recorder.close_minute(d._state[0])
                    await d.b.settled()
                await d.b.recorder.end(link, None)
                d.b.recorder.disconnected(link)
            await d.b.settled()
            made = (await d.tally("otlp")).made
            used = await d.b.store.used_bytes()
            await retention(d.b, quota_bytes=used // 2).run()
            assert await d.b.store.used_bytes() <= used // 2
            tally = await d.tally("otlp")
            assert 0 < tally.queued < made == tally.queued + tally.evicted
            await d.uploader.pause(paused=False)
            await d.at_rest()
            assert (await d.tally("otlp")).delivered == tally.queued == len(d.far["otlp"].has)
            await d.balances()

    run(test())


def test_samples_go_too_when_nothing_else_is_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path, "otlp") as d:
            await d.uploader.pause(paused=True)
            link, _ = await d.b.bound()
            for seq in range(1, 400):
                await d.b.batch(link, seq)
                d.b.clock.move(60)
                d.b.recorder.close_minute(d._state[0])
            await d.b.settled()
            used = await d.b.store.used_bytes()
            await retention(d.b, quota_bytes=used * 9 // 10).run()
            assert await d.b.store.used_bytes() < used
            assert len(await d.b.store.samples(0, 1000)) < 399
            await d.balances()

    run(test())


def test_a_commit_that_takes_the_file_over_the_quota_is_answered_at_once(tmp_path: Path) -> None:
    """The hourly round would come too late for who records much in little time."""

    async def test() -> None:
        async with desk(tmp_path) as d:
            await d.uploader.pause(paused=True)
            keeper = retention(d.b, quota_bytes=400_000)
            d.b.recorder.pending.on_kept = keeper.look
            made = await ended_one_by_one(d, 400)
            await until(lambda: keeper._looking is None or keeper._looking.done())
            assert await d.b.store.used_bytes() <= 400_000 * 1.05
            left = await here(d, made)
            assert 0 < len(left) < len(made)
            assert left == made[-len(left) :]
            await keeper.stop()
            await d.balances()

    run(test())


def test_a_quota_that_cannot_be_kept_is_said_and_not_tried_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, _ = await b.bound()
            await b.batch(link, 1, RECORDS)
            await retention(b, quota_bytes=1024).run()
            assert "all still needed" in caplog.text
            await b.balances()

    run(test())
