"""The minute that a session is in: what its models and errors were when it began, for those touched since.

Closing it takes the difference. What was touched by nothing costs nothing, and a record costs no more than a look-up
for a model that is touched for the first time in a minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xybridd.core.conditions import Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.minute import ErrorMinute, Minute, ModelMinute
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xybridd.core.session import ErrorEntry, ModelEntry


class _Was(NamedTuple):
    calls: int
    errors: int
    latency: Histogram
    stats: StatsTotals
    conditions: Conditions
    cancelled: int = 0


class OpenMinute:
    def __init__(self) -> None:
        self._started_ms: int | None = None
        self._last_ms = 0
        self._models: dict[ModelEntry, _Was] = {}
        self._errors: dict[ErrorEntry, int] = {}

    def __bool__(self) -> bool:
        """Whether anything was touched."""
        return self._started_ms is not None

    def begin(self, now_ms: int) -> None:
        """Something is about to be recorded."""
        if self._started_ms is None:
            self._started_ms = now_ms
        self._last_ms = now_ms

    def mend(self, corrected: Callable[[int], int]) -> None:
        """Its times were written by a wrong clock."""
        if self._started_ms is not None:
            self._started_ms, self._last_ms = corrected(self._started_ms), corrected(self._last_ms)

    def touch_model(self, entry: ModelEntry) -> None:
        """Before it is changed."""
        if entry not in self._models:
            self._models[entry] = _Was(
                entry.call_count, entry.error_count, entry.latency.copy(), entry.stats.copy(), entry.conditions.copy(),
                entry.cancelled_count,
            )  # fmt: skip

    def touch_error(self, entry: ErrorEntry) -> None:
        """Before it is counted."""
        self._errors.setdefault(entry, entry.count)

    def reopen(self, closed: Minute, models: Iterable[ModelEntry], errors: Iterable[ErrorEntry]) -> None:
        """After an end that closed no minute: `closed` is the sum of those that were; the rest is this one's."""
        self._started_ms = self._last_ms = closed.ended_at_ms
        sums = {(each.model_id, each.version): each for each in closed.models}
        for entry in models:
            was = sums.get((entry.model_id, entry.version)) or ModelMinute(
                entry.model_id, entry.version, 0, 0, Histogram().to_bytes()
            )
            if (was.calls, was.errors, was.cancelled) != (entry.call_count, entry.error_count, entry.cancelled_count):
                self._models[entry] = _Was(
                    was.calls,
                    was.errors,
                    Histogram.from_bytes(was.latency),
                    StatsTotals.from_bytes(was.stats),
                    Conditions.from_bytes(was.conditions),
                    was.cancelled,
                )
        # Errors of one category and model stand in one sum: what is closed is taken off them in their order.
        left = {(each.category, each.model_id): each.count for each in closed.errors}
        for error in errors:
            key = (error.category.value, error.model_id)
            taken = min(left.get(key, 0), error.count)
            left[key] = left.get(key, 0) - taken
            if taken != error.count:
                self._errors[error] = taken

    def close(self, session_id: str, over_ms: int | None) -> Minute | None:
        """What was added since it began; None when nothing was. A new one begins with the next record.

        ``over_ms``: when it is over; None means with the last record.
        """
        minute = self.so_far(session_id, over_ms)
        self._started_ms, self._models, self._errors = None, {}, {}
        return minute

    def so_far(self, session_id: str, over_ms: int | None) -> Minute | None:
        """What `close` would return now; nothing changes."""
        if self._started_ms is None:
            return None
        ended_ms = self._last_ms if over_ms is None else over_ms
        # The wall clock may have been set back meanwhile.
        minute = Minute(session_id, self._started_ms, max(ended_ms, self._started_ms))
        for entry, was in self._models.items():
            minute.models.append(
                ModelMinute(
                    entry.model_id,
                    entry.version,
                    entry.call_count - was.calls,
                    entry.error_count - was.errors,
                    entry.latency.since(was.latency).to_bytes(),
                    entry.stats.since(was.stats).to_bytes(),
                    entry.conditions.since(was.conditions).to_bytes(),
                    entry.cancelled_count - was.cancelled,
                )
            )
        grown: dict[tuple[str, str | None], int] = {}
        for error, count in self._errors.items():
            key = (error.category.value, error.model_id)
            grown[key] = grown.get(key, 0) + error.count - count
        minute.errors = [ErrorMinute(category, model_id, count) for (category, model_id), count in grown.items()]
        return minute if minute.models or minute.errors else None
