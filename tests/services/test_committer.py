from __future__ import annotations

import asyncio

import pytest

from tests.services.given import disk_full, run, until
from xybridd.errors import CorruptDatabase, Overloaded, StorageUnavailable
from xybridd.services import committer as module
from xybridd.services.committer import Committer

NEVER_S = 3600.0


class Work:
    """Numbers to be written to a list that stands for the disk; writing waits for `gate` and may fail."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.collected: list[int] = []
        self.disk: list[list[int]] = []
        self.settled: list[int] = []
        self.steps: list[str] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def add(self, number: int) -> None:
        self.waiting.append(number)

    def dirty(self) -> bool:
        return bool(self.waiting)

    async def _write(self) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.disk.append(self.collected)

    async def collect(self) -> None:
        self.steps.append("collect")
        self.collected, self.waiting = self.waiting, []
        await self._write()

    async def retry(self) -> None:
        self.steps.append("retry")
        await self._write()

    async def rescue(self, reason: str) -> None:
        self.steps.append(f"rescue: {reason}")
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.disk.append(list(self.collected))

    def settle(self) -> None:
        self.steps.append("settle")
        self.settled += self.collected


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(module, "_LONGEST_RETRY_S", 0.002)


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_nothing_to_write_needs_no_waiting() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        assert committer.barrier(soon=True) is None
        await committer.drain()
        assert work.steps == []

    run(test())


def test_who_asks_before_a_commit_starts_shares_it() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        barriers = []
        for number in range(5):
            work.add(number)
            barriers.append(committer.barrier(soon=True))
        assert len(set(barriers)) == 1
        assert barriers[0] is not None
        await barriers[0]
        assert work.disk == [[0, 1, 2, 3, 4]]

    run(test())


def test_what_comes_while_a_commit_is_written_goes_into_the_next() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.gate.clear()
        work.add(1)
        first = committer.barrier(soon=True)
        await turns()
        work.add(2)
        second = committer.barrier(soon=True)
        work.add(3)
        third = committer.barrier(soon=False)
        assert first is not None
        assert second is not None
        assert second is third
        assert not first.done()
        work.gate.set()
        await asyncio.gather(first, second)
        assert work.disk == [[1], [2, 3]]

    run(test())


def test_with_nothing_new_a_barrier_is_the_commit_under_way() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.gate.clear()
        work.add(1)
        first = committer.barrier(soon=True)
        await turns()
        assert committer.barrier(soon=True) is first
        work.gate.set()
        await committer.drain()
        assert work.disk == [[1]]
        assert committer.barrier(soon=True) is None

    run(test())


def test_a_background_batch_waits_for_company() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.add(1)
        lazy = committer.barrier(soon=False)
        await turns()
        assert lazy is not None
        assert (lazy.done(), work.disk) == (False, [])
        work.add(2)
        assert committer.barrier(soon=True) is lazy
        await lazy
        assert work.disk == [[1, 2]]

    run(test())


def test_a_background_batch_alone_is_written_after_the_interval() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, 0.001)
        work.add(1)
        lazy = committer.barrier(soon=False)
        assert lazy is not None
        await lazy
        assert work.disk == [[1]]

    run(test())


def test_a_background_batch_that_came_during_a_commit_is_written_too() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, 0.001)
        work.gate.clear()
        work.add(1)
        committer.barrier(soon=True)
        await turns()
        work.add(2)
        lazy = committer.barrier(soon=False)
        work.gate.set()
        assert lazy is not None
        await lazy
        assert work.disk == [[1], [2]]

    run(test())


def test_settling_comes_before_the_answer() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.add(1)
        barrier = committer.barrier(soon=True)
        assert barrier is not None
        seen: list[list[int]] = []
        barrier.add_done_callback(lambda _: seen.append(list(work.settled)))
        await barrier
        await turns()
        assert seen == [[1]]

    run(test())


def test_a_failed_commit_is_written_again_and_nobody_is_answered_meanwhile() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.failures = [disk_full(), disk_full()]
        work.add(1)
        first = committer.barrier(soon=True)
        await until(lambda: committer.failure)
        work.add(2)  # what was applied before the failure was known
        second = committer.barrier(soon=True)
        assert first is not None
        assert second is not None
        assert (first.done(), work.settled) == (False, [])
        await second
        assert work.disk == [[1], [2]]
        assert work.steps == ["collect", "retry", "retry", "settle", "collect", "settle"]
        assert committer.failure is None

    run(test())


def test_while_the_disk_refuses_so_does_the_check() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        committer.check()
        work.failures = [disk_full()]
        work.add(1)
        barrier = committer.barrier(soon=True)
        await until(lambda: committer.failure)
        with pytest.raises(StorageUnavailable, match="disk is full") as refused:
            committer.check()
        assert refused.value.data["retry_after_ms"] >= 1
        assert barrier is not None
        await barrier
        committer.check()

    run(test())


def test_of_the_answers_that_may_wait_one_user_has_a_share() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S, most_waiting=4, most_each=2)
        work.add(1)
        for _ in range(2):
            committer.check(1000)
            committer.barrier(soon=False, uid=1000)
        with pytest.raises(Overloaded, match="user_percent"):
            committer.check(1000)
        committer.check(1001)
        committer.check()
        for uid in (1001, None):
            committer.barrier(soon=False, uid=uid)
        with pytest.raises(Overloaded, match="4 answers"):
            committer.check()
        await committer.drain()
        for uid in (1000, 1001, None):
            committer.check(uid)

    run(test())


def test_retries_come_further_and_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.25)
    monkeypatch.setattr(module, "_LONGEST_RETRY_S", 5.0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(pause_s: float) -> None:
        pauses.append(pause_s)
        await sleep(0)

    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        for _ in range(2):
            work.failures = [disk_full() for _ in range(7)]
            work.add(1)
            barrier = committer.barrier(soon=True)
            assert barrier is not None
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "sleep", noted)
                await barrier

    run(test())
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0] * 2


def test_damage_is_rescued_and_then_written() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.failures = [CorruptDatabase("malformed")]
        work.add(1)
        await committer.drain()
        assert work.steps == ["collect", "rescue: malformed", "settle"]
        assert (work.disk, committer.failure) == ([[1]], None)

    run(test())


def test_a_rescue_that_fails_is_tried_again() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.failures = [CorruptDatabase("malformed"), disk_full()]
        work.add(1)
        await committer.drain()
        assert work.steps == ["collect", "rescue: malformed", "rescue: malformed", "settle"]

    run(test())


def test_an_error_that_nobody_foresaw_does_not_end_it() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.failures = [RuntimeError("odd")]
        work.add(1)
        await committer.drain()
        assert work.disk == [[1]]

    run(test())


def test_draining_takes_all_that_waits() -> None:
    async def test() -> None:
        work = Work()
        committer = Committer(work, NEVER_S)
        work.gate.clear()
        work.add(1)
        committer.barrier(soon=True)
        await turns()
        work.add(2)
        committer.barrier(soon=False)
        draining = asyncio.ensure_future(committer.drain())
        await turns()
        work.gate.set()
        await draining
        assert work.disk == [[1], [2]]

    run(test())
