"""Lets go of what is past its time, and of the oldest when the database grows over its quota.

Each hour, and as soon as a commit takes the file over the quota: a device that records much in little time must not
fill its disk meanwhile. What may go, and in which order, says `xybridd.storage.retention`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xybridd.errors import StorageError

if TYPE_CHECKING:
    from xybridd.services.clock import Clock
    from xybridd.services.recorder import Recorder
    from xybridd.storage.store import Store

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000

#: Minutes stand minute by minute for so long, then by the hour.
_FINE_MS = 2 * _DAY_MS

#: Of the quota: how much is to be free after a round, and how much the file has to grow until it is looked at again.
_FREED, _GROWN = 0.1, 1 / 64


class Retention:
    def __init__(self, store: Store, recorder: Recorder, clock: Clock, retention_days: float, quota_bytes: int) -> None:
        self.retention_days = retention_days
        self.quota_bytes = quota_bytes
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._seen_bytes = 0

    async def run(self) -> None:
        """One round; what it deletes is counted in the ledger as ``removed``."""
        try:
            now_ms = await self._recorder.age_now_ms()
            before_ms = now_ms - int(self.retention_days * _DAY_MS)
            await self._remove(await self._store.expired(before_ms), "retention")
            await self._store.coarsen(now_ms - _FINE_MS, before_ms)
            await self._forget_producers()
            await self._keep_quota()
        except StorageError as error:
            log.warning("retention could not run and will be tried again: %s", error)

    def look(self) -> None:
        """Something was written: if that took the file over the quota, see to it now."""
        size_bytes = self._store.size_bytes
        self._seen_bytes = min(self._seen_bytes, size_bytes)
        if size_bytes <= max(self.quota_bytes, self._seen_bytes + self.quota_bytes * _GROWN):
            return
        if self._looking is None or self._looking.done():
            self._seen_bytes = size_bytes
            self._looking = asyncio.create_task(self._look(), name="quota")

    async def _look(self) -> None:
        try:
            await self._keep_quota()
        except StorageError as error:
            log.warning("the quota could not be kept and will be looked at again: %s", error)

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _keep_quota(self) -> None:
        async with self._one_at_a_time:
            if await self._store.used_bytes() <= self.quota_bytes:
                return
            await self._forget_producers()  # before anybody's sessions
            used = await self._store.used_bytes()
            if used <= self.quota_bytes:
                return
            wanted = int(self.quota_bytes * (1 - _FREED))
            while used > wanted:
                chosen = await self._store.to_evict(used - wanted)
                await self._remove(chosen.sessions, "quota")
                if chosen.rows or chosen.samples:
                    log.info("deleting %d old exports and samples (quota)", len(chosen.rows) + len(chosen.samples))
                    await self._store.evict(chosen)
                before, used = used, await self._store.used_bytes()
                if used >= before:
                    log.warning("the database is over its quota, and what is in it is all still needed")
                    return

    async def _forget_producers(self) -> None:
        while await self._store.forget_producers(self._recorder.registry.connected(), self.quota_bytes):
            pass

    async def _remove(self, sessions: dict[str, int], reason: str) -> None:
        if not sessions:
            return
        log.info("deleting %d old sessions (%s)", len(sessions), reason)
        ticket = self._recorder.remove(sessions, reason)
        if ticket is not None:
            await asyncio.shield(ticket)
