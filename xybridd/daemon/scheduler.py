"""Every periodic job, named in one place, on APScheduler (`xybridd.daemon.jobs`).

That is imported when the jobs start, after the daemon is ready: it takes a sixth of the time that starting takes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xybridd.services.device import BUSY_EVERY_S, IDLE_EVERY_S

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from xybridd.core.capabilities import DeviceState
    from xybridd.daemon.jobs import Jobs
    from xybridd.services.clock import Clock
    from xybridd.services.device import Device
    from xybridd.services.recorder import Recorder
    from xybridd.services.retention import Retention
    from xybridd.services.uploader import Uploader

log = logging.getLogger(__name__)

#: Sessions end by themselves at most this much later than they should: one waking of an idle device a minute.
MINUTE_S = 60.0
RETENTION_EVERY_S = 3600.0
ORPHANS_EVERY_S = 3600.0

#: When nothing was recorded for so long, the device is read at leisure: an app that only waits costs no wakeups.
QUIET_AFTER_S = 30.0

#: A plug that goes in is a dozen events; the device is read when they are over.
_SETTLE_S = 0.3


class Scheduler:
    """The daemon's jobs, each under its name.

    ``minute`` every minute: sessions whose time is up, snapshots, the aggregates of the minute; ``retention`` and
    ``orphans`` every hour; ``device`` every ten seconds while records come or somebody watches; ``alive`` as often as
    the service manager wants to see it; ``metrics`` every minute where a file of them is wanted; and a sweep when a
    producer is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        recorder: Recorder,
        retention: Retention,
        device: Device,
        uploader: Uploader,
        fetch_orphans: Callable[[], Awaitable[None]],
    ) -> None:
        self._loop = loop
        self._fetch_orphans = fetch_orphans
        self._uploader = uploader
        self._recorder = recorder
        self._device = device
        self._lonely: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[DeviceState] | None = None
        self._often = True
        self._clock = clock
        self._retention = retention
        self._jobs: Jobs | None = None

    def start(
        self,
        alive_every_s: float | None,
        show_life: Callable[[], Awaitable[None]],
        write_metrics: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``alive_every_s``: how often the service manager wants to see life, if it does."""
        from xybridd.daemon.jobs import Jobs  # noqa: PLC0415 - see above

        jobs = Jobs(self._clock)
        # On the full minute, as people count them.
        to_full_s = MINUTE_S - self._clock.wall_ms() / 1000 % MINUTE_S
        jobs.every("minute", MINUTE_S, self._minute, first_in_s=to_full_s)
        # A device that is switched off often must come to its rarer jobs as well: the first run is soon.
        jobs.every("retention", RETENTION_EVERY_S, self._retention.run, first_in_s=MINUTE_S)
        jobs.every("orphans", ORPHANS_EVERY_S, self._fetch_orphans, first_in_s=0.0)
        jobs.every("device", BUSY_EVERY_S, self._sample, first_in_s=BUSY_EVERY_S)
        if alive_every_s is not None:
            # With the minute where that is often enough: an idle device is not woken for it.
            jobs.every("alive", min(alive_every_s, MINUTE_S), show_life, first_in_s=min(alive_every_s, to_full_s))
        if write_metrics is not None:
            jobs.every("metrics", MINUTE_S, write_metrics, first_in_s=0.0)
        jobs.start()
        self._jobs = jobs
        self._look()

    def stop(self) -> None:
        for timer in (self._lonely, self._soon):
            if timer is not None:
                timer.cancel()
        if self._jobs is not None:
            self._jobs.shutdown(wait=False)
            self._jobs = None

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

    async def _minute(self) -> None:
        self._recorder.sweep()
        if self._uploader.takes_sessions:
            self._recorder.snapshot(self._uploader.settings.snapshot_s)
        self._recorder.close_minute(await self._see(IDLE_EVERY_S))

    async def _see(self, fresh_s: float) -> DeviceState:
        """Read the device, and let those know who act by it."""
        state = await self._device.sample(fresh_s)
        self._uploader.look(state)
        return state

    def look_now(self, why: str) -> None:
        """The kernel says that something changed: read the device shortly, once for many such words."""
        log.debug("the device changed: %s", why)
        if self._soon is None:
            self._soon = self._loop.call_later(_SETTLE_S, self._look)

    def _look(self) -> None:
        self._soon = None
        self._looking = self._loop.create_task(self._see(0), name="device")

    async def _sample(self) -> None:
        await self._see(BUSY_EVERY_S - 1)
        if self._jobs is not None and self._recorder.quiet_for_s() > QUIET_AFTER_S and not self._device.watched:
            self._often = False
            self._jobs.pause_job("device")

    def look_often(self) -> None:
        """Something was recorded, or somebody watches: read the device every few seconds until that is over."""
        if not self._often and self._jobs is not None:
            self._often = True
            self._jobs.resume_job("device")
