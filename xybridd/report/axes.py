"""Where a value lies on a chart: time across, values up."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.core.report.figures import Report
    from xybridd.report.text import Clock

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS

_TICKS_MS = tuple(
    [minutes * _MINUTE_MS for minutes in (1, 2, 5, 10, 15, 30)]
    + [hours * _HOUR_MS for hours in (1, 2, 3, 6, 12)]
    + [days * _DAY_MS for days in (1, 2, 5, 10, 30, 90, 365)]
)
#: A week and the hour that it begins in, on a phone.
_MOST_TICKS = 7.2

#: Past such a spread of values a linear axis would show one of them only.
_LOG_FROM = 10.0

_MOST_MARKS = 5


class Tick(NamedTuple):
    """``share``: where it lies, 0 to 1 of the axis."""

    share: float
    label: str


class TimeAxis:
    """From the step that holds the report's beginning to the end of its last."""

    def __init__(self, report: Report, clock: Clock) -> None:
        self.step_ms = report.step_ms
        self.start_ms = self._step_of(report.since_ms, clock.offset_ms)
        self.end_ms = max(self._step_of(report.until_ms - 1, clock.offset_ms) + self.step_ms, self.start_ms + 1)
        self.clock = clock

    def _step_of(self, at_ms: int, offset_ms: int) -> int:
        return (at_ms + offset_ms) // self.step_ms * self.step_ms - offset_ms

    @property
    def step_share(self) -> float:
        return self.step_ms / (self.end_ms - self.start_ms)

    def share(self, at_ms: int) -> float:
        """Of the beginning of a step."""
        return min(1.0, max(0.0, (at_ms - self.start_ms) / (self.end_ms - self.start_ms)))

    def middle(self, at_ms: int) -> float:
        return min(1.0, self.share(at_ms) + self.step_share / 2)

    def follows(self, before_ms: int, after_ms: int) -> bool:
        """Whether nothing lies between two steps."""
        return after_ms - before_ms <= self.step_ms

    def ticks(self) -> list[Tick]:
        length = self.end_ms - self.start_ms
        every = next((each for each in _TICKS_MS if length / each <= _MOST_TICKS), _TICKS_MS[-1])
        offset = self.clock.offset_ms
        first = ceil((self.start_ms + offset) / every) * every - offset
        named = self.clock.day if every >= _DAY_MS else self._hour
        return [Tick(self.share(at_ms), named(at_ms)) for at_ms in range(first, self.end_ms, every)]

    def _hour(self, at_ms: int) -> str:
        """The day's name stands where the day begins."""
        midnight = (at_ms + self.clock.offset_ms) % _DAY_MS == 0
        return self.clock.day(at_ms) if midnight else self.clock.clock(at_ms)


class ValueAxis:
    """Linear from zero; logarithmic where the values spread too far for that."""

    def __init__(self, values: list[float], *, may_be_log: bool = False, top: float | None = None) -> None:
        positive = [value for value in values if value > 0]
        highest = top or max(positive, default=1.0)
        lowest = min(positive, default=highest)
        self.log = may_be_log and highest / lowest > _LOG_FROM
        if self.log:
            self.bottom, self.top = _nice_below(lowest), _nice_above(highest)
            self.values = _marks(self.bottom, self.top)
        else:
            every = _nice_step(highest / 3)
            self.bottom, self.top = 0.0, every * ceil(highest / every - 1e-9) if top is None else top
            self.values = [every * number for number in range(1, floor(self.top / every + 1e-9) + 1)]

    def ticks(self, unit: Callable[[float], str]) -> list[tuple[float, str]]:
        return [(value, unit(value)) for value in self.values]

    def share(self, value: float) -> float:
        """0 at the bottom, 1 at the top."""
        if self.log:
            value = max(value, self.bottom)
            return min(1.0, (log10(value) - log10(self.bottom)) / (log10(self.top) - log10(self.bottom)))
        return min(1.0, max(0.0, value / self.top))


def _nice_step(raw: float) -> float:
    power = 10.0 ** floor(log10(raw))
    return next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw * 0.999)


def _nice_above(value: float) -> float:
    power = 10.0 ** floor(log10(value))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= value * 0.999)


def _nice_below(value: float) -> float:
    power = 10.0 ** floor(log10(value))
    return max(power * each for each in (1, 2, 5) if power * each <= value * 1.001)


def _marks(bottom: float, top: float) -> list[float]:
    """1, 2 and 5 of each power of ten; the powers alone where that would be too many."""
    powers = [10.0**power for power in range(floor(log10(bottom)), ceil(log10(top)) + 1)]
    for steps in ((1, 2, 5), (1,)):
        found = [power * each for power in powers for each in steps if bottom * 1.001 < power * each <= top * 1.001]
        if len(found) <= _MOST_MARKS:
            break
    return found[-_MOST_MARKS:]
