"""How much slower the same model is under other conditions: when the device is hot, on battery, on other hardware.

Only like is compared with like: one model at one version with itself. What is usual is the coolest state there is for
heat, the mains for power, and what most calls ran on for hardware; where several are asked for together, what most
calls had. Where nobody knew the condition there is nothing to compare.

A difference is *told* when chance is no explanation and it matters: both sides have at least `ENOUGH` calls, the 95 %
intervals of both medians lie apart, and the medians differ by a tenth or more. The interval of a median needs no
assumption about the latencies: it lies between the values at the ranks n/2 ± 0.98·√n.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.conditions import UNKNOWN
from xybridd.core.grouping import OF_CALL, OF_CONDITION, Group, group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xybridd.core.histogram import Histogram
    from xybridd.core.minute import AppMinute

ENOUGH = 30
MATTERS = 1.1

_COOLEST_FIRST = ("normal", "warm", "hot", "critical")


class Comparison(msgspec.Struct, frozen=True):
    """One model under one condition beside itself as usual; ``values`` and ``usual`` are in the conditions' order.

    ``around``: the other dimensions that were asked for, by name. ``times``: the median as a multiple of the usual one.
    ``told``: it is not chance, and matters.
    """

    around: dict[str, str]
    model: str
    version: str
    values: tuple[str, ...]
    usual: tuple[str, ...]
    calls: int
    usual_calls: int
    p50_ms: float
    usual_p50_ms: float
    times: float
    told: bool

    @property
    def lost_ms(self) -> float:
        """By how much all its calls together took longer (or, negative, less long) than usual."""
        return (self.p50_ms - self.usual_p50_ms) * self.calls


def compare(minutes: Iterable[AppMinute], by: Sequence[str]) -> list[Comparison]:
    """Every model under each condition but its usual one, that which cost most time first.

    ``by``: dimensions of `grouping`, at least one of them a condition.
    """
    conditions = [each for each in by if each in OF_CONDITION]
    others = [each for each in by if each not in OF_CONDITION and each not in OF_CALL]
    same: dict[tuple[str, ...], dict[tuple[str, ...], Group]] = {}
    for one in group(minutes, (*others, *OF_CALL, *conditions)):
        like, values = one.key[: -len(conditions)], one.key[-len(conditions) :]
        if one.latency is not None and one.latency.count and UNKNOWN not in values:
            same.setdefault(like, {})[values] = one
    found = []
    for like, under in same.items():
        usual = _usual(conditions, under)
        if usual is not None:
            found += [_compared(others, like, values, usual, under) for values in under if values != usual]
    return sorted(found, key=lambda one: -one.lost_ms)


def _usual(conditions: Sequence[str], under: Mapping[tuple[str, ...], Group]) -> tuple[str, ...] | None:
    if list(conditions) == ["power"]:
        return ("ac",) if ("ac",) in under else None
    if list(conditions) == ["thermal"]:
        for least in (ENOUGH, 1):
            for state in _COOLEST_FIRST:
                if (state,) in under and (under[state,].calls or 0) >= least:
                    return (state,)
        return None
    return max(under, key=lambda values: under[values].calls or 0)


def _compared(
    others: Sequence[str],
    like: tuple[str, ...],
    values: tuple[str, ...],
    usual: tuple[str, ...],
    under: Mapping[tuple[str, ...], Group],
) -> Comparison:
    *around, model, version = like
    here, there = under[values].latency, under[usual].latency
    assert here is not None and there is not None  # noqa: PT018, S101
    p50, usual_p50 = here.quantile(0.5), there.quantile(0.5)
    times = p50 / usual_p50 if usual_p50 else 1.0
    enough = min(here.count, there.count) >= ENOUGH
    matters = times >= MATTERS or times <= 1 / MATTERS
    return Comparison(
        dict(zip(others, around, strict=True)), model, version, values, usual, here.count, there.count, p50, usual_p50,
        times, enough and matters and _apart(here, there),
    )  # fmt: skip


def _apart(one: Histogram, other: Histogram) -> bool:
    low, high = _median_between(one)
    other_low, other_high = _median_between(other)
    return low > other_high or high < other_low


def _median_between(values: Histogram) -> tuple[float, float]:
    """The 95 % interval of the median."""
    beside = 0.98 / sqrt(values.count)
    return values.quantile(max(0.0, 0.5 - beside)), values.quantile(min(1.0, 0.5 + beside))


def times_of(comparisons: Iterable[Comparison], key: Mapping[str, str], conditions: Sequence[str]) -> float | None:
    """How many times as slow as usual the calls under a key of `grouping` are: over its models, by their calls.

    Of models with enough calls on both sides; the geometric mean, since these are ratios. None: there are none.
    """
    wanted = tuple(key[each] for each in conditions)
    calls, sums, usual = 0, 0.0, False
    for one in comparisons:
        mine = {**one.around, "model": one.model, "version": one.version}
        if any(mine[name] != value for name, value in key.items() if name in mine):
            continue
        if one.usual == wanted and one.usual_calls >= ENOUGH:
            usual = True
        if one.values == wanted and min(one.calls, one.usual_calls) >= ENOUGH and one.times:
            calls += one.calls
            sums += one.calls * log(one.times)
    if calls:
        return exp(sums / calls)
    return 1.0 if usual else None
