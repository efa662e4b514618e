"""The far end of the network, stood in for: a sender that says what it is told to say, and remembers like a receiver."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from tests.services.given import Bench, ManualClock, bench
from xybridd.core.capabilities import Confidence, DeviceState, HardwareCapabilities, Reading
from xybridd.core.delivery import Job, Outcome, SinkName, Target
from xybridd.core.outbox import Tally
from xybridd.services.lane import Settings, UploadContext
from xybridd.services.uploader import Uploader
from xybridd.storage import outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

OK = Outcome(status=200)
DOWN = Outcome(failure="connect", detail="refused")


def status(number: int, **more: Any) -> Outcome:
    return Outcome(status=number, detail=f"status {number}", **more)


class FarEnd:
    """One sink's receiver: takes a batch once for each key, whatever it then answers.

    ``says`` is asked for each job: what the sender reports. ``takes`` says whether the receiver got it at all.
    """

    def __init__(self) -> None:
        self.says: Callable[[Job], Outcome] = lambda _job: OK
        self.takes: Callable[[Job, Outcome], bool] = lambda _job, outcome: outcome == OK
        self.jobs: list[Job] = []
        self.batches: dict[str, list[tuple[str, str, int]]] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, job: Job) -> Outcome:
        self.jobs.append(job)
        outcome = self.says(job)
        if self.takes(job, outcome):
            content: list[tuple[str, str, int]] = [(item.kind, item.session_id, item.revision) for item in job.items]
            # A repeat may lack what was forgotten since, and has nothing new.
            assert set(content) <= set(self.batches.setdefault(job.key, content)), "the same key with another content"
        await self.gate.wait()
        return outcome

    async def close(self) -> None:
        self.gate.set()

    @property
    def has(self) -> list[tuple[str, str, int]]:
        """Every export that it has, as often as it has it."""
        return [each for content in self.batches.values() for each in content]

    @property
    def sessions(self) -> list[str]:
        return [session_id for kind, session_id, _ in self.has if kind == "session"]


class Desk:
    """A recorder with an uploader, and a far end for each sink."""

    def __init__(self, b: Bench, uploader: Uploader, far: dict[str, FarEnd], state: list[DeviceState]) -> None:
        self.b = b
        self.uploader = uploader
        self.far = far
        self._state = state

    @property
    def xybrid(self) -> FarEnd:
        return self.far["xybrid"]

    async def ended(self, number: int, *, first: int = 0) -> list[str]:
        """So many sessions that ended, each with an inference in it; all on disk."""
        made = []
        for _ in range(first, first + number):
            link, session_id = await self.b.bound()
            await self.b.batch(link, 1)
            await self.b.recorder.end(link, None)
            self.b.recorder.disconnected(link)
            made.append(session_id)
        await self.b.settled()
        return made

    async def at_rest(self) -> None:
        """Until every lane sleeps: has sent what it may, and waits for a time, or for word."""
        while True:
            before = self._moved()
            for _ in range(5):
                await self.b.store.use()  # a whole round through the database thread
                await asyncio.sleep(0)
            if before == self._moved() and all(lane.in_flight is None for lane in self.uploader.lanes.values()):
                return

    def _moved(self) -> tuple[int, ...]:
        return tuple(len(end.jobs) for end in self.far.values())

    async def pass_time(self, by_s: float) -> None:
        self.b.clock.move(by_s)
        self.uploader.wake()
        await self.at_rest()

    def becomes(self, **values: Any) -> None:
        """The device is so now; those who act by it are told."""
        readings = {name: Reading(value, Confidence.HIGH, "test", 0.0) for name, value in values.items()}
        self._state[0] = DeviceState(HardwareCapabilities(), readings)
        self.uploader.look(self._state[0])

    async def tally(self, sink: str = "xybrid") -> Tally:
        return (await self.b.store.query(outbox.tallies)).get(sink, Tally())

    async def balances(self) -> None:
        await self.b.balances()
        for sink, tally in (await self.b.store.query(outbox.tallies)).items():
            assert tally.balances(), (sink, msgspec.to_builtins(tally))


def settings(*sinks: SinkName, **more: Any) -> Settings:
    targets = tuple(Target(sink, "/tmp/x" if sink == "file" else f"https://{sink}.example", key="k") for sink in sinks)
    # As fast as it goes, unless a test is about that.
    return Settings(**{"targets": targets, "off_reason": None, "per_minute": 100_000, **more})


@asynccontextmanager
async def desk(
    folder: Path,
    *sinks: SinkName,
    clock: ManualClock | None = None,
    far: dict[str, FarEnd] | None = None,
    boot_id: str = "boot",
    jitter: float = 1.0,
    **more: Any,
) -> AsyncIterator[Desk]:
    early = () if "off_reason" in more else sinks or ("xybrid",)
    async with bench(folder, clock, boot_id=boot_id, sinks=early) as b:
        far = far or {sink: FarEnd() for sink in sinks or ("xybrid",)}
        ends = iter(far.values())
        state = [DeviceState(HardwareCapabilities(), {})]

        class Still:
            async def state(self, _fresh_s: float) -> DeviceState:
                return state[0]

        around = UploadContext(
            store=b.store,
            sampler=Still(),  # type: ignore[arg-type] # all that a lane asks of it
            clock=b.clock,
            device_id="device",
            boot_id=boot_id,
            quiet_for_s=lambda: b.recorder.quiet_for_s() + 10.0,
            mend=b.recorder.committer.later,
            jitter=lambda: jitter,
        )
        uploader = Uploader(around, lambda: next(ends))
        b.recorder.pending.on_queued = uploader.wake
        b.recorder.pending.exports_ledger = uploader.ledger
        await uploader.configure(settings(*(sinks or ("xybrid",)), **more))
        b.recorder.pending.sinks = uploader.on
        try:
            yield Desk(b, uploader, far, state)
        finally:
            await uploader.stop()
