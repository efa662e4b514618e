"""A row of the table: what was measured, what it is held against, and what it should be."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Floor(NamedTuple):
    """What the same run measured without us: the least that it could cost, or what a peer costs."""

    what: str
    value: float


class Target(NamedTuple):
    """``of`` the measured value itself, or of its ratio to the floor."""

    side: Literal["most", "least"]
    limit: float
    of: Literal["value", "ratio"] = "value"


class Row(NamedTuple):
    what: str
    value: float
    unit: str
    floor: Floor | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor.value if self.floor is not None and self.floor.value else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        if self.target is None:
            return None
        value = self.value if self.target.of == "value" else self.ratio
        if value is None:
            return None
        return value <= self.target.limit if self.target.side == "most" else value >= self.target.limit

    def cells(self) -> tuple[str, ...]:
        """As the table shows it: what, measured, floor, ratio, target, met."""
        floor = "" if self.floor is None else f"{_figure(self.floor.value)} {self.floor.what}"
        ratio = "" if self.ratio is None else f"{_figure(self.ratio)} ×"
        met = {None: "", True: "yes", False: "no"}[self.met]
        return (self.what, f"{_figure(self.value)} {self.unit}", floor, ratio, self._target(), met)

    def _target(self) -> str:
        if self.target is None:
            return ""
        sign = "≤" if self.target.side == "most" else "≥"
        unit = self.unit if self.target.of == "value" else "× floor"
        return f"{sign} {_figure(self.target.limit)} {unit}"

    def as_json(self) -> dict[str, Any]:
        floor = None if self.floor is None else {"what": self.floor.what, "value": self.floor.value}
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "floor": floor,
            "ratio": self.ratio,
            "target": self._target() or None,
            "met": self.met,
        }


def _figure(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def at_most(limit: float) -> Target:
    return Target("most", limit)


def at_least(limit: float) -> Target:
    return Target("least", limit)


def at_most_times_floor(limit: float) -> Target:
    return Target("most", limit, "ratio")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
