"""Minutes added up in one pass: each is decoded once, and forgotten.

A report of a week reads thousands of minutes and asks a dozen questions of them; grouping them anew for each
(`xybridd.core.grouping`) would decode every histogram a dozen times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.core.conditions import Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from xybridd.core.minute import AppMinute, ModelMinute


class ModelSums:
    """One model at one version; ``steps`` are its latencies by the beginning of each step of time."""

    __slots__ = ("calls", "cancelled", "conditions", "errors", "latency", "stats", "steps")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.cancelled = 0
        self.latency = Histogram()
        self.stats = StatsTotals()
        self.conditions = Conditions()
        self.steps: dict[int, Histogram] = {}

    def copy(self) -> ModelSums:
        made = ModelSums()
        made.calls, made.errors, made.cancelled = self.calls, self.errors, self.cancelled
        made.latency, made.stats, made.conditions = self.latency.copy(), self.stats.copy(), self.conditions.copy()
        made.steps = {at_ms: latencies.copy() for at_ms, latencies in self.steps.items()}
        return made


class StepSums:
    __slots__ = ("calls", "errors", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.input_tokens = 0
        self.output_tokens = 0

    def copy(self) -> StepSums:
        made = StepSums()
        for name in self.__slots__:
            setattr(made, name, getattr(self, name))
        return made


class Sums:
    """``step_ms``: how long a step of time is; ``utc_offset_ms``: of the clock whose whole hours and days they are."""

    def __init__(self, step_ms: int, utc_offset_ms: int = 0) -> None:
        self.step_ms = step_ms
        self.utc_offset_ms = utc_offset_ms
        self.models: dict[tuple[str, str], ModelSums] = {}
        self.steps: dict[int, StepSums] = {}
        self.apps: dict[str, StepSums] = {}
        #: By category, and by the model that the error named first.
        self.errors: dict[tuple[str, str], int] = {}

    def add(self, given: AppMinute) -> None:
        minute = given.minute
        at_ms = self.step_of(minute.started_at_ms)
        step = self.steps.setdefault(at_ms, StepSums())
        app = self.apps.setdefault(given.app, StepSums())
        for model in minute.models:
            stats = self._add_model(model, at_ms)
            for each in (step, app):
                each.calls += model.calls
                for name in ("input_tokens", "output_tokens"):
                    if (amount := stats.amounts.get(name)) is not None:
                        setattr(each, name, getattr(each, name) + amount.total)
        for error in minute.errors:
            key = (error.category, error.model_id or "")
            self.errors[key] = self.errors.get(key, 0) + error.count
            step.errors += error.count
            app.errors += error.count

    def _add_model(self, model: ModelMinute, at_ms: int) -> StatsTotals:
        """What this minute said beside the latency."""
        one = self.models.setdefault((model.model_id, model.version), ModelSums())
        latency, stats = Histogram.from_bytes(model.latency), StatsTotals.from_bytes(model.stats)
        one.calls += model.calls
        one.errors += model.errors
        one.cancelled += model.cancelled
        one.latency.merge(latency)
        one.stats.merge(stats)
        one.conditions.merge(Conditions.from_bytes(model.conditions))
        if latency.count:
            one.steps.setdefault(at_ms, Histogram()).merge(latency)
        return stats

    def step_of(self, at_ms: int) -> int:
        """The beginning of the step that a time lies in."""
        return (at_ms + self.utc_offset_ms) // self.step_ms * self.step_ms - self.utc_offset_ms

    def copy(self) -> Sums:
        made = Sums(self.step_ms, self.utc_offset_ms)
        made.models = {key: one.copy() for key, one in self.models.items()}
        made.steps = {at_ms: step.copy() for at_ms, step in self.steps.items()}
        made.apps = {app: step.copy() for app, step in self.apps.items()}
        made.errors = dict(self.errors)
        return made
