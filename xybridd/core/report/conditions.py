"""How the latency of a model changes with heat, power source and hardware: the question that only this can answer.

A state is compared with the usual one of its dimension by their medians. Two things could mislead, and are said:

- *Too few calls.* The median of a handful is an accident, so below `ENOUGH` calls there is no factor.
- *Something else changed too.* A device that is hot may have moved the model from the GPU to the CPU, or lost its
  charger. So beside the plain factor stands the one among calls that were alike in the two other dimensions, as the
  mean of what each such group says, weighted by its calls.

A difference within `ALIKE` is none: each median is right within 1.1 %.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING

from xybridd.core.conditions import UNKNOWN, Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.report.figures import ConditionFigures, DimensionFigures, Finding, latency_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.report.figures import ModelFigures

ENOUGH = 30
ALIKE = 0.05

#: In the order of the key of `Conditions`; the states of each from best to worst, as they are shown.
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "thermal_state": ("normal", "warm", "hot", "critical"),
    "power_source": ("ac", "battery"),
    "hardware_used": ("npu", "gpu", "cpu"),
}

#: How a state reads behind a verb: “takes 1.8 × as long when hot”.
_WHEN = {
    "normal": "when cool", "warm": "when warm", "hot": "when hot", "critical": "when critically hot",
    "ac": "on mains power", "battery": "on battery", "npu": "on the NPU", "gpu": "on the GPU", "cpu": "on the CPU",
}  # fmt: skip


def when(value: str) -> str:
    return _WHEN.get(value, f"in the state {value}")


def dimensions_of(conditions: Conditions) -> list[DimensionFigures]:
    return [_dimension(conditions, at, name) for at, name in enumerate(DIMENSIONS)]


def _dimension(conditions: Conditions, at: int, name: str) -> DimensionFigures:
    merged: dict[str, Histogram] = {}
    for key, latencies in conditions.latencies.items():
        if latencies.count:
            merged.setdefault(key[at], Histogram()).merge(latencies)
    usual = _usual(merged, name)
    order = (*DIMENSIONS[name], *sorted(set(merged) - {*DIMENSIONS[name], UNKNOWN}), UNKNOWN)
    shown = [_state(conditions, at, merged, value, usual) for value in order if value in merged]
    return DimensionFigures(name, usual, shown)


def _usual(merged: dict[str, Histogram], name: str) -> str | None:
    """What the others are compared with: the best of heat and power, of hardware what is used most."""
    known = [value for value in DIMENSIONS[name] if value in merged and merged[value].count >= ENOUGH]
    if name == "hardware_used":
        return max(known, key=lambda value: merged[value].count, default=None)
    return known[0] if known else None


def _state(
    conditions: Conditions, at: int, merged: dict[str, Histogram], value: str, usual: str | None
) -> ConditionFigures:
    latencies = merged[value]
    enough = latencies.count >= ENOUGH
    factor = alike = None
    if enough and usual is not None and value not in {usual, UNKNOWN}:
        factor = _ratio(latencies, merged[usual])
        alike = _factor_alike(conditions, at, value, usual)
    latency = latency_of(latencies)
    assert latency is not None  # noqa: S101 - states without calls are not among `merged`
    words = _words(value, usual, latencies.count, factor, alike)
    return ConditionFigures(value, latencies.count, latency, enough, factor, alike, words)


def _ratio(of: Histogram, to: Histogram) -> float | None:
    middle = to.quantile(0.5)
    return round(of.quantile(0.5) / middle, 3) if middle else None


def _factor_alike(conditions: Conditions, at: int, value: str, usual: str) -> float | None:
    """None when no two groups of calls are alike in everything else and large enough."""
    logs = weights = 0.0
    for key, latencies in conditions.latencies.items():
        if key[at] != value or latencies.count < ENOUGH:
            continue
        other = conditions.latencies.get((*key[:at], usual, *key[at + 1 :]))  # type: ignore[arg-type]
        if other is None or other.count < ENOUGH or not (ratio := _ratio(latencies, other)):
            continue
        weight = min(latencies.count, other.count)
        logs += weight * log(ratio)
        weights += weight
    return round(exp(logs / weights), 3) if weights else None


def _words(value: str, usual: str | None, calls: int, factor: float | None, alike: float | None) -> str:
    if value == UNKNOWN:
        return "not known"
    if calls < ENOUGH:
        return f"too few calls to tell ({calls:,} of {ENOUGH})"
    if usual is None or value == usual:
        return "the others are compared with this" if value == usual else "nothing to compare with"
    if factor is None:
        return "cannot be compared"
    return "; ".join([factor_words(factor), *_alike_words(factor, alike)])


def _alike_words(factor: float, alike: float | None) -> list[str]:
    """Nothing where it says the same as the plain factor."""
    if alike is None or abs(log(alike / factor)) <= ALIKE:
        return []
    return [f"{factor_words(alike).removesuffix(' as long')} with all else alike"]


def factor_words(factor: float) -> str:
    """``1.8 × as long``; no difference where it is within what can be told."""
    if abs(factor - 1) <= ALIKE:
        return "as fast"
    return f"{factor:.1f} × as long" if factor >= 1.95 else f"{factor:.2f} × as long"


def findings(models: Iterable[ModelFigures]) -> list[Finding]:
    """Of each dimension the state that changes most, of the model it changes most for."""
    models = list(models)
    found = []
    for dimension in DIMENSIONS:
        most: tuple[float, Finding] | None = None
        for model in models:
            for state, usual in _compared(model, dimension):
                if state.factor is None or (most is not None and abs(log(state.factor)) <= most[0]):
                    continue
                most = abs(log(state.factor)), _finding(model, dimension, state, usual)
        if most is not None:
            found.append(most[1])
    return found


def _compared(model: ModelFigures, dimension: str) -> Iterable[tuple[ConditionFigures, ConditionFigures]]:
    for each in model.dimensions:
        if each.dimension != dimension or each.compared_with is None:
            continue
        usual = next(state for state in each.states if state.value == each.compared_with)
        yield from ((state, usual) for state in each.states if state.factor)


def _finding(model: ModelFigures, dimension: str, state: ConditionFigures, usual: ConditionFigures) -> Finding:
    factor = state.factor or 1.0
    if abs(factor - 1) <= ALIKE:
        words = f"is as fast {when(state.value)} as {when(usual.value)}"
    else:
        words = f"takes {factor_words(factor)} {when(state.value)} as {when(usual.value)}"
    words = "; ".join([words, *_alike_words(factor, state.factor_alike)])
    return Finding(dimension, model.model_id, model.version, state.value, factor, words)
