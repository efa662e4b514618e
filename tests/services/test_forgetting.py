from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.given import call, error
from tests.services.far_end import DOWN, OK, Desk, desk
from tests.services.given import ADA, BOB, OWNER, run, until
from xybridd.core.delivery import Outcome
from xybridd.errors import UnknownSession
from xybridd.services.forgetting import Forgetting
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from xybridd.protocol.records import Record

MARK = "unmistakable-model-name"
RECORDS: list[Record] = [call(MARK), call(MARK), error("boom", MARK)]
LOST = Outcome(failure="timeout", detail="no answer")


def at_desk(test: Callable[[Desk, Forgetting], Coroutine[Any, Any, None]], folder: Path, *sinks: Any) -> None:
    async def whole() -> None:
        async with desk(folder, *sinks) as d:
            await test(d, Forgetting(d.b.store, d.b.recorder, d.uploader, d.b.clock))
            await d.balances()

    run(whole())


async def one(d: Desk, *, ended: bool = True) -> tuple[Any, str]:
    link, session_id = await d.b.bound()
    await d.b.batch(link, 1, RECORDS)
    if ended:
        await d.b.recorder.end(link, None)
        await d.b.settled()
        await d.at_rest()
    return link, session_id


def deletions(d: Desk, sink: str = "xybrid") -> list[str]:
    return [session_id for kind, session_id, _ in d.far[sink].has if kind == "deletion"]


def holding(mark: str, folder: Path) -> list[str]:
    """The files in which it stands."""
    return [path.name for path in sorted(folder.iterdir()) if mark.encode() in path.read_bytes()]


def test_what_was_uploaded_is_deleted_here_and_asked_to_be_deleted_there(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        _, session_id = await one(d)
        _, other = await one(d)
        told = await forgetting.session(d.b.link(ADA), session_id)
        assert told == {"sessions": 1, "records": 3, "deletion_requests": 1}
        await d.at_rest()
        assert deletions(d) == [session_id]
        with pytest.raises(UnknownSession):
            await d.b.calls(session_id)
        assert await d.b.calls(other) == 2
        assert d.b.recorder.ledger.shown()["removed"] == {"forgotten": 3}

    at_desk(test, tmp_path)


def test_what_never_left_needs_no_request(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        await d.uploader.pause(paused=True)
        _, session_id = await one(d)
        assert (await forgetting.session(d.b.link(ADA), session_id))["deletion_requests"] == 0
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert d.xybrid.has == []
        assert (await d.tally()).forgotten == 1

    at_desk(test, tmp_path)


def test_what_may_have_arrived_is_asked_for_too_and_does_not_leave_again(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        d.xybrid.says = lambda _job: LOST
        _, session_id = await one(d)
        _, other = await one(d)
        assert (await forgetting.session(d.b.link(ADA), session_id))["deletion_requests"] == 1
        sent_before = len(d.xybrid.jobs)
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        later = [item.session_id for job in d.xybrid.jobs[sent_before:] for item in job.items if item.kind == "session"]
        assert later == [other]
        assert deletions(d) == [session_id]

    at_desk(test, tmp_path)


def test_an_active_session_ends_and_its_records_go_with_it(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        link, session_id = await one(d, ended=False)
        assert (await forgetting.session(d.b.link(ADA), session_id))["records"] == 3
        with pytest.raises(UnknownSession):
            await d.b.batch(link, 2)

    at_desk(test, tmp_path)


def test_a_session_can_be_forgotten_by_its_user_and_the_owner_alone(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        _, first = await one(d)
        _, second = await one(d)
        with pytest.raises(UnknownSession):
            await forgetting.session(d.b.link(BOB), first)
        await forgetting.session(d.b.link(ADA), first)
        await forgetting.session(d.b.link(OWNER), second)

    at_desk(test, tmp_path)


def test_everything_goes_and_one_request_asks_for_all_of_it(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        for _ in range(3):
            await one(d)
        await one(d, ended=False)
        d.far["file"].says = lambda _job: DOWN
        await one(d)
        told = await forgetting.everything()
        assert told == {"sessions": 5, "records": 15, "deletion_requests": 2}
        d.far["file"].says = lambda _job: OK
        await d.pass_time(301)
        assert deletions(d) == deletions(d, "file") == [""]
        assert (await d.b.store.use()).sessions == 0
        assert await d.b.store.samples(0, 10) == []

    at_desk(test, tmp_path, "xybrid", "file")


def test_what_was_sent_takes_nothing_with_it_that_still_waits(tmp_path: Path) -> None:
    """The row of an export that was delivered is free again, and the next export may be given its number."""

    async def test(d: Desk, forgetting: Forgetting) -> None:
        _, sent = await one(d)
        d.xybrid.says = lambda _job: DOWN
        _, waits = await one(d)
        await forgetting.session(d.b.link(ADA), sent)
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        assert waits in d.xybrid.sessions
        assert (await d.tally()).evicted == 0

    at_desk(test, tmp_path)


def test_nothing_of_it_is_left_in_the_files(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        await d.uploader.pause(paused=True)
        for _ in range(30):
            await one(d)
        assert holding(MARK, tmp_path) != []
        (tmp_path / f"{DATABASE_NAME}.damaged-1").write_text(MARK)
        await forgetting.everything()
        assert holding(MARK, tmp_path) == []

    at_desk(test, tmp_path)


def test_forgetting_waits_for_what_is_being_sent(tmp_path: Path) -> None:
    async def test(d: Desk, forgetting: Forgetting) -> None:
        _, session_id = await one(d)
        d.xybrid.gate.clear()
        link, in_flight = await d.b.bound()
        await d.b.batch(link, 1, RECORDS)
        await d.b.recorder.end(link, None)
        await d.b.settled()
        await until(lambda: len(d.xybrid.jobs) == 2)
        going = asyncio.create_task(forgetting.session(d.b.link(ADA), in_flight))
        for _ in range(20):
            await d.b.store.use()
        assert not going.done()
        d.xybrid.gate.set()
        assert (await going)["deletion_requests"] == 1
        await d.at_rest()
        assert deletions(d) == [in_flight]
        assert await d.b.calls(session_id) == 2

    at_desk(test, tmp_path)
