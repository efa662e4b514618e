"""Which session the records of a ring go to, and what happens when that session is over.

A ring names its session in a slot (`docs/ring.md`), and the producer's row remembers it, so a ring that is read again
after a restart goes on where it was. A session that is over is followed by another of the same client, whose id follows
from the old one: reading the same slots again finds it, and never makes a third.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from xybridd.errors import InvalidParams, PermissionDenied, SessionEnded, UnknownSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xybridd.core.registry import Producer, Tracked
    from xybridd.core.ring import Run, SessionEntry
    from xybridd.protocol.records import Record
    from xybridd.services.recorder import Recorder
    from xybridd.services.sessions import Link

#: What says that a session takes no records, now or ever.
_OVER = (SessionEnded, UnknownSession, PermissionDenied, InvalidParams)


class RingSessions:
    """``producer`` is the ring: its `session_id` is the session of the records that are read next."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def start(self, link: Link, producer: Producer, entry: SessionEntry) -> None:
        """A session starts, or another process of its client goes on in it."""
        wanted = entry.params
        producer.session_id = str(wanted.session_id)
        with contextlib.suppress(*_OVER):
            producer.session_id, _ = await self._recorder.start(
                link, producer.session_id, wanted.started_at_ms, wanted.labels
            )

    async def resume(self, link: Link, producer: Producer) -> str | None:
        """A ring is attached, maybe again: its client lives in the session that the ring is in. The session's id."""
        if producer.session_id is not None:
            with contextlib.suppress(*_OVER):
                producer.session_id, _ = await self._recorder.start(link, producer.session_id, None, {})
        return producer.session_id

    async def leave(self, link: Link, producer: Producer, *, ends: bool) -> None:
        """The process ends its session, or leaves it to others."""
        session_id, producer.session_id = producer.session_id, None
        if session_id is None:
            return
        tracked = await self._found(link, session_id)
        if tracked is not None and (not ends or tracked.session.head.processes):
            tracked.session.note_process("ended")
            self._recorder.registry.note(tracked.session)
        if ends:
            with contextlib.suppress(*_OVER):
                await self._recorder.end(link, session_id)

    async def lose(self, link: Link, producer: Producer, calls: list[dict[str, Any]]) -> None:
        """The process is gone and did not say so. Its ring is in no session from here on: that is said once."""
        session_id, producer.session_id = producer.session_id, None
        self._recorder.registry.note_producer(producer)
        tracked = None if session_id is None else await self._found(link, session_id)
        if tracked is not None:
            tracked.session.note_process("lost")
            if calls:
                tracked.session.interrupted(calls)
            self._recorder.registry.note(tracked.session)

    async def count(self, link: Link, producer: Producer, run: Run, records: Sequence[Record]) -> None:
        """Count a run of slots. When this returns, they are counted, and nothing was waited for since."""
        if not run.calls and not run.others:
            self._recorder.count_apart(run)
            return
        tracked = await self._target(link, producer, run.latest_ms)
        producer.session_id = tracked.session.session_id
        self._recorder.count_run(link, tracked, run, records, producer)

    async def _found(self, link: Link, session_id: str) -> Tracked | None:
        try:
            return await self._recorder.find_successor(link, session_id)
        except _OVER:
            return None

    async def _target(self, link: Link, producer: Producer, latest_ms: int) -> Tracked:
        """The session that takes records up to a time.

        A session that has ended takes those of before its end, and all of a process that is gone. Later ones go to
        another session.
        """
        if producer.session_id is None:
            producer.session_id = str(uuid.uuid5(uuid.UUID(producer.client_id), str(producer.applied_seq)))
        while True:
            with contextlib.suppress(UnknownSession):
                tracked = await self._recorder.find_successor(link, producer.session_id)
                head = tracked.session.head
                if head.ended_at_ms is None or (
                    head.end_reason != "reset" and (link.gone or latest_ms < head.ended_at_ms)
                ):
                    return tracked
                producer.session_id = str(uuid.uuid5(uuid.UUID(head.session_id), "next"))
            producer.replaced = True
            with contextlib.suppress(SessionEnded):
                await self._recorder.start(link, producer.session_id, None, {})
