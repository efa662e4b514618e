from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.core.given import call, error
from tests.services.given import DAY_S, Bench, ManualClock, bench, disk_full, run
from xybridd.errors import UnknownSession
from xybridd.services.retention import Retention

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
