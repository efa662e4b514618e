"""What became of every record. Nothing is dropped without standing here with its reason.

    records received = counted + duplicates + rejected (by reason)
    counted          = in the sessions on this device + removed (by reason)

``removed`` is what went with a session that was deleted: after its time, for space, or with a damaged file. Beside
them stand what only a producer can tell: batches that never came (a gap in its numbers) and records it dropped.

The counters are kept under flat names (``rejected.invalid_params``), so that storage needs one row a counter.
"""

from __future__ import annotations

from typing import Any

from xybridd.core.stats import LARGEST_COUNTER

RECEIVED = "received"
COUNTED = "counted"
DUPLICATES = "duplicates"
MISSING_BATCHES = "missing_batches"
DROPPED_BY_CLIENTS = "dropped_by_clients"
_REJECTED = "rejected."
_REMOVED = "removed."


def received_of(counts: dict[str, int]) -> int:
    """How many records were received, by what became of them."""
    rejected = sum(count for name, count in counts.items() if name.startswith(_REJECTED))
    return counts.get(COUNTED, 0) + counts.get(DUPLICATES, 0) + rejected


class Ledger:
    """Counters that only grow, and which of them changed since they were last written."""

    __slots__ = ("_changed", "_counts")

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        self._counts = dict(counts or {})
        self._changed: set[str] = set()

    def _add(self, name: str, amount: int) -> None:
        if amount:
            self._counts[name] = min(self._counts.get(name, 0) + amount, LARGEST_COUNTER)
            self._changed.add(name)

    def __getitem__(self, name: str) -> int:
        return self._counts.get(name, 0)

    @property
    def dirty(self) -> bool:
        return bool(self._changed)

    def count(self, records: int) -> None:
        self._add(RECEIVED, records)
        self._add(COUNTED, records)

    def duplicate(self, records: int) -> None:
        self._add(RECEIVED, records)
        self._add(DUPLICATES, records)

    def reject(self, records: int, reason: str) -> None:
        """``reason`` is an error's stable code, such as ``invalid_params``."""
        self._add(RECEIVED, records)
        self._add(_REJECTED + reason, records)

    def remove(self, records: int, reason: str) -> None:
        """``reason``: ``retention``, ``quota``, ``damage`` or ``forgotten``."""
        self._add(_REMOVED + reason, records)

    def miss(self, batches: int) -> None:
        self._add(MISSING_BATCHES, batches)

    def dropped_by_client(self, records: int) -> None:
        self._add(DROPPED_BY_CLIENTS, records)

    def removed(self) -> int:
        return sum(self._by_reason(_REMOVED).values())

    def take_changes(self) -> dict[str, int]:
        changed = {name: self._counts[name] for name in self._changed}
        self._changed = set()
        return changed

    def change_all(self) -> None:
        self._changed.update(self._counts)

    def _by_reason(self, prefix: str) -> dict[str, int]:
        return {
            name.removeprefix(prefix): count for name, count in sorted(self._counts.items()) if name.startswith(prefix)
        }

    def shown(self) -> dict[str, Any]:
        """The ledger as status and every export carry it."""
        return {
            "received": self[RECEIVED],
            "counted": self[COUNTED],
            "duplicates": self[DUPLICATES],
            "rejected": self._by_reason(_REJECTED),
            "removed": self._by_reason(_REMOVED),
            "missing_batches": self[MISSING_BATCHES],
            "dropped_by_clients": self[DROPPED_BY_CLIENTS],
        }
