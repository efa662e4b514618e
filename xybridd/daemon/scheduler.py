"""Every periodic job, named in one place, on APScheduler.

APScheduler plans by the wall clock. On a board that boots in 1970 and jumps when NTP answers, a plan made before the
jump lies decades off; so the jump is looked for whenever the scheduler wakes, by the clock that cannot jump, and the
plans are moved along.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from xybridd.services.device import BUSY_EVERY_S, IDLE_EVERY_S

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from xybridd.services.clock import Clock
    from xybridd.services.device import Device
    from xybridd.services.recorder import Recorder
    from xybridd.services.retention import Retention

log = logging.getLogger(__name__)

#: Sessions end by themselves at most this much later than they should: one waking of an idle device a minute.
SWEEP_EVERY_S = 60.0
RETENTION_EVERY_S = 3600.0

#: A plug that goes in is a dozen events; the device is read when they are over.
_SETTLE_S = 0.3

#: The wall clock drifts and is slewed by NTP; a jump is more than that.
_JUMP_S = 5.0


class _JumpAware(AsyncIOScheduler):  # type: ignore[misc] # APScheduler 3 has no types
    def __init__(self, clock: Clock) -> None:
        super().__init__(timezone=UTC)
        self._clock = clock
        self._offset_s = self._measure()

    def _measure(self) -> float:
        return self._clock.wall_ms() / 1000 - self._clock.monotonic_s()

    def _process_jobs(self) -> Any:
        jump_s = self._measure() - self._offset_s
        if abs(jump_s) > _JUMP_S:
            self._offset_s += jump_s
            for job in self.get_jobs():
                if job.next_run_time is not None:
                    self.modify_job(job.id, next_run_time=job.next_run_time + timedelta(seconds=jump_s))
        return super()._process_jobs()


class Scheduler:
    """The daemon's jobs, each under its name.

    ``sessions`` every minute; ``retention`` every hour; ``device`` every ten seconds while a session is active or
    somebody watches; and a sweep when a producer is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        recorder: Recorder,
        retention: Retention,
        device: Device,
    ) -> None:
        self._loop = loop
        self._recorder = recorder
        self._device = device
        self._lonely: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._jobs = _JumpAware(clock)
        self._every("sessions", SWEEP_EVERY_S, self._sweep)
        self._every("retention", RETENTION_EVERY_S, retention.run)
        self._every("device", BUSY_EVERY_S, self._sample)

    def start(self) -> None:
        self._jobs.start()

    def stop(self) -> None:
        for timer in (self._lonely, self._soon):
            if timer is not None:
                timer.cancel()
        if self._jobs.running:
            self._jobs.shutdown(wait=False)

    def sweep_when_lost(self) -> None:
        """A producer was lost: look at the sessions as soon as the time of the first one lost is up."""
        if self._lonely is not None:
            self._lonely.cancel()
            self._lonely = None
        wait_s = self._recorder.next_loss_in_s()
        if wait_s is not None:
            self._lonely = self._loop.call_later(wait_s, self._sweep_lonely)

    def _sweep_lonely(self) -> None:
        self._lonely = None
        self._recorder.sweep()
        self.sweep_when_lost()

    async def _sweep(self) -> None:
        # A coroutine, since APScheduler runs plain functions on a thread.
        self._recorder.sweep()
        await self._device.sample(IDLE_EVERY_S)

    def look_now(self, why: str) -> None:
        """The kernel says that something changed: read the device shortly, once for many such words."""
        log.debug("the device changed: %s", why)
        if self._soon is None:
            self._soon = self._loop.call_later(_SETTLE_S, self._look)

    def _look(self) -> None:
        self._soon = None
        self._looking = self._loop.create_task(self._device.sample(0), name="device")

    async def _sample(self) -> None:
        await self._device.sample(BUSY_EVERY_S - 1)
        if not (self._recorder.registry.active_count() or self._device.watched):
            self._jobs.pause_job("device")

    def look_often(self) -> None:
        """A session began, or somebody watches: read the device every few seconds until nobody is there any more."""
        if self._jobs.running and (job := self._jobs.get_job("device")).next_run_time is None:
            job.resume()

    def _every(self, name: str, interval_s: float, job: Callable[[], Awaitable[None]]) -> None:
        # A device that is switched off often must come to its rarer jobs as well: the first run is soon.
        first = datetime.now(UTC) + timedelta(seconds=min(interval_s, SWEEP_EVERY_S))
        self._jobs.add_job(
            job,
            IntervalTrigger(seconds=int(interval_s), timezone=UTC),
            id=name,
            name=name,
            next_run_time=first,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
