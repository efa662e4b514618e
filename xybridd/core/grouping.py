"""Minutes added up by whatever somebody asks for: by model, by app, by the hour, by how hot the device was.

A dimension belongs to one of four kinds, and what a group can tell follows from the kinds of its dimensions:

- of the *session* (``app``, ``app_version``, ``session``) and of *time* (``minute``, ``hour``, ``day``): everything;
- of the *call* (``model``, ``version``): calls and latency, stats, and the errors laid at that model's door;
- of the *condition* (``thermal``, ``power``, ``hardware``): calls and latency alone, since an error and a rate are not
  told apart by it;
- of the *error* (``category``): errors alone, each with the model that it named first.

Histograms merge, so percentiles of a group are those of all its calls and not averages of averages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xybridd.core.conditions import Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.minute import HOUR_MS, MINUTE_MS
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xybridd.core.minute import AppMinute, Minute, ModelMinute

DAY_MS = 24 * HOUR_MS

OF_SESSION = ("app", "app_version", "session")
OF_TIME = ("minute", "hour", "day")
OF_CALL = ("model", "version")
OF_CONDITION = ("thermal", "power", "hardware")
OF_ERROR = ("category",)
DIMENSIONS = (*OF_CALL, *OF_SESSION, *OF_CONDITION, *OF_ERROR, *OF_TIME)

_STEPS_MS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}


class Group(msgspec.Struct):
    """What was recorded under one key; ``key[i]`` is the value of the i-th dimension asked for.

    ``errors``, ``cancelled`` and ``stats`` are None where they cannot be told apart by the dimensions, ``calls`` and
    ``latency`` (milliseconds) where only errors can. Times are UTC milliseconds; as part of a key, the beginning of a
    step.
    """

    key: tuple[str, ...]
    first_ms: int
    last_ms: int
    sessions: set[str]
    calls: int | None = None
    latency: Histogram | None = None
    errors: int | None = None
    stats: StatsTotals | None = None
    cancelled: int | None = None

    @property
    def error_rate(self) -> float | None:
        """Errors in 100 attempts, an attempt being a call or an error; None where nobody can tell."""
        if self.calls is None or self.errors is None or not self.calls + self.errors:
            return None
        return 100 * self.errors / (self.calls + self.errors)


def check_dimensions(by: Sequence[str]) -> str | None:
    """Why these cannot be asked for together; None when they can."""
    unknown = [each for each in by if each not in DIMENSIONS]
    if unknown:
        return f"there is no {unknown[0]!r} to group by; there are {', '.join(DIMENSIONS)}"
    if len(set(by)) != len(by):
        return "each can be grouped by once"
    both = set(by) & set(OF_ERROR) and (set(by) & set(OF_CONDITION) or "version" in by)
    if both:
        return "errors are not told apart by version, heat, power or hardware; leave category or those out"
    return None


def group(minutes: Iterable[AppMinute], by: Sequence[str], midnight: Callable[[int], int] | None = None) -> list[Group]:
    """The groups, those with the most calls (or errors) first, by time in their order.

    ``midnight``: the beginning of the day that a time lies in; without it, days are those of UTC.
    Raises ValueError when `check_dimensions` finds fault.
    """
    if fault := check_dimensions(by):
        raise ValueError(fault)
    grouping = _Grouping(by, midnight)
    for each in minutes:
        grouping.add(each)
    found = list(grouping.groups.values())
    if time_at := [at for at, dimension in enumerate(by) if dimension in OF_TIME]:
        found.sort(key=lambda one: (int(one.key[time_at[0]]), -(one.calls or one.errors or 0)))
    else:
        found.sort(key=lambda one: (-(one.calls or 0), -(one.errors or 0), one.key))
    return found


class _Grouping:
    def __init__(self, by: Sequence[str], midnight: Callable[[int], int] | None) -> None:
        self.groups: dict[tuple[str, ...], Group] = {}
        self._by = by
        self._midnight = midnight
        self._conditions = bool(set(by) & set(OF_CONDITION))
        self._calls = bool(set(by) & set(OF_CALL))
        self._errors_only = bool(set(by) & set(OF_ERROR))

    def add(self, given: AppMinute) -> None:
        """One minute to the groups that it belongs to."""
        minute = given.minute
        values = {"app": given.app, "app_version": given.app_version, "session": minute.session_id}
        values |= {step: str(self._began_ms(step, minute.started_at_ms)) for step in OF_TIME if step in self._by}
        if self._errors_only:
            for error in minute.errors:
                _add_errors(
                    self._found(minute, values, category=error.category, model=error.model_id or ""), error.count
                )
            return
        for model in minute.models:
            self._add_model(minute, values | {"model": model.model_id, "version": model.version}, model)
        if not self._calls and not self._conditions:
            for error in minute.errors:
                _add_errors(self._found(minute, values), error.count)

    def _add_model(self, minute: Minute, values: dict[str, str], model: ModelMinute) -> None:
        if self._conditions:
            for (thermal, power, hardware), latencies in Conditions.from_bytes(model.conditions).latencies.items():
                _add_calls(self._found(minute, values, thermal=thermal, power=power, hardware=hardware), latencies)
            return
        one = self._found(minute, values)
        _add_calls(one, Histogram.from_bytes(model.latency))
        if one.stats is None:
            one.stats = StatsTotals()
        one.stats.merge(StatsTotals.from_bytes(model.stats))
        one.cancelled = (one.cancelled or 0) + model.cancelled
        _add_errors(one, model.errors if self._calls else 0)

    def _found(self, minute: Minute, values: dict[str, str], **more: str) -> Group:
        values = values | more
        key = tuple(values[dimension] for dimension in self._by)
        one = self.groups.get(key)
        if one is None:
            one = self.groups[key] = Group(key, minute.started_at_ms, minute.ended_at_ms, set())
        one.first_ms, one.last_ms = min(one.first_ms, minute.started_at_ms), max(one.last_ms, minute.ended_at_ms)
        one.sessions.add(minute.session_id)
        return one

    def _began_ms(self, step: str, at_ms: int) -> int:
        if step == "day" and self._midnight is not None:
            return self._midnight(at_ms)
        return at_ms // _STEPS_MS[step] * _STEPS_MS[step]


def _add_calls(one: Group, latencies: Histogram) -> None:
    if one.latency is None:
        one.latency = Histogram()
    one.latency.merge(latencies)
    one.calls = one.latency.count


def _add_errors(one: Group, count: int) -> None:
    one.errors = (one.errors or 0) + count


def slowed(groups: Iterable[Group]) -> Iterator[tuple[Group, float | None]]:
    """Each group with its median as a multiple of the median of the one with the most calls; None where unknown."""
    listed = [one for one in groups if one.latency is not None and one.latency.count]
    if not listed:
        return
    usual = max(listed, key=lambda one: one.calls or 0).latency
    middle = usual.quantile(0.5) if usual is not None else 0.0
    for one in listed:
        yield one, (one.latency.quantile(0.5) / middle if one.latency is not None and middle else None)
