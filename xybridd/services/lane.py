"""One sink's way out: a lane sends one batch at a time, when it is due and the device can spare it.

A lane sleeps until something is queued, its wait is over, or somebody says that the device has changed; with nothing to
send it does not wake at all. What to do after an attempt is decided in `xybridd.core.retry`, when to wait in
`xybridd.core.holding`; what came of it is on disk before the next batch is taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from xybridd.core.address import leads_here, shown_url
from xybridd.core.delivery import Failure, Job, Outcome, SinkName, Target
from xybridd.core.holding import Facts, Holding, facts_of
from xybridd.core.retry import BREAKER_FAILURES, RateLimit, Verdict, Wait, decide, wait_of
from xybridd.core.stuck import Stuck
from xybridd.errors import StorageError
from xybridd.storage import outbox

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from xybridd.services.clock import Clock
    from xybridd.services.sampler import Sampler
    from xybridd.storage.outbox import Batch
    from xybridd.storage.store import Store

log = logging.getLogger(__name__)

#: What is known of the device may be this old when it is asked whether to send now.
_FRESH_S = 60.0

#: After the disk refused, and after a mistake of ours.
_DISK_RETRY_S = 2.0
_MISTAKE_RETRY_S = 60.0


class Sender(Protocol):
    """One request in, one outcome out; see `xybridd.upload.process`."""

    async def send(self, job: Job) -> Outcome: ...

    async def close(self) -> None: ...


class Settings(msgspec.Struct, frozen=True):
    """``off_reason`` says why there are no targets, when there are none; ``holds_off`` names rules that do not hold."""

    targets: tuple[Target, ...] = ()
    off_reason: str | None = "nothing is configured: set a key or an endpoint"
    problems: tuple[str, ...] = ()
    most_items: int = 50
    most_bytes: int = 475_000
    per_minute: int = 15
    holds_off: frozenset[str] = frozenset()
    snapshot_s: float = 900.0


class SinkState(msgspec.Struct):
    """How a sink did last; kept in the database. ``blocked``: only another configuration will help.

    ``endpoint`` is the one that all of it is about, as it may be shown.
    """

    endpoint: str = ""
    failures: int = 0
    wait: Wait | None = None
    blocked: bool = False
    by_network: bool = False
    last_error: str | None = None
    last_error_at_ms: int | None = None
    last_status: int | None = None
    last_failure: Failure | None = None
    last_success_at_ms: int | None = None


class UploadContext(NamedTuple):
    """What the lanes need of the rest of the daemon."""

    store: Store
    sampler: Sampler
    clock: Clock
    device_id: str
    boot_id: str
    quiet_for_s: Callable[[], float]
    #: Has a damaged database mended.
    mend: Callable[[], None]
    jitter: Callable[[], float] = random.random


class Lane:
    """One sink: sends until told to stop."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        around: UploadContext,
        sender: Sender,
        may_send: Callable[[], bool],
        count: Callable[[], Awaitable[None]],
    ) -> None:
        self.target = target
        self.state = SinkState()
        self.held: str | None = None
        self.in_flight: Batch | None = None
        self.hurry = False
        self._settings = settings
        self._around = around
        self._sender = sender
        self._may_send = may_send
        self._count = count
        self._holding = Holding(settings.holds_off)
        self._rate = RateLimit(settings.per_minute)
        self._stuck = Stuck()
        self._awake = asyncio.Event()
        self._paused = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def sink(self) -> SinkName:
        return self.target.sink

    @property
    def endpoint(self) -> str:
        """As it may be shown."""
        return self.target.endpoint if self.sink == "file" else shown_url(self.target.endpoint)

    def start(self, state: SinkState, *, paused: bool) -> None:
        """``state`` is how it did before; of another endpoint that says nothing."""
        self.state = state if state.endpoint == self.endpoint else SinkState(self.endpoint)
        state, self._paused = self.state, paused
        if state.wait is not None:
            clock = self._around.clock
            state.wait = state.wait.carried_over(self._around.boot_id, clock.monotonic_s(), clock.wall_ms())
        self._task = asyncio.create_task(self._run(), name=f"upload to {self.sink}")

    async def stop(self) -> None:
        """At once; what is being sent goes again when the lane is started the next time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sender.close()

    def wake(self) -> None:
        self._awake.set()

    def pause(self, *, paused: bool) -> None:
        self._paused = paused
        self.wake()

    def send_now(self) -> None:
        """Whatever it waits for, except its turn among the requests of this minute."""
        self.hurry, self.state.wait = True, None
        self.wake()

    def reconsider(self, *, network: bool) -> None:
        """The device has changed; if it is the ``network``, what failed for its sake is tried again at once."""
        if network and self.state.by_network:
            self.state.wait, self.state.failures = None, 0
        self.wake()

    async def settled(self) -> None:
        """Until nothing is in flight."""
        await self._idle.wait()

    @property
    def aside(self) -> tuple[str, ...]:
        """The batches that let others by."""
        return self._stuck.aside

    def next_in_s(self) -> float | None:
        """Seconds until its wait is over; None when it does not wait for a time."""
        wait = self.state.wait
        return None if wait is None else wait.left_s(self._around.clock.monotonic_s()) or None

    async def _run(self) -> None:
        while True:
            await self._until_kept(lambda connection: outbox.release(connection, self.sink))
            try:
                await self._turns()
            except Exception:
                log.exception("sending to the sink %s failed in a way that it should not", self.sink)
                await asyncio.sleep(_MISTAKE_RETRY_S)

    async def _turns(self) -> None:
        while True:
            self._awake.clear()
            try:
                wait_s = await self._turn()
            except StorageError as error:
                log.warning("the outbox cannot be read: %s", error)
                self._around.mend()
                wait_s = _DISK_RETRY_S
            if wait_s != 0:
                await self._sleep(wait_s)

    async def _sleep(self, wait_s: float | None) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._awake.wait()
        except TimeoutError:
            pass

    async def _turn(self) -> float | None:
        """Send one batch if one may go. Seconds until it is worth another try; None: not until woken; 0: at once."""
        self.held = None
        if self._paused or not self._may_send():
            return None
        if not await self._around.store.query(partial(outbox.has_unsent, sink=self.sink)):
            self.hurry = False
            self._holding.clear()
            await self._count()
            return None
        left_s = None if self.hurry else await self._held_s()
        if left_s is None:
            left_s = self._rate.left_s(self._around.clock.monotonic_s())
        return left_s if left_s > 0 else await self._send_next()

    async def _held_s(self) -> float | None:
        """Seconds until it may be time, by its own wait or by the device's state; None when it is."""
        if (left_s := self.next_in_s()) is not None:
            return left_s
        held = self._holding.held(await self._facts(), self._around.clock.monotonic_s())
        if held is None:
            return None
        self.held = held.reason
        return held.recheck_s

    async def _send_next(self) -> float | None:
        if self._paused or not self._may_send():  # meanwhile
            return None
        self._idle.clear()
        try:
            batch = await self._lease()
            if batch is None and self._stuck.aside:  # there are no others
                self._stuck.clear()
                batch = await self._lease()
            if batch is None:
                return None
            self._rate.sent(self._around.clock.monotonic_s())
            self.in_flight = batch
            await self._send(batch)
        finally:
            self.in_flight = None
            self._idle.set()
        if self.state.failures or self.state.blocked:
            await self._count()
        return 0

    async def _lease(self) -> Batch | None:
        return await self._around.store.transact(
            partial(
                outbox.lease,
                sink=self.sink,
                device_id=self._around.device_id,
                most_items=self._settings.most_items,
                most_bytes=self._settings.most_bytes,
                aside=self._stuck.aside,
            )
        )

    async def _facts(self) -> Facts:
        state = await self._around.sampler.state(_FRESH_S)
        local = self.sink == "file" or leads_here(self.target.endpoint)
        return facts_of(state, local=local, quiet_s=self._around.quiet_for_s())

    async def _send(self, batch: Batch) -> None:
        outcome = await self._sender.send(Job(self.target, batch.key, batch.items, batch.again))
        clock = self._around.clock
        verdict = decide(outcome, len(batch.rows), self.state.failures, clock.wall_ms(), self._around.jitter())
        self._stuck.note(batch.key, outcome, verdict)
        self._note(outcome, verdict)
        await self._until_kept(partial(self._settle, batch=batch, verdict=verdict, reason=outcome.detail))

    def _note(self, outcome: Outcome, verdict: Verdict) -> None:
        clock, state = self._around.clock, self.state
        if verdict.action == "deliver":
            if state.last_error is not None:
                log.info("the sink %s takes exports again", self.sink)
            self.state = SinkState(self.endpoint, last_success_at_ms=clock.wall_ms())
            return
        error = outcome.detail or f"status {outcome.status}"
        if error != state.last_error:
            log.warning("the sink %s did not take a batch: %s", self.sink, error)
        state.last_error, state.last_error_at_ms = error, clock.wall_ms()
        state.last_status, state.last_failure = outcome.status, outcome.failure
        state.by_network = outcome.status is None
        state.blocked = verdict.action == "pause"
        # A receiver that refuses a batch is alive: what it is sent next is another matter.
        state.failures = state.failures + 1 if verdict.action == "retry" else 0
        state.wait = None
        if verdict.wait_s > 0:
            state.wait = wait_of(verdict.wait_s, self._around.boot_id, clock.monotonic_s(), clock.wall_ms())
        if verdict.action in {"retry", "pause"}:
            self.hurry = False

    def _settle(self, connection: sqlite3.Connection, *, batch: Batch, verdict: Verdict, reason: str) -> None:
        if verdict.action == "deliver":
            outbox.delivered(connection, self.sink, batch)
        elif verdict.action == "halve":
            outbox.halved(connection, self.sink, self._around.device_id, batch)
        elif verdict.action == "bury":
            outbox.buried(connection, batch, reason)
        else:
            outbox.failed(connection, batch)
        outbox.put_sink_state(connection, self.sink, msgspec.json.encode(self.state))

    async def _until_kept(self, job: Callable[[sqlite3.Connection], None]) -> None:
        """What came of a request is kept, though the disk refuses for a while; until then nothing more is sent."""
        while True:
            try:
                await self._around.store.transact(job)
            except StorageError as error:
                log.warning("the outbox cannot be written: %s", error)
                self._around.mend()
                await asyncio.sleep(_DISK_RETRY_S)
            else:
                return

    def _doing(self, *, queued: bool) -> str:
        if self._paused:
            return "paused"
        if self.in_flight is not None:
            return "sending"
        if self.next_in_s() is not None:
            return "blocked" if self.state.blocked else "retrying"
        if self.held is not None:
            return "holding"
        return "waiting" if queued else "idle"

    def shown(self, *, queued: bool) -> dict[str, Any]:
        """How this sink does: a line of the status."""
        state, next_in_s, doing = self.state, self.next_in_s(), self._doing(queued=queued)
        reason = self.held if doing == "holding" else state.last_error
        if doing == "waiting" and (turn_in_s := self._rate.left_s(self._around.clock.monotonic_s())) > 0:
            next_in_s, reason = (
                turn_in_s,
                f"it made {self._rate.most} requests in the last minute, and may not make more",
            )
        return {
            "sink": self.sink,
            "endpoint": self.endpoint,
            "state": doing,
            "reason": reason,
            "in_flight": len(self.in_flight.rows) if self.in_flight is not None else 0,
            "next_attempt_in_s": None if next_in_s is None else round(next_in_s, 3),
            "failures": state.failures,
            "circuit_open": state.failures >= BREAKER_FAILURES and doing == "retrying",
            "last_error": state.last_error,
            "last_error_at_ms": state.last_error_at_ms,
            "last_status": state.last_status,
            "last_failure": state.last_failure,
            "last_success_at_ms": state.last_success_at_ms,
        }
