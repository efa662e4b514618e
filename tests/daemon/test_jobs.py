from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xybridd.daemon.jobs import Jobs
from xybridd.services.clock import SystemClock

if TYPE_CHECKING:
    import pytest


def test_a_job_in_whose_midst_the_daemon_ends_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def job() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        jobs = Jobs(SystemClock())
        jobs.every("long", 60.0, job, first_in_s=0.0)
        jobs.start()
        async with asyncio.timeout(30):
            await begun.wait()
            jobs.shutdown(wait=False)
            await cancelled.wait()
            await asyncio.sleep(0)

    asyncio.run(test())
    assert "raised an exception" not in caplog.text


def test_a_job_that_fails_is_said_to_have(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        begun = asyncio.Event()

        async def job() -> None:
            begun.set()
            raise ValueError("boom")

        jobs = Jobs(SystemClock())
        jobs.every("broken", 60.0, job, first_in_s=0.0)
        jobs.start()
        async with asyncio.timeout(30):
            await begun.wait()
        jobs.shutdown(wait=False)

    asyncio.run(test())
    assert "boom" in caplog.text
