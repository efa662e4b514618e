from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.core.given import call, error
from tests.services.given import ADA, BOB, DAY_S, OWNER, Bench, ManualClock, bench, disk_full, run
from xybridd.core.capabilities import Confidence, DeviceState, HardwareCapabilities, Reading
from xybridd.core.minute import MinuteFilter
from xybridd.services.retention import Retention

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.core.minute_json import MinuteJson

WARM = DeviceState(HardwareCapabilities(), {"thermal_state": Reading("Warm", Confidence.HIGH, "test", 0.0)})


async def calls_by_minute(b: Bench, session_id: str) -> list[int]:
    return [minute.calls for minute in await b.store.minutes(session_id)]


async def pass_minute(b: Bench, state: DeviceState | None = None) -> None:
    b.clock.move(60)
    b.recorder.close_minute(state)
    await b.settled()


def test_each_minute_stands_for_itself_with_the_device_as_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            b.recorder.surround(WARM)
            await b.batch(link, 1, [call(), call()])
            await pass_minute(b, WARM)
            await b.batch(link, 2, [error("boom")])
            await b.batch(link, 3, [call()])
            await pass_minute(b, WARM)
            await pass_minute(b, WARM)
            assert await calls_by_minute(b, session_id) == [2, 1]
            assert [sample.thermal_state for sample in await b.store.samples(0, 10)] == ["warm", "warm"]
            first, second = await b.store.minutes(session_id)
            assert (second.error_count, second.started_at_ms >= first.ended_at_ms) == (1, True)

    run(test())


def test_a_minute_in_which_nothing_was_recorded_writes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.bound()
            await b.settled()
            before = b.store.writes
            await pass_minute(b, WARM)
            assert b.store.writes == before
            assert await b.store.samples(0, 10) == []

    run(test())


def test_a_session_that_ended_within_the_minute_has_a_sample_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await pass_minute(b, WARM)
            assert await b.store.samples(0, 10) == []
            link, session_id = await b.bound()
            await b.batch(link, 1)
            await b.recorder.end(link, None)
            await pass_minute(b, WARM)
            await pass_minute(b, WARM)
            assert await calls_by_minute(b, session_id) == [1]
            assert len(await b.store.samples(0, 10)) == 1

    run(test())


def test_a_minute_is_closed_once_though_the_disk_was_full(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1, [call(), call()])
            b.store.failures = [disk_full(), disk_full()]
            await pass_minute(b, WARM)
            assert await calls_by_minute(b, session_id) == [2]
            assert len(await b.store.samples(0, 10)) == 1

    run(test())


def test_a_process_that_died_in_a_minute_leaves_it_to_the_next(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1, [call()])
            await pass_minute(b)
            await b.batch(link, 2, [call(), call()])
        async with bench(tmp_path, clock) as b:  # the last one closed no minute at its end: as if it was killed
            assert await calls_by_minute(b, session_id) == [1]
            await pass_minute(b)
            assert await calls_by_minute(b, session_id) == [1, 2]

    run(test())


def test_a_session_that_another_boot_left_open_has_its_last_minute_too(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with bench(tmp_path, clock) as b:
            link, session_id = await b.bound()
            await b.batch(link, 1, [call(), call()])
        async with bench(tmp_path, clock, boot_id="next") as b:
            await b.settled()
            assert await b.ended(session_id) == "device_restarted"
            assert await calls_by_minute(b, session_id) == [2]

    run(test())


def test_old_minutes_become_hours_and_go_with_their_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, session_id = await b.bound()
            for seq in range(1, 31):
                await b.batch(link, seq, [call()])
                await pass_minute(b, WARM)
            await b.recorder.end(link, None)
            b.recorder.disconnected(link)
            await b.settled()
            retention = Retention(b.store, b.recorder, b.clock, 30, 2**40)
            await retention.run()
            assert len(await calls_by_minute(b, session_id)) == 30
            b.clock.move(2.1 * DAY_S)
            await retention.run()
            coarse = await calls_by_minute(b, session_id)
            assert len(coarse) <= 2
            assert sum(coarse) == 30
            assert 1 <= len(await b.store.samples(0, 100)) <= 2
            b.clock.move(30 * DAY_S)
            await retention.run()
            assert await calls_by_minute(b, session_id) == []
            await retention.run()
            assert await b.store.samples(0, 100) == []

    run(test())


async def pages(b: Bench, uid: int = OWNER, **wanted: Any) -> list[MinuteJson]:
    found: list[MinuteJson] = []
    after = (-1, 0)
    while True:
        page = await b.recorder.minutes(b.link(uid), MinuteFilter(after=after, limit=2, **wanted))
        found += page.minutes
        if page.next is None:
            return found
        after = page.next


def test_minutes_are_read_page_by_page_in_their_order_with_the_open_ones_at_the_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            (ada, hers), (bob, his) = await b.bound(), await b.bound(await b.producer(BOB, app="robot"))
            for seq in (1, 2, 3):
                await b.batch(ada, seq, [call()] * seq)
                await b.batch(bob, seq, [error("boom")])
                await pass_minute(b)
            began_ms = b.clock.wall_ms()
            await b.batch(ada, 4, [call()] * 9)

            def shown(found: list[MinuteJson]) -> list[tuple[str, int, int, bool]]:
                return [
                    (each.session_id, sum(m.calls for m in each.models), sum(e.count for e in each.errors), each.open)
                    for each in found
                ]

            everything = await pages(b)
            assert shown(everything) == [
                *((hers, 1, 0, False), (his, 0, 1, False)),
                *((hers, 2, 0, False), (his, 0, 1, False)),
                *((hers, 3, 0, False), (his, 0, 1, False)),
                (hers, 9, 0, True),
            ]
            assert await pages(b, ADA) == [each for each in everything if each.session_id == hers]
            assert await pages(b, BOB, session_id=hers) == []
            assert await pages(b, app="robot") == await pages(b, BOB)
            assert shown(await pages(b, since_ms=began_ms)) == [(hers, 9, 0, True)]
            assert len(await pages(b, until_ms=began_ms)) == 6
            assert await calls_by_minute(b, hers) == [1, 2, 3], "reading closes nothing"

    run(test())


def test_others_have_their_turn_while_a_long_page_is_made_ready(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            link, _ = await b.bound()
            for seq in range(1, 41):
                await b.batch(link, seq, [call()])
                await pass_minute(b)
            page = await b.store.minute_page(MinuteFilter(limit=100))

            async def already_read(wanted: MinuteFilter) -> Any:  # noqa: ARG001
                return page

            b.store.minute_page = already_read  # type: ignore[method-assign]
            reading = asyncio.create_task(b.recorder.minutes(b.link(OWNER), MinuteFilter(limit=100)))
            turns = 0
            while not reading.done():
                await asyncio.sleep(0)
                turns += 1
            assert len((await reading).minutes) == 40
            assert turns >= 5

    run(test())
