"""APScheduler, aware of clocks that jump.

It plans by the wall clock. On a board that boots in 1970 and jumps when NTP answers, a plan made before the jump lies
decades off; so the jump is looked for whenever the scheduler wakes, by the clock that cannot jump, and the plans are
moved along.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xybridd.services.clock import Clock

#: The wall clock drifts and is slewed by NTP; a jump is more than that.
_JUMP_S = 5.0


class Jobs(AsyncIOScheduler):  # type: ignore[misc] # APScheduler 3 has no types
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

    def every(self, name: str, interval_s: float, job: Callable[[], Awaitable[None]], first_in_s: float) -> None:
        """Run `job` every `interval_s`, for the first time in `first_in_s`; a missed run is made up for."""

        async def run() -> None:
            # Jobs are cancelled when the daemon ends, and only then; APScheduler would log that as a failure.
            with suppress(asyncio.CancelledError):
                await job()

        self.add_job(
            run,
            IntervalTrigger(seconds=interval_s, timezone=UTC),
            id=name,
            name=name,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first_in_s),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
