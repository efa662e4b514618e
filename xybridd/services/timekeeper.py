"""Sees the wall clock jump, and has what it wrote wrongly corrected: the rule is in `xybridd.core.timeline`.

What is in memory is corrected at once, before anything more is recorded; what is on disk in the next commit, in one
transaction with everything in memory and the trace of it. Cut off before that, the next start finds the same jump.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.changes import ClockImage
from xybridd.core.timeline import Timeline, plausible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.core.registry import Registry
    from xybridd.protocol.records import Record
    from xybridd.services.clock import Clock
    from xybridd.services.pending import Pending
    from xybridd.storage.store import Store

log = logging.getLogger(__name__)


class Timekeeper:
    def __init__(self, clock: Clock, up_ms: Callable[[], int], registry: Registry, pending: Pending) -> None:
        self.timeline = Timeline()
        #: Called when what failed because of a wrong clock may work now.
        self.on_mended: Callable[[], None] = lambda: None
        self._clock = clock
        self._up_ms = up_ms
        self._registry = registry
        self._pending = pending
        self._earlier_waits = False

    async def load(self, store: Store, boot_id: str) -> None:
        self.timeline, self._earlier_waits = await store.timeline(boot_id)

    def look(self) -> bool:
        """What the clock shows now; when it has jumped, see to it. Whether something is to be written."""
        timeline = self.timeline
        known = timeline.corrections
        news = timeline.look(self._clock.wall_ms(), self._up_ms())
        if not news and not (self._earlier_waits and timeline.right):
            return False
        corrections = timeline.corrections
        if corrections != known:
            log.warning(
                "the clock was wrong and was set by %+.0f s: what this boot recorded before is corrected",
                corrections[-1].by_ms / 1000,
            )
            self._mend_memory()
        elif not timeline.right:
            log.warning("the clock is wrong; what is recorded until it is set will be corrected then")
        now_ms = self._clock.wall_ms() if timeline.right else None
        self._earlier_waits = not timeline.right
        image = ClockImage(
            timeline.boot_id, list(timeline.stretches), corrections, now_ms, self._pending.shown_ledger()
        )
        self._pending.mend(image, timeline.corrected)
        if corrections != known:
            self.on_mended()
        return True

    def _mend_memory(self) -> None:
        timeline = self.timeline
        for tracked in self._registry.sessions.values():
            session = tracked.session
            if session.head.boot_id == timeline.boot_id and session.mend(timeline.corrected):
                self._registry.note(session)
        for producer in self._registry.producers.values():
            producer.heard_at_ms = timeline.corrected(producer.heard_at_ms)

    def heard_ms(self, time_ms: int) -> int:
        """When something was last heard of, which cannot be later than now, if one knows when that is."""
        now_ms = self._clock.wall_ms()
        return min(time_ms, now_ms) if plausible(now_ms) else time_ms

    def age_now_ms(self) -> int:
        """The time by which ages are reckoned; 0 while nobody knows it."""
        self.look()
        return self.timeline.age_now_ms(self._clock.wall_ms(), self._up_ms())

    def correction(self, boot_id: str) -> Callable[[int], int] | None:
        """What corrects the times of a producer of that boot; None when there is nothing to correct."""
        timeline = self.timeline
        return timeline.corrected if boot_id in {"", timeline.boot_id} and timeline.corrections else None

    def corrected(self, records: Sequence[Record], boot_id: str) -> Sequence[Record]:
        """Records as they come: those that waited at a producer of this boot since before the clock was set."""
        timeline = self.timeline
        if boot_id not in {"", timeline.boot_id} or not timeline.corrections:
            return records
        return [
            record
            if record.timestamp_ms is None or timeline.corrected(record.timestamp_ms) == record.timestamp_ms
            else msgspec.structs.replace(record, timestamp_ms=timeline.corrected(record.timestamp_ms))
            for record in records
        ]
