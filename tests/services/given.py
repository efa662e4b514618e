"""A recorder over a real store in a folder, with a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.core.given import call
from xybridd.core.capabilities import DeviceState, HardwareCapabilities
from xybridd.core.registry import Identity, Lifetimes
from xybridd.core.session import SessionLimits
from xybridd.errors import StorageError
from xybridd.services.recorder import Recorder
from xybridd.services.sampler import Sampler
from xybridd.services.sessions import Installation, Link
from xybridd.storage import rows
from xybridd.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from pathlib import Path

    from xybridd.core.changes import Changes
    from xybridd.core.delivery import SinkName
    from xybridd.protocol.records import Record

OWNER, ADA, BOB = 500, 1000, 1001
DAY_S = 86_400.0

_link_ids = itertools.count(1)


class ManualClock:
    def __init__(self, now_s: float = 5000.0) -> None:
        self.now_s = now_s

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    def move(self, by_s: float) -> None:
        self.now_s += by_s


class StillSampler(Sampler):
    """A device that is always the same."""

    async def state(self, fresh_s: float = 0.0) -> DeviceState:
        await asyncio.sleep(0 * fresh_s)  # as probes do, it lets others run
        return DeviceState(HardwareCapabilities(cpu_cores=4), {})


class FailingStore(Store):
    """A real store whose next writes fail as `failures` says, and all of them while it `refuses`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, asyncio.get_running_loop())
        self.failures: list[Exception] = []
        self.refuses: Exception | None = None
        self.writes = 0

    async def write(self, changes: Changes) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.failures:
            raise self.failures.pop(0)
        await super().write(changes)
        self.writes += 1


class Bench:
    """A recorder, its store and its clock, and how a producer speaks to it."""

    def __init__(self, store: FailingStore, recorder: Recorder, clock: ManualClock) -> None:
        self.store = store
        self.recorder = recorder
        self.clock = clock
        self._seqs: dict[str, int] = {}

    def link(self, uid: int = ADA, process: str = "shell") -> Link:
        return Link(next(_link_ids), uid, lambda: process)

    async def producer(self, uid: int = ADA, client_id: str | None = None, app: str = "app", **more: Any) -> Link:
        """A connection that has said hello."""
        link = self.link(uid)
        await self.recorder.hello(link, Identity(uid, app, client_id or str(uuid4())), **{"session_id": None, **more})
        return link

    async def bound(self, link: Link | None = None) -> tuple[Link, str]:
        """A producer in a session of its own."""
        link = link or await self.producer()
        session_id, _ = await self.recorder.start(link, None, None, {})
        return link, session_id

    async def batch(
        self, link: Link, seq: int, records: Sequence[Record] | None = None, **more: Any
    ) -> tuple[int, str | None]:
        """A batch, until its answer."""
        options = {"session_id": None, "flush": True, "dropped": 0, **more}
        last_seq, session_id, ticket = await self.recorder.batch(link, seq, records or [call()], **options)
        if ticket is not None:
            await ticket
        return last_seq, session_id

    async def calls(self, session_id: str) -> int:
        return (await self.recorder.metrics(self.link(OWNER), session_id)).total_inferences

    async def ended(self, session_id: str) -> str | None:
        tracked = await self.recorder._sessions.load(session_id)
        assert tracked is not None
        return tracked.session.head.end_reason

    async def settled(self) -> None:
        await self.recorder.committer.drain()

    async def balances(self) -> None:
        """All equations, in memory and on disk."""
        await self.settled()
        ledger = self.recorder.ledger
        shown = ledger.shown()
        assert shown["received"] == shown["counted"] + shown["duplicates"] + sum(shown["rejected"].values())
        listed = await self.store.list_sessions(rows.SessionFilter(limit=100_000))
        there = sum(summary.total_inferences + summary.error_count for summary in listed)
        assert shown["counted"] == there + ledger.removed()
        stored = {name: amount for name, amount in (await self.store.ledger()).items() if amount}
        assert stored == {name: ledger[name] for name in stored}
        assert shown["counted"] == stored.get("counted", 0)


@asynccontextmanager
async def bench(
    folder: Path,
    clock: ManualClock | None = None,
    *,
    boot_id: str = "boot",
    commit_interval_s: float = 0.0,
    max_sessions: int = 1000,
    sinks: tuple[SinkName, ...] = (),
) -> AsyncIterator[Bench]:
    clock = clock or ManualClock()
    store = FailingStore(folder)
    store.lock()
    try:
        await store.open(clock.wall_ms())
        recorder = Recorder(
            store=store,
            sampler=StillSampler(clock),
            clock=clock,
            installation=Installation(
                device_id="device",
                boot_id=boot_id,
                owner_uid=OWNER,
                sdk_version="0",
                limits=SessionLimits(),
                max_sessions=max_sessions,
            ),
            lifetimes=Lifetimes(),
            commit_interval_s=commit_interval_s,
        )
        recorder.pending.sinks = sinks
        await recorder.resume()
        yield Bench(store, recorder, clock)
        await recorder.committer.drain()
    finally:
        await store.close()


def disk_full() -> StorageError:
    return StorageError("database or disk is full")


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run it; a wait that never ends fails instead of hanging."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until it holds."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0)
