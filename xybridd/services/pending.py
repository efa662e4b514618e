"""What was changed in memory and is not on disk yet: the committer's work.

A commit writes values, taken at one moment (`collect`); what is applied while they are written belongs to the next.
They are kept until they are settled, so that a failed commit is written again as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.core.changes import Changes
from xybridd.core.ledger import Ledger
from xybridd.errors import CorruptDatabase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from xybridd.core.minute import Sample
    from xybridd.core.registry import Producer
    from xybridd.services.clock import Clock
    from xybridd.services.sessions import Sessions
    from xybridd.storage.store import Store


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

    def keep(self, sample: Sample) -> None:
        """Have it written with the next commit."""
        self._samples.append(sample)

    def dirty(self) -> bool:
        registry = self._registry
        return bool(
            registry.changed_sessions
            or registry.changed_producers
            or self._sessions.removing
            or self.ledger.dirty
            or self._samples
            or self._store.damaged
        )

    def collect(self) -> Awaitable[None]:
        self._collected = Changes(
            deleted_sessions=list(self._sessions.removing), ledger=self.ledger.take_changes(), samples=self._samples
        )
        self._samples = []
        self._producers = self._registry.take_changes(self._collected)
        return self._store.write(self._collected)

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
            minutes=list(self._collected.minutes),
            samples=self._collected.samples,
        )
        self._producers = self._registry.take_changes(everything)
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
            producer.durable_seq = image.last_seq
        self._registry.settle()
        self._sessions.removing.difference_update(self._collected.deleted_sessions)
        self._collected, self._producers, self._salvaged = Changes(), [], False
        self._registry.trim()
