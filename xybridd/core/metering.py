"""Running totals since the daemon's start, as Prometheus wants them: only ever growing, of bounded number.

They take each minute as it is closed, and when somebody looks, the open ones on top. A minute leaves the one and comes
to the other within one step of the event loop, so that no total falls.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from xybridd.core.conditions import UNKNOWN, Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.minute import AppMinute, ModelMinute

OTHER = "other"


class ModelKey(NamedTuple):
    app: str
    model_id: str
    version: str


class ErrorKey(NamedTuple):
    """``model_id`` is empty for an error that named none."""

    app: str
    category: str
    model_id: str


class ModelTotals:
    __slots__ = ("calls", "conditions", "stats")

    def __init__(self) -> None:
        self.calls = 0
        self.conditions = Conditions()
        self.stats = StatsTotals()

    def add(self, model: ModelMinute) -> None:
        self.calls += model.calls
        conditions = Conditions.from_bytes(model.conditions)
        if not conditions.latencies:
            conditions.latencies[UNKNOWN, UNKNOWN, UNKNOWN] = Histogram.from_bytes(model.latency)
        self.conditions.merge(conditions)
        self.stats.merge(StatsTotals.from_bytes(model.stats))

    def copy(self) -> ModelTotals:
        made = ModelTotals()
        made.calls, made.conditions, made.stats = self.calls, self.conditions.copy(), self.stats.copy()
        return made


class Totals:
    """``most``: so many models, and so many kinds of errors, are told apart; what comes later counts as ``other``."""

    def __init__(self, most: int) -> None:
        self.models: dict[ModelKey, ModelTotals] = {}
        self.errors: Counter[ErrorKey] = Counter()
        self._most = most

    def add(self, given: AppMinute) -> None:
        for model in given.minute.models:
            if model.calls:
                self._of_model(ModelKey(given.app, model.model_id, model.version)).add(model)
        for error in given.minute.errors:
            key = ErrorKey(given.app, error.category, error.model_id or "")
            if key not in self.errors and len(self.errors) >= self._most:
                # There are eight categories, so that these are bounded as well.
                key = ErrorKey(OTHER, error.category, OTHER)
            self.errors[key] += error.count

    def with_open(self, minutes: Iterable[AppMinute]) -> Totals:
        """These and what was not closed yet; this one stays as it is."""
        made = Totals(self._most)
        made.models = {key: totals.copy() for key, totals in self.models.items()}
        made.errors = self.errors.copy()
        for minute in minutes:
            made.add(minute)
        return made

    def _of_model(self, key: ModelKey) -> ModelTotals:
        if key not in self.models and len(self.models) >= self._most:
            key = ModelKey(OTHER, OTHER, "")
        return self.models.setdefault(key, ModelTotals())
