"""What was changed in memory and is not on disk yet: the committer's work.

A commit writes values, taken at one moment (`collect`); what is applied while they are written belongs to the next.
They are kept until they are settled, so that a failed commit is written again as it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.changes import Changes
from xybridd.core.delivery import TAKES
from xybridd.core.export import export_item
from xybridd.core.ledger import Ledger
from xybridd.core.minute import AppMinute
from xybridd.errors import CorruptDatabase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xybridd.core.changes import ClockImage
    from xybridd.core.delivery import Item, SinkName
    from xybridd.core.minute import Sample
    from xybridd.core.registry import Producer
    from xybridd.services.clock import Clock
    from xybridd.services.sessions import Sessions
    from xybridd.storage.store import Store

log = logging.getLogger(__name__)


class Pending:
    """Implements `xybridd.services.committer.CommitWork`."""

    def __init__(self, store: Store, sessions: Sessions, clock: Clock) -> None:
        self.ledger = Ledger()
        self._store = store
        self._sessions = sessions
        self._registry = sessions.registry
        self._clock = clock
        self._collected = Changes()
        self._producers: list[Producer] = []
        self._salvaged = False
        self._samples: list[Sample] = []
        self._imported: list[Item] = []
        self._clock_image: ClockImage | None = None
        #: The sinks that are on: for each of them that takes it, what is made is queued in the same transaction.
        self.sinks: tuple[SinkName, ...] = ()
        #: Called when something was queued, and is on disk.
        self.on_queued: Callable[[], None] = lambda: None
        #: Called with each minute as it is closed, before it is on disk.
        self.on_minute: Callable[[AppMinute], None] = lambda _minute: None
        #: Called after each commit.
        self.on_kept: Callable[[], None] = lambda: None
        #: The other side of the ledger: what became of exports, by sink.
        self.exports_ledger: Callable[[], dict[str, Any]] = dict

    def shown_ledger(self) -> dict[str, Any]:
        """Both sides, as status and every export carry them."""
        return self.ledger.shown() | {"exports": self.exports_ledger()}

    def queue(self, items: list[Item]) -> None:
        """Have exports queued with the next commit."""
        self._imported += items

    def keep(self, sample: Sample) -> None:
        """Have it written with the next commit."""
        self._samples.append(sample)

    def mend(self, image: ClockImage, corrected: Callable[[int], int]) -> None:
        """Have the trace of the clock written, and what it wrote wrongly corrected, with the next commit."""
        self._clock_image = image
        self._samples = [msgspec.structs.replace(each, at_ms=corrected(each.at_ms)) for each in self._samples]

    @property
    def mending(self) -> bool:
        """Whether times on disk are still to be corrected."""
        images = (self._clock_image, self._collected.clock)
        return any(image is not None and image.corrections for image in images)

    def dirty(self) -> bool:
        registry = self._registry
        return bool(
            registry.changed_sessions
            or registry.changed_producers
            or self._sessions.removing
            or self._sessions.forgetting
            or self.ledger.dirty
            or self._samples
            or self._imported
            or self._clock_image is not None
            or self._store.damaged
        )

    def collect(self) -> Awaitable[None]:
        self._collected = Changes(
            deleted_sessions=list(self._sessions.removing),
            forgotten_sessions=list(self._sessions.forgetting),
            ledger=self.ledger.take_changes(),
            samples=self._samples,
            exports=self._imported,
            clock=self._clock_image,
        )
        self._samples, self._imported, self._clock_image = [], [], None
        self._take_sessions(self._collected)
        return self._store.write(self._collected)

    def _take_sessions(self, into: Changes) -> None:
        """What changed in the sessions, and an export of each that has a new revision."""
        into.sinks = self.sinks
        exporting = any("session" in TAKES[sink] for sink in self.sinks)
        for session in self._registry.changed_sessions.values():
            if session.take_revision() and exporting:
                try:
                    into.exports.append(export_item(session, self.shown_ledger(), self._clock.wall_ms()))
                except Exception:  # the records come first: they are written, whatever an export runs into
                    log.exception("no export of the session %s could be made", session.session_id)
        known = len(into.minutes)
        self._producers = self._registry.take_changes(into)
        for minute in into.minutes[known:]:
            head = self._registry.sessions[minute.session_id].session.head
            self.on_minute(AppMinute(head.app, head.app_version, minute))

    def retry(self) -> Awaitable[None]:
        return self._store.write(self._collected)

    async def rescue(self, reason: str) -> None:
        """After damage: what memory holds is newer than what was salvaged, so all of it is written on top."""
        if not self._salvaged:
            await self._store.salvage(reason, self._clock.wall_ms(), balanced=False)
            self._salvaged = True
        self._registry.note_all()
        self.ledger.change_all()
        everything = Changes(
            deleted_sessions=self._collected.deleted_sessions,
            ledger=self._collected.ledger | self.ledger.take_changes(),
            forgotten_sessions=self._collected.forgotten_sessions,
            minutes=list(self._collected.minutes),
            samples=self._collected.samples,
            exports=list(self._collected.exports),
            clock=self._collected.clock,
        )
        self._take_sessions(everything)
        self._collected = everything
        try:
            await self._store.write(everything)
            missing = await self._store.account()
        except CorruptDatabase:
            self._salvaged = False
            raise
        self.ledger.remove(max(0, missing), "damage")

    def settle(self) -> None:
        for producer, image in zip(self._producers, self._collected.producers, strict=True):
            producer.settle(image)
        self._registry.settle()
        self._sessions.removing.difference_update(self._collected.deleted_sessions)
        self._sessions.forgetting.difference_update(self._collected.forgotten_sessions)
        queued = bool(self._collected.exports or self._collected.minutes) and bool(self.sinks)
        self._collected, self._producers, self._salvaged = Changes(), [], False
        self._registry.trim()
        self.on_kept()
        if queued:
            self.on_queued()
