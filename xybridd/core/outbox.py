"""The states of what is to be sent, as one table.

A row of the outbox is one export for one sink. It is counted once when it is made and ends in exactly one way, so that
for each sink, at any time:

    exports made = delivered + queued + superseded + dead + evicted + forgotten

    queued     waits to be sent for the first time; in no batch yet
    leased     is in the batch that is being sent now
    waiting    was in a batch whose sending failed; it goes again in the same batch, to the byte
    dead       the sink will never take it; it is kept, to be read, replayed or dropped
    delivered  the sink has it
    superseded a newer revision of the same session took its place before it was sent
    evicted    deleted unsent, for its age, for space, or by damage
    forgotten  deleted because its owner said so

Queued, leased and waiting are all *queued* in the ledger. A lease lasts as long as the daemon that took it holds the
data folder's lock: whoever opens the database next finds every lease expired, so a crash in the midst of a request
loses nothing. A batch keeps its key as long as a row of it waits: what may have arrived is never sent under another,
also when the owner had a row of it forgotten meanwhile, or it was evicted. Who has the whole of it knows the rest.
"""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import msgspec

from xybridd.core.delivery import ItemKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.delivery import SinkName


class State(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    WAITING = "waiting"
    DEAD = "dead"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded"
    EVICTED = "evicted"
    FORGOTTEN = "forgotten"


Event = Literal["lease", "deliver", "fail", "crash", "refuse", "supersede", "evict", "forget", "replay"]

#: From where an event leads where. What is not here does not happen.
EDGES: dict[tuple[State, Event], State] = {
    (State.QUEUED, "lease"): State.LEASED,
    (State.QUEUED, "supersede"): State.SUPERSEDED,
    (State.QUEUED, "evict"): State.EVICTED,
    (State.QUEUED, "forget"): State.FORGOTTEN,
    (State.LEASED, "deliver"): State.DELIVERED,
    (State.LEASED, "fail"): State.WAITING,
    (State.LEASED, "crash"): State.WAITING,
    (State.LEASED, "refuse"): State.DEAD,
    (State.WAITING, "lease"): State.LEASED,
    (State.WAITING, "evict"): State.EVICTED,
    (State.WAITING, "forget"): State.FORGOTTEN,
    (State.DEAD, "replay"): State.QUEUED,
    (State.DEAD, "evict"): State.EVICTED,
    (State.DEAD, "forget"): State.FORGOTTEN,
}

#: The states that a row in the outbox may be found in; the others are only counted. ``delivered`` stays as a mark, as
#: long as its session is there: it tells a repeated import, and what is to be deleted at the sink when it is forgotten.
KEPT = (State.QUEUED, State.LEASED, State.WAITING, State.DEAD, State.DELIVERED)
UNSENT = (State.QUEUED, State.LEASED, State.WAITING)


def sources(event: Event) -> tuple[State, ...]:
    """The states from which an event leads anywhere."""
    return tuple(state for state, each in EDGES if each == event)


class Row(msgspec.Struct, frozen=True):
    """A row of the outbox. All but ``item``, which is where its body is, tells it from every other of any database."""

    row_id: int
    kind: ItemKind
    session_id: str
    revision: int
    made_at_ms: int
    item: int


def batch_key(device_id: str, sink: SinkName, rows: Iterable[Row]) -> str:
    """The identity of a batch: a UUID that follows from what is in it, so that a preview shows the very bytes.

    A row that is replayed is a new row, and so goes under a new key.
    """
    told = "\n".join(f"{r.row_id} {r.kind} {r.session_id} {r.revision} {r.made_at_ms}" for r in rows)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"xybridd:{device_id}:{sink}\n{told}"))


class Tally(msgspec.Struct):
    """One sink's side of the ledger."""

    made: int = 0
    delivered: int = 0
    queued: int = 0
    superseded: int = 0
    dead: int = 0
    evicted: int = 0
    forgotten: int = 0

    def balances(self) -> bool:
        ends = self.delivered + self.queued + self.superseded + self.dead + self.evicted + self.forgotten
        return self.made == ends
