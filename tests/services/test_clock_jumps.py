"""A boot in 1970 that NTP mends, through the recorder and a real database."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from tests.core.given import call, error
from tests.services.given import ADA, OWNER, ManualClock, bench, disk_full, run, until
from xybridd.core.minute import Minute, Sample
from xybridd.services.retention import Retention
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.given import Bench

NOW_MS = 1_790_000_000_000
IN_2099_MS = 4_080_000_000_000
DAY_MS = 86_400_000


class SetClock(ManualClock):
    """One that can be set: it begins in 1970, like a board without a battery for it."""

    def __init__(self, up_s: float = 100.0, offset_ms: int = 0) -> None:
        super().__init__(up_s)
        self.offset_ms = offset_ms

    def wall_ms(self) -> int:
        return self.offset_ms + int(self.now_s * 1000)

    def set(self, wall_ms: int) -> None:
        self.offset_ms = wall_ms - int(self.now_s * 1000)


def rows(folder: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        return connection.execute(sql).fetchall()


def times(folder: Path) -> list[int]:
    """Every time on disk, wherever it stands."""
    found = [
        each
        for sql in (
            "SELECT started_at_ms, ended_at_ms FROM session",
            "SELECT last_called_ms FROM model",
            "SELECT first_seen_ms, last_seen_ms FROM error",
            "SELECT started_at_ms, ended_at_ms FROM minute",
            "SELECT at_ms FROM sample",
            "SELECT made_at_ms FROM outbox",
            "SELECT made_at_ms FROM export",
            "SELECT heard_at_ms FROM producer",
        )
        for row in rows(folder, sql)
        for each in row
        if each is not None
    ]
    for (body,) in rows(folder, "SELECT body FROM minute"):
        minute = msgspec.msgpack.decode(body, type=Minute)
        found += [minute.started_at_ms, minute.ended_at_ms]
    found += [msgspec.msgpack.decode(body, type=Sample).at_ms for (body,) in rows(folder, "SELECT body FROM sample")]
    return found


async def recorded(b: Bench) -> tuple[Any, str, str]:
    """One session that has ended and one that goes on, with minutes and samples, all in 1970."""
    b.recorder.pending.sinks = ("xybrid", "otlp")
    over, ended = await b.bound()
    await b.batch(over, 1, [call(), error("boom")])
    _, ticket = await b.recorder.end(over, None)
    assert ticket is not None
    await ticket
    link, open_id = await b.bound()
    await b.batch(link, 1, [call(timestamp_ms=b.clock.wall_ms() - 20_000), error("boom")])
    b.clock.move(30)
    b.recorder.close_minute(await b.recorder._sessions._sampler.state())
    b.clock.move(5)
    await b.batch(link, 2)
    await b.settled()
    return link, ended, open_id


def test_everything_that_a_boot_in_1970_recorded_gets_its_true_time(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            link, ended, open_id = await recorded(b)
            clock.set(NOW_MS)
            b.recorder.sweep()
            await b.settled()
            # Late from the producer's queue: it was recorded before the clock was set.
            await b.batch(link, 3, [call("late", timestamp_ms=120_000)])
            assert all(NOW_MS - 60_000 <= time <= NOW_MS for time in times(folder)), times(folder)
            # Nothing else has moved: how long things took is what it was.
            metrics = await b.recorder.metrics(b.link(OWNER), open_id)
            assert metrics.started_at == NOW_MS - 35_000
            assert metrics.by_model["m@1"].last_called == NOW_MS
            assert metrics.by_model["late@1"].last_called == NOW_MS - 15_000
            assert metrics.errors[0].first_seen == NOW_MS - 35_000
            assert (await b.recorder.metrics(b.link(OWNER), ended)).ended_at == NOW_MS - 35_000
            await b.balances()

    run(test())


def test_what_was_exported_gets_a_new_revision_once(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            _, ended, _ = await recorded(b)
            await asyncio.sleep(0)
            clock.set(NOW_MS)
            b.recorder.sweep()
            await b.settled()
            b.recorder.sweep()
            await b.settled()
            waiting = rows(folder, "SELECT session_id, revision FROM outbox WHERE kind = 'session'")
            assert waiting == [(ended, 2)]
            assert (await b.recorder.export(b.link(OWNER), ended)).session.started_at.startswith("2026")

    run(test())


def test_sessions_that_are_on_disk_alone_are_corrected_and_exported_there(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            _, ended, _ = await recorded(b)
            b.recorder.registry.sessions.pop(ended)
            clock.set(NOW_MS)
            b.recorder.sweep()
            # Who asks meanwhile is answered when it is corrected.
            assert (await b.recorder.metrics(b.link(OWNER), ended)).ended_at == NOW_MS - 35_000
            assert rows(folder, "SELECT revision FROM outbox WHERE kind = 'session'") == [(2,)]
            assert all(time >= NOW_MS - 60_000 for time in times(folder))

    run(test())


def test_a_restart_between_the_recording_and_the_jump(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            await recorded(b)
        clock.move(60)
        clock.set(NOW_MS)
        async with bench(folder, clock) as b:
            await b.settled()
            assert all(NOW_MS - 180_000 <= time <= NOW_MS for time in times(folder)), times(folder)

    run(test())


def test_a_crash_in_the_midst_of_correcting_loses_nothing_of_it(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            await recorded(b)
            b.store.refuses = disk_full()
            clock.set(NOW_MS)
            b.recorder.sweep()
            await until(lambda: b.recorder.committer.failure)
            # What is in memory is lost here; the disk says 1970 still.
            assert all(time < DAY_MS for time in times(folder))
            copy = folder / "crashed"
            copy.mkdir()
            with closing(sqlite3.connect(folder / DATABASE_NAME)) as source:
                source.execute("VACUUM INTO ?", (str(copy / DATABASE_NAME),))
            b.store.refuses = None
            await b.settled()
        async with bench(copy, clock) as b:
            await b.settled()
            assert all(NOW_MS - 60_000 <= time <= NOW_MS for time in times(copy)), times(copy)
            await b.balances()

    run(test())


def test_a_batch_that_may_have_arrived_goes_again_as_it_was(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            await recorded(b)
            with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
                connection.execute("UPDATE outbox SET state = 'waiting', batch = 'k' || sink")
                connection.commit()
            sql = "SELECT o.made_at_ms, e.made_at_ms, m.body, s.body FROM outbox o LEFT JOIN export e ON e.id = o.item AND o.kind = 'session'"
            sql += " LEFT JOIN minute m ON m.id = o.item LEFT JOIN sample s ON s.id = o.item WHERE o.batch IS NOT NULL"
            before = rows(folder, sql)
            clock.set(NOW_MS)
            b.recorder.sweep()
            await b.settled()
            assert rows(folder, sql) == before
            # The export goes again as a new revision, beside the one that may be there.
            queued = "SELECT revision FROM outbox WHERE kind = 'session' AND state = 'queued'"
            assert rows(folder, queued) == [(2,)]

    run(test())


def test_a_day_forth_and_back_rewrites_nothing(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock(offset_ms=NOW_MS)
        async with bench(folder, clock) as b:
            await recorded(b)
            before = times(folder)
            for step_ms in (DAY_MS, -DAY_MS, -DAY_MS, DAY_MS):
                clock.offset_ms += step_ms
                b.recorder.sweep()
                await b.settled()
            assert times(folder) == before
            assert rows(folder, "SELECT * FROM clock") == []

    run(test())


def test_retention_deletes_nothing_while_nobody_knows_the_time(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            retention = Retention(b.store, b.recorder, clock, 30, 2**26)
            _, ended, _ = await recorded(b)
            b.recorder.pending.sinks = ()
            with closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
                connection.execute("DELETE FROM outbox")
                connection.commit()
            for wall_ms in (IN_2099_MS, NOW_MS):
                clock.set(wall_ms)
                await retention.run()
                assert await b.calls(ended) == 1
            clock.move(31 * 86_400)
            await retention.run()
            assert ended not in await b.store.session_ids()

    run(test())


def test_a_boot_that_ended_in_1970_is_as_old_as_the_first_right_clock_after_it(folder: Path) -> None:
    async def test() -> None:
        async with bench(folder, SetClock(), boot_id="first") as b:
            link, ended = await b.bound()
            await b.batch(link, 1)
            await b.recorder.end(link, None)
        clock = SetClock(offset_ms=NOW_MS)
        async with bench(folder, clock, boot_id="second") as b:
            retention = Retention(b.store, b.recorder, clock, 30, 2**26)
            await b.settled()
            await retention.run()
            assert await b.calls(ended) == 1
            clock.move(31 * 86_400)
            await retention.run()
            assert ended not in await b.store.session_ids()

    run(test())


def test_a_session_that_the_boot_interrupted_ends_when_it_was_last_heard_of(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock(offset_ms=NOW_MS)
        async with bench(folder, clock, boot_id="first") as b:
            link, interrupted = await b.bound()
            clock.move(60)
            await b.batch(link, 1)
            heard_ms = clock.wall_ms()
        async with bench(folder, SetClock(), boot_id="second") as b:
            assert (await b.recorder.metrics(b.link(OWNER), interrupted)).ended_at == heard_ms

    run(test())


def test_records_of_another_boot_are_left_as_they_are(folder: Path) -> None:
    async def test() -> None:
        clock = SetClock()
        async with bench(folder, clock) as b:
            link, session_id = await b.bound(await b.producer(ADA))
            clock.set(NOW_MS)
            b.recorder.sweep()
            link.boot_id = "another"
            await b.batch(link, 1, [call(timestamp_ms=50_000)])
            metrics = await b.recorder.metrics(b.link(OWNER), session_id)
            assert metrics.by_model["m@1"].last_called == 50_000

    run(test())
