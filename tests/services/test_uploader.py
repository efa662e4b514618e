from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.core.given import call
from tests.services.far_end import DOWN, OK, Desk, FarEnd, desk, settings, status
from tests.services.given import DAY_S, ManualClock, disk_full, run, until
from xybridd.core.delivery import Job, Outcome, Target
from xybridd.core.outbox import Tally
from xybridd.storage import outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

LOST = Outcome(failure="timeout", detail="no answer")


def at_desk(test: Callable[[Desk], Coroutine[Any, Any, None]], folder: Path, *sinks: Any, **more: Any) -> None:
    """Run it at a desk; at its end both sides of the ledger balance."""

    async def whole() -> None:
        async with desk(folder, *sinks, **more) as d:
            await test(d)
            await d.balances()

    run(whole())


def test_what_ended_is_sent_once_and_stands_in_the_ledger(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        made = await d.ended(3)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        tally = await d.tally()
        assert (tally.made, tally.delivered, tally.queued) == (3, 3, 0)
        payload = msgspec.json.decode(d.xybrid.jobs[0].items[0].body)
        assert payload["version"] == "2.0"
        assert payload["extensions"]["revision"] == 1
        assert payload["extensions"]["ledger"]["received"] >= 1
        assert "exports" in payload["extensions"]["ledger"]

    at_desk(test, tmp_path)


def test_a_batch_holds_so_many_exports_and_so_many_bytes(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.uploader.send_now()
        await d.ended(25)
        await d.at_rest()
        sizes = [len(job.items) for job in d.xybrid.jobs]
        assert sum(sizes) == 25
        assert max(sizes) <= 10
        for job in d.xybrid.jobs:
            assert len(job.items) == 1 or sum(len(item.body) for item in job.items) <= 6000

    at_desk(test, tmp_path, most_items=10, most_bytes=6000)


def test_what_failed_goes_again_as_the_same_batch_after_its_wait(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: DOWN
        await d.ended(2)
        await d.at_rest()
        await d.ended(3)  # do not join it
        for _ in range(4):
            await d.pass_time(301)
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        first = d.xybrid.jobs[0]
        same = [job for job in d.xybrid.jobs if job.key == first.key]
        assert len(same) == 6
        assert all(job.items == first.items for job in same)
        assert [job.again for job in same] == [False, True, True, True, True, True]
        assert len(d.xybrid.sessions) == len(set(d.xybrid.sessions)) == 5

    at_desk(test, tmp_path)


def test_an_answer_that_was_lost_makes_no_second_delivery(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        answers = iter([LOST, LOST, status(503)])
        d.xybrid.says = lambda _job: next(answers, OK)
        d.xybrid.takes = lambda _job, outcome: outcome.status != 503
        made = await d.ended(5)
        for _ in range(6):
            await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted(made)
        assert (await d.tally()).delivered == 5

    at_desk(test, tmp_path)


def test_a_killed_daemon_sends_the_same_batch_again(tmp_path: Path) -> None:
    """Killed between send and settle: the receiver has it, the outbox does not know."""

    async def test() -> None:
        clock, far = ManualClock(), FarEnd()
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            await d.uploader.pause(paused=True)
            made = await d.ended(3)
            far.gate.clear()
            await d.uploader.pause(paused=False)
            await until(lambda: far.jobs)
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            await d.at_rest()
            assert [job.again for job in far.jobs] == [False, True]
            assert len({job.key for job in far.jobs}) == 1
            assert sorted(far.sessions) == sorted(made)
            await d.balances()

    run(test())


def test_a_newer_revision_takes_the_place_of_one_that_still_waits(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        link, session_id = await d.b.bound()
        for seq in range(1, 6):
            await d.b.batch(link, seq)
            d.b.clock.move(901)
            d.b.recorder.snapshot(900)
            await d.b.settled()
        d.b.recorder.snapshot(900)  # nothing was recorded since
        await d.b.settled()
        tally = await d.tally()
        assert (tally.made, tally.superseded, tally.queued) == (5, 4, 1)
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert d.xybrid.has == [("session", session_id, 5)]
        await d.b.recorder.end(link, None)
        await d.b.settled()
        await d.at_rest()
        assert d.xybrid.has == [("session", session_id, 5), ("session", session_id, 6)]

    at_desk(test, tmp_path)


def test_a_snapshot_is_due_when_its_time_is_up_and_not_before(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        link, _ = await d.b.bound()
        await d.b.batch(link, 1)
        for by_s, expected in ((800, 0), (150, 1), (800, 1)):
            d.b.clock.move(by_s)
            await d.b.batch(link, int(d.b.clock.now_s))
            d.b.recorder.snapshot(900)
            await d.b.settled()
            await d.at_rest()
            assert len(d.xybrid.has) == expected

    at_desk(test, tmp_path)


def test_a_revision_in_a_batch_that_may_have_arrived_is_not_superseded(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: LOST
        d.xybrid.takes = lambda _job, _outcome: True
        link, session_id = await d.b.bound()
        await d.b.batch(link, 1)
        d.b.clock.move(901)
        d.b.recorder.snapshot(900)
        await d.b.settled()
        await d.at_rest()
        await d.b.recorder.end(link, None)
        await d.b.settled()
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        assert d.xybrid.has == [("session", session_id, 1), ("session", session_id, 2)]
        assert (await d.tally()).superseded == 0

    at_desk(test, tmp_path)


def test_a_late_batch_is_sent_as_a_new_revision(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        link, session_id = await d.b.bound()
        await d.b.batch(link, 1)
        d.b.recorder.disconnected(link)
        d.b.clock.move(31)
        d.b.recorder.sweep()
        await d.b.settled()
        await d.at_rest()
        late = await d.b.producer(client_id=link.producer.client_id if link.producer else None)
        await d.b.batch(late, 2, [call(), call()], session_id=session_id)
        await d.at_rest()
        assert d.xybrid.has == [("session", session_id, 1), ("session", session_id, 2)]
        newest = msgspec.json.decode(d.xybrid.jobs[-1].items[0].body)
        assert newest["metrics"]["total_inferences"] == 3

    at_desk(test, tmp_path)


@pytest.mark.parametrize("number", [400, 413, 422])
def test_a_bad_one_is_found_and_the_rest_arrives(tmp_path: Path, number: int) -> None:
    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        made = await d.ended(20)
        bad = {made[3], made[17]}

        def judge(job: Job) -> Outcome:
            return status(number) if bad & {item.session_id for item in job.items} else OK

        d.xybrid.says = judge
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(set(made) - bad)
        dead = await d.b.store.query(outbox.dead)
        assert {letter.session_id for letter in dead} == bad
        assert all(letter.reason == f"status {number}" for letter in dead)
        tally = await d.tally()
        assert (tally.delivered, tally.dead, tally.queued) == (18, 2, 0)

    at_desk(test, tmp_path)


def test_dead_letters_are_replayed_under_a_new_key_and_dropped(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: status(422)
        await d.ended(2)
        await d.at_rest()
        first, second = await d.b.store.query(outbox.dead)
        d.xybrid.says = lambda _job: OK
        await d.b.store.transact(lambda connection: outbox.replay(connection, [first.export_id]))
        d.uploader.wake()
        await d.at_rest()
        assert d.xybrid.sessions == [first.session_id]
        keys = [job.key for job in d.xybrid.jobs]
        assert len(keys) == len(set(keys))
        await d.b.store.transact(lambda connection: outbox.remove(connection, [second.export_id], "forget"))
        tally = await d.tally()
        assert (tally.delivered, tally.dead, tally.forgotten) == (1, 0, 1)

    at_desk(test, tmp_path)


@pytest.mark.parametrize("number", [401, 403, 404, 405, 501])
def test_what_only_the_owner_can_mend_is_tried_every_quarter_of_an_hour(tmp_path: Path, number: int) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: status(number)
        await d.ended(2)
        for _ in range(60):
            await d.pass_time(60)
        assert len(d.xybrid.jobs) == 5
        (shown,) = (await d.uploader.status())["sinks"]
        assert (shown["state"], shown["last_error"], shown["queued"]) == ("blocked", f"status {number}", 2)
        d.xybrid.says = lambda _job: OK
        replaced = FarEnd()
        d.uploader._make_sender = lambda: replaced
        d.far["xybrid"] = replaced
        await d.uploader.configure(settings("xybrid"))
        await d.at_rest()
        assert len(replaced.sessions) == 2

    at_desk(test, tmp_path)


def test_a_sink_that_made_its_requests_says_when_its_turn_comes(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.ended(2)
        await d.at_rest()
        (shown,) = (await d.uploader.status())["sinks"]
        assert (shown["state"], shown["queued"]) == ("waiting", 1)
        assert shown["next_attempt_in_s"] == pytest.approx(60)
        assert "1 requests in the last minute" in shown["reason"]
        await d.pass_time(60)
        (shown,) = (await d.uploader.status())["sinks"]
        assert (shown["state"], shown["next_attempt_in_s"]) == ("idle", None)

    at_desk(test, tmp_path, per_minute=1, most_items=1)


@pytest.mark.parametrize(
    ("came", "shown"), [(status(503), (503, None)), (DOWN, (None, "connect")), (status(401), (401, None))]
)
def test_how_the_last_attempt_failed_is_told(
    tmp_path: Path, came: Outcome, shown: tuple[int | None, str | None]
) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: came
        await d.ended(1)
        await d.at_rest()
        (found,) = (await d.uploader.status())["sinks"]
        assert (found["last_status"], found["last_failure"]) == shown
        d.xybrid.says = lambda _job: OK
        d.uploader.send_now()
        await d.at_rest()
        (found,) = (await d.uploader.status())["sinks"]
        assert (found["last_status"], found["last_failure"], found["last_error"]) == (None, None, None)

    at_desk(test, tmp_path)


def test_hours_at_a_dead_server_are_few_requests(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: DOWN
        made = await d.ended(3)
        for _ in range(6 * 60 * 6):
            d.b.clock.move(10)
            lane = d.uploader.lanes["xybrid"]
            if lane.next_in_s() is None:
                lane.wake()
                await d.at_rest()
        hour = len(d.xybrid.jobs) / 6
        assert hour <= 3600 / 30 + 1
        d.xybrid.says = lambda _job: OK
        await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted(made)

    at_desk(test, tmp_path, jitter=0.0)


@pytest.mark.parametrize("step_s", [365 * DAY_S, -365 * DAY_S])
def test_a_wall_clock_that_steps_moves_no_wait(tmp_path: Path, step_s: float) -> None:
    class Stepping(ManualClock):
        step_s = 0.0

        def wall_ms(self) -> int:
            return super().wall_ms() + int(self.step_s * 1000)

    clock = Stepping(now_s=2 * 366 * DAY_S)

    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: status(503, retry_after="200")
        made = await d.ended(1)
        await d.at_rest()
        clock.step_s = step_s
        await d.pass_time(150)
        assert len(d.xybrid.jobs) == 1
        d.xybrid.says = lambda _job: OK
        await d.pass_time(51)
        assert d.xybrid.sessions == made

    at_desk(test, tmp_path, clock=clock)


def test_a_wait_outlives_a_restart_and_a_reboot_cannot_lengthen_it(tmp_path: Path) -> None:
    async def test() -> None:
        clock, far = ManualClock(), FarEnd()
        far.says = lambda _job: status(503, retry_after="600")
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            await d.ended(1)
            await d.at_rest()
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            await d.pass_time(500)
            assert len(far.jobs) == 1
        far.says = lambda _job: OK
        rebooted = ManualClock(now_s=3)  # its clock is at the beginning of time again
        async with desk(tmp_path, clock=rebooted, far={"xybrid": far}, boot_id="next") as d:
            await d.pass_time(590)
            assert len(far.jobs) == 1
            await d.pass_time(11)
            assert len(far.sessions) == 1
            await d.balances()

    run(test())


def test_one_dead_sink_holds_up_no_other(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: DOWN
        made = await d.ended(4)
        await d.at_rest()
        assert sorted(d.far["file"].sessions) == sorted(made)
        assert d.xybrid.sessions == []
        assert ((await d.tally("file")).delivered, (await d.tally("xybrid")).queued) == (4, 4)

    at_desk(test, tmp_path, "xybrid", "file")


def test_a_sink_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with desk(tmp_path, "xybrid", "file") as d:
            d.xybrid.gate.clear()
            made = await d.ended(4)
            await until(lambda: sorted(d.far["file"].sessions) == sorted(made))
            assert d.uploader.lanes["xybrid"].in_flight is not None

    run(test())


def test_minutes_go_to_the_collector_in_their_order_and_sessions_do_not(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        far = d.far["otlp"]
        link, session_id = await d.b.bound()
        for seq in range(1, 4):
            await d.b.batch(link, seq, [call()] * seq)
            d.b.clock.move(60)
            d.b.recorder.close_minute(d._state[0])
            await d.b.settled()
        await d.b.recorder.end(link, None)
        await d.b.settled()
        await d.at_rest()
        minutes = [item for job in far.jobs for item in job.items if item.kind == "minute"]
        samples = [item for job in far.jobs for item in job.items if item.kind == "sample"]
        assert [item.session_id for item in minutes] == [session_id] * 3
        assert len(samples) == 3
        assert (await d.tally("otlp")).delivered == 6
        assert [item.app for item in minutes] == ["app"] * 3

    at_desk(test, tmp_path, "otlp")


def test_what_a_collector_refuses_in_part_is_not_sent_again(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        far = d.far["otlp"]
        far.says = lambda _job: Outcome(status=200, failure="partial", detail="3 points were rejected")
        link, _ = await d.b.bound()
        await d.b.batch(link, 1)
        await d.b.recorder.end(link, None)
        await d.b.settled()
        await d.pass_time(3600)
        assert len(far.jobs) == 1
        assert (await d.tally("otlp")).dead == 1

    at_desk(test, tmp_path, "otlp")


def test_it_waits_while_there_is_no_route_and_goes_when_there_is_one(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.becomes(default_route="")
        made = await d.ended(2)
        await d.at_rest()
        assert d.xybrid.jobs == []
        (shown,) = (await d.uploader.status())["sinks"]
        assert (shown["state"], shown["reason"]) == ("holding", "there is no route to anywhere")
        d.becomes(default_route="wlan0")
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)

    at_desk(test, tmp_path)


def test_a_new_route_ends_the_wait_of_what_failed_for_want_of_one(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.becomes(default_route="eth0")
        answers = iter([DOWN, DOWN, DOWN, DOWN])
        d.xybrid.says = lambda _job: next(answers, OK)
        made = await d.ended(1)
        for _ in range(4):
            await d.pass_time(301)
        assert d.xybrid.sessions == []
        d.becomes(default_route="wlan0")
        await d.at_rest()
        assert d.xybrid.sessions == made

    at_desk(test, tmp_path)


def test_a_new_route_does_not_end_a_wait_that_the_server_asked_for(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.becomes(default_route="eth0")
        d.xybrid.says = lambda _job: status(429, retry_after="3000")
        await d.ended(1)
        await d.at_rest()
        d.becomes(default_route="wlan0")
        await d.at_rest()
        assert len(d.xybrid.jobs) == 1

    at_desk(test, tmp_path)


def test_now_means_now_whatever_it_waits_for(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.becomes(default_route="", thermal_state="Hot", battery={"level_percent": 3, "charging": False})
        made = await d.ended(3)
        await d.at_rest()
        assert d.xybrid.jobs == []
        d.uploader.send_now()
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        await d.ended(1)
        await d.at_rest()
        assert len(d.xybrid.sessions) == 3  # it was for what was there, not for ever

    at_desk(test, tmp_path)


def test_a_pause_outlives_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        clock, far = ManualClock(), FarEnd()
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            await d.uploader.pause(paused=True)
            await d.ended(1)
        async with desk(tmp_path, clock=clock, far={"xybrid": far}) as d:
            d.uploader.send_now()
            await d.at_rest()
            assert far.jobs == []
            assert (await d.uploader.status())["state"] == "paused"
            await d.uploader.pause(paused=False)
            await d.at_rest()
            assert len(far.sessions) == 1

    run(test())


def test_nothing_is_made_for_sinks_that_are_off(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.b.recorder.pending.sinks = ()
        await d.ended(2)
        await d.at_rest()
        assert await d.tally() == Tally()

    at_desk(test, tmp_path)


def test_what_came_of_a_request_is_kept_though_the_disk_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(d: Desk) -> None:
        monkeypatch.setattr("xybridd.services.lane._DISK_RETRY_S", 0)
        transact = d.b.store.transact
        refusals = iter(range(3))

        async def refusing(job: Any) -> Any:
            if d.xybrid.batches and next(refusals, None) is not None:
                raise disk_full()
            return await transact(job)

        monkeypatch.setattr(d.b.store, "transact", refusing)
        made = await d.ended(2)
        await until(lambda: d.xybrid.batches)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        assert len(d.xybrid.jobs) <= 2
        assert (await d.tally()).delivered == 2

    at_desk(test, tmp_path)


def test_an_export_that_cannot_be_made_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(d: Desk) -> None:
        def broken(*_: Any) -> None:
            raise ValueError("boom")

        with monkeypatch.context() as patch:
            patch.setattr("xybridd.services.pending.export_item", broken)
            (session_id,) = await d.ended(1)
        assert await d.b.calls(session_id) == 1
        await d.ended(1)
        await d.at_rest()
        assert len(d.xybrid.sessions) == 1

    at_desk(test, tmp_path)


def test_with_nothing_to_send_nothing_wakes(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.at_rest()
        turns = 0
        lane = d.uploader.lanes["xybrid"]
        turn = lane._turn

        async def counted() -> float | None:
            nonlocal turns
            turns += 1
            return await turn()

        lane._turn = counted  # type: ignore[method-assign]
        for _ in range(50):
            d.b.clock.move(60)
            await d.b.store.use()
            await asyncio.sleep(0)
        assert turns == 0

    at_desk(test, tmp_path)


def test_another_endpoint_is_tried_at_once_whatever_the_old_one_asked_for(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.xybrid.says = lambda _job: status(503, retry_after="80000")
        made = await d.ended(1)
        await d.at_rest()
        again = FarEnd()
        d.uploader._make_sender = lambda: again
        await d.uploader.configure(settings("xybrid"))
        await d.at_rest()
        assert again.jobs == []  # the same one still means what it said
        target = Target("xybrid", "https://elsewhere.example", key="k")
        await d.uploader.configure(settings("xybrid", targets=(target,)))
        await d.at_rest()
        assert again.sessions == made

    at_desk(test, tmp_path)


@pytest.mark.parametrize("poisoned", [status(500), Outcome(failure="sender", detail="it died")])
def test_a_batch_that_never_gets_through_holds_up_no_other(tmp_path: Path, poisoned: Outcome) -> None:
    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        (bad,) = await d.ended(1)

        def says(job: Job) -> Outcome:
            return poisoned if any(item.session_id == bad for item in job.items) else OK

        d.xybrid.says = says
        await d.uploader.pause(paused=False)
        await d.at_rest()
        made = await d.ended(30)
        for _ in range(5):
            await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted(made)
        made += await d.ended(5)
        for _ in range(5):
            await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted(made)
        assert (await d.tally()).queued == 1
        assert len({job.key for job in d.xybrid.jobs if job.items[0].session_id == bad}) == 1
        d.xybrid.says = lambda _job: OK
        for _ in range(2):
            await d.pass_time(301)
        assert sorted(d.xybrid.sessions) == sorted([bad, *made])

    at_desk(test, tmp_path, most_items=10)


def test_what_no_request_can_be_made_of_is_a_dead_letter_and_the_rest_arrives(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.uploader.pause(paused=True)
        bad, *made = await d.ended(9)

        def says(job: Job) -> Outcome:
            broken = any(item.session_id == bad for item in job.items)
            return Outcome(failure="unsendable", detail="ValueError") if broken else OK

        d.xybrid.says = says
        await d.uploader.pause(paused=False)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        assert (await d.tally()).dead == 1

    at_desk(test, tmp_path)


def lanes_that_run() -> int:
    return sum(task.get_name().startswith("upload to") for task in asyncio.all_tasks())


def test_configurations_that_come_in_a_storm_leave_one_lane_a_sink(tmp_path: Path) -> None:
    """A second lane would send what the first is sending, and go on with it after its sink was taken away."""

    async def test(d: Desk) -> None:
        d.uploader._make_sender = lambda: d.xybrid
        await asyncio.gather(*(d.uploader.configure(settings("xybrid")) for _ in range(5)))
        assert lanes_that_run() == 1
        made = await d.ended(2)
        await d.at_rest()
        assert sorted(d.xybrid.sessions) == sorted(made)
        await asyncio.gather(d.uploader.configure(settings("xybrid")), d.uploader.configure(settings(targets=())))
        assert lanes_that_run() == 0

    at_desk(test, tmp_path)


def test_a_configuration_under_way_starts_nothing_after_the_end(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        d.uploader._make_sender = lambda: d.xybrid
        await asyncio.gather(d.uploader.configure(settings("xybrid")), d.uploader.stop())
        assert lanes_that_run() == 0
        await d.uploader.configure(settings("xybrid"))
        assert lanes_that_run() == 0

    at_desk(test, tmp_path)


def test_a_mistake_of_ours_does_not_end_a_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(d: Desk) -> None:
        monkeypatch.setattr("xybridd.services.lane._MISTAKE_RETRY_S", 0)
        mistakes = iter(range(3))

        def says(_job: Job) -> Outcome:
            if next(mistakes, None) is not None:
                raise ZeroDivisionError
            return OK

        d.xybrid.says = says
        made = await d.ended(1)
        await until(lambda: d.xybrid.batches)
        await d.at_rest()
        assert d.xybrid.sessions == made
        assert len({job.key for job in d.xybrid.jobs}) == 1
        assert "ZeroDivisionError" in caplog.text

    at_desk(test, tmp_path)


def test_an_export_carries_what_became_of_those_before(tmp_path: Path) -> None:
    async def test(d: Desk) -> None:
        await d.ended(2)
        await d.at_rest()
        d.xybrid.says = lambda _job: DOWN
        await d.ended(1)
        await d.at_rest()
        d.xybrid.says = lambda _job: OK
        await d.ended(1)
        await d.pass_time(301)
        shown = msgspec.json.decode(d.xybrid.jobs[-1].items[0].body)["extensions"]["ledger"]["exports"]["xybrid"]
        assert (shown["made"], shown["delivered"], shown["queued"]) == (3, 2, 1)

    at_desk(test, tmp_path)
