"""Deletes what somebody wants forgotten: from this device at once, and at the sinks by a request that they delete it.

What is being sent at the moment is waited for, and nothing is sent meanwhile. What waits in a batch is taken out of
it, so that it does not leave any more; since it may have arrived, the sink is asked to delete it too. The pages that
held it are overwritten.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from xybridd.core.delivery import Item
from xybridd.storage import outbox

if TYPE_CHECKING:
    import sqlite3

    from xybridd.core.delivery import SinkName
    from xybridd.services.clock import Clock
    from xybridd.services.recorder import Recorder
    from xybridd.services.sessions import Link
    from xybridd.services.uploader import Uploader
    from xybridd.storage.store import Store

#: Sessions deleted in one transaction: a commit should not hold up the others for long.
_AT_ONCE = 500


class Forgetting:
    def __init__(self, store: Store, recorder: Recorder, uploader: Uploader, clock: Clock) -> None:
        self._store = store
        self._recorder = recorder
        self._uploader = uploader
        self._clock = clock

    async def session(self, link: Link, session_id: str) -> dict[str, int]:
        """One session, of the asking user's; an active one is ended first. Raises UnknownSession."""
        self._recorder.committer.check()
        session_id = await self._recorder.owned(link, session_id)
        async with self._uploader.standing_still():
            asked = await self._store.transact(partial(self._ask, session_id=session_id))
            records = await self._recorder.forget([session_id])
        await self._finish()
        return {"sessions": 1, "records": records, "deletion_requests": asked}

    async def everything(self) -> dict[str, int]:
        """All sessions of everybody, and what the device was like meanwhile."""
        self._recorder.committer.check()
        async with self._uploader.standing_still():
            asked = await self._store.transact(partial(self._ask, session_id=""))
            sessions = await self._recorder.all_sessions()
            records = 0
            for start in range(0, len(sessions), _AT_ONCE):
                records += await self._recorder.forget(sessions[start : start + _AT_ONCE])
            await self._store.forget_rest()
        await self._finish()
        return {"sessions": len(sessions), "records": records, "deletion_requests": asked}

    async def _finish(self) -> None:
        await self._store.scrub()
        await self._uploader.refresh()

    def _ask(self, connection: sqlite3.Connection, *, session_id: str) -> int:
        """Queue a request for deletion at each sink that has, or may have, the session; "" is the whole device."""
        installation = self._recorder.installation
        holders: list[SinkName] = outbox.holders(connection, session_id or None)
        item = Item("deletion", session_id, 0, self._clock.wall_ms(), installation.device_id, "", "", "")
        outbox.add(connection, item, holders)
        return len(holders)
