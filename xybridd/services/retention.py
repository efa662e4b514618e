"""Lets go of sessions: those past their time, and the oldest when the database grows over its quota."""

from __future__ import annotations

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


class Retention:
    def __init__(self, store: Store, recorder: Recorder, clock: Clock, retention_days: float, quota_bytes: int) -> None:
        self.retention_days = retention_days
        self.quota_bytes = quota_bytes
        self._store = store
        self._recorder = recorder
        self._clock = clock

    async def run(self) -> None:
        """One round; what it deletes is counted in the ledger as ``removed``."""
        try:
            before_ms = self._clock.wall_ms() - int(self.retention_days * _DAY_MS)
            await self._remove(await self._store.expired(before_ms), "retention")
            await self._store.coarsen(self._clock.wall_ms() - _FINE_MS, before_ms)
            await self._remove(await self._store.over_quota(self.quota_bytes), "quota")
        except StorageError as error:
            log.warning("retention could not run and will be tried again: %s", error)

    async def _remove(self, sessions: dict[str, int], reason: str) -> None:
        if not sessions:
            return
        log.info("deleting %d old sessions (%s)", len(sessions), reason)
        ticket = self._recorder.remove(sessions, reason)
        if ticket is not None:
            await ticket
