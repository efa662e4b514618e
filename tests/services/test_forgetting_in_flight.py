from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.services.far_end import OK, Desk, FarEnd, desk, settings
from tests.services.given import OWNER, run, until
from xybridd.core.delivery import Outcome
from xybridd.services.forgetting import Forgetting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

LOST = Outcome(failure="timeout", detail="no answer")


def forgetting(d: Desk) -> Forgetting:
    return Forgetting(d.b.store, d.b.recorder, d.uploader, d.b.clock)


def at_desk(test: Callable[[Desk], Coroutine[Any, Any, None]], folder: Path, **more: Any) -> None:
    async def whole() -> None:
        async with desk(folder, **more) as d:
            await test(d)
            await d.balances()

    run(whole())


def deletions(d: Desk) -> list[str]:
    return [session_id for kind, session_id, _ in d.xybrid.has if kind == "deletion"]


def test_what_was_sent_is_asked_back_and_what_was_not_does_not_leave(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        (sent,) = await d.ended(1)
        await d.at_rest()
        await d.uploader.pause(paused=True)
        (kept_back,) = await d.ended(1)
        for session_id, asked in ((sent, 1), (kept_back, 0)):
            told = await forgetting(d).session(d.b.link(OWNER), session_id)
            assert (told["records"], told["deletion_requests"]) == (1, asked)
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert d.xybrid.sessions == [sent]
        assert deletions(d) == [sent]
        tally = await d.tally()
        assert (tally.made, tally.delivered, tally.forgotten) == (3, 2, 1)

    at_desk(test, tmp_path)


def test_of_a_batch_that_may_have_arrived_the_rest_arrives_once(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        made = await d.ended(3)
        d.xybrid.says = lambda _job: LOST
        d.xybrid.takes = lambda _job, _outcome: True
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert (await forgetting(d).session(d.b.link(OWNER), made[1]))["deletion_requests"] == 1
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted(made)  # the second had arrived, and is asked back
        assert deletions(d) == [made[1]]
        assert all(len(job.items) == 2 for job in d.xybrid.jobs[1:2])

    at_desk(test, tmp_path)


def test_while_something_is_forgotten_nothing_is_sent(tmp_path: Path) -> None:
    """What is being sent is waited for; what waits behind it is not taken meanwhile."""

    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        first, second = await d.ended(2)
        d.xybrid.gate.clear()
        await d.uploader.pause(paused=False)
        await until(lambda: d.xybrid.jobs)
        going = asyncio.ensure_future(forgetting(d).session(d.b.link(OWNER), second))
        for _ in range(20):
            await d.b.store.use()
        assert not going.done()
        d.xybrid.gate.set()
        assert (await going)["deletion_requests"] == 0
        await d.at_rest()
        assert d.xybrid.has == [("session", first, 1)]

    at_desk(test, tmp_path, most_items=1)


def test_all_of_it_goes_and_the_device_is_asked_back(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        made = await d.ended(2)
        await d.at_rest()
        await d.uploader.pause(paused=True)
        await d.ended(2)
        told = await forgetting(d).everything()
        assert (told["sessions"], told["deletion_requests"]) == (4, 1)
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        assert deletions(d) == [""]
        assert (await d.tally()).forgotten == 2

    at_desk(test, tmp_path)


def test_a_sink_that_was_switched_off_in_the_middle_of_a_request_forgets_too(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.gate.clear()
        (session_id,) = await d.ended(1)
        await until(lambda: d.xybrid.jobs)
        await d.uploader.configure(settings())
        assert (await forgetting(d).session(d.b.link(OWNER), session_id))["deletion_requests"] == 1
        tally = await d.tally()
        assert (tally.forgotten, tally.queued) == (1, 1)
        d.far["xybrid"] = again = FarEnd()
        d.uploader._make_sender = lambda: again
        await d.uploader.configure(settings("xybrid"))
        await d.at_rest()
        assert deletions(d) == [session_id]
        assert d.xybrid.sessions == []

    at_desk(test, tmp_path)
