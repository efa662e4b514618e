"""A minute as `stats.minutes` answers with it, and as whoever asked reads it.

Histograms stand as in an export, ``counts`` dense from ``offset`` on, with their sum and extremes beside, so that they
merge without loss in any language.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xybridd.core.conditions import Conditions
from xybridd.core.histogram import SCALE, Histogram
from xybridd.core.minute import AppMinute, ErrorMinute, Minute, ModelMinute
from xybridd.core.stats import Amount, Rate, StatsTotals


class HistogramJson(msgspec.Struct, frozen=True):
    """Milliseconds. ``counts[i]`` values are in bucket ``offset + i`` of OpenTelemetry's scale ``scale``."""

    count: int
    sum: float
    min: float
    max: float
    scale: int
    zero_count: int
    offset: int
    counts: list[int]


class ConditionJson(msgspec.Struct, frozen=True):
    thermal_state: str
    power_source: str
    hardware_used: str
    latency_ms: HistogramJson


class StatsJson(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sums of what producers said beside the latency."""

    rates: dict[str, Rate] = {}
    amounts: dict[str, Amount] = {}
    names: dict[str, dict[str, int]] = {}
    time_to_first_token_ms: HistogramJson | None = None


class ModelJson(msgspec.Struct, frozen=True, omit_defaults=True):
    model_id: str
    version: str
    calls: int
    errors: int
    latency_ms: HistogramJson | None = None
    stats: StatsJson | None = None
    conditions: list[ConditionJson] = []
    cancelled: int = 0


class MinuteJson(msgspec.Struct, frozen=True):
    """``open``: it still goes on, and is not among those that were closed."""

    session_id: str
    app: str
    app_version: str
    started_at_ms: int
    ended_at_ms: int
    models: list[ModelJson]
    errors: list[ErrorMinute]
    open: bool = False


class MinutesResult(msgspec.Struct, frozen=True):
    """What `stats.minutes` answers. ``next``: the `after` of the next page; None on the last one."""

    minutes: list[MinuteJson]
    next: tuple[int, int] | None


def to_json(given: AppMinute, *, still_open: bool = False) -> MinuteJson:
    minute = given.minute
    return MinuteJson(
        minute.session_id,
        given.app,
        given.app_version,
        minute.started_at_ms,
        minute.ended_at_ms,
        [_model_to_json(model) for model in minute.models],
        minute.errors,
        still_open,
    )


def from_json(given: MinuteJson) -> AppMinute:
    models = [_model_from_json(model) for model in given.models]
    minute = Minute(given.session_id, given.started_at_ms, given.ended_at_ms, models, list(given.errors))
    return AppMinute(given.app, given.app_version, minute, given.open)


def _model_to_json(model: ModelMinute) -> ModelJson:
    stats, conditions = StatsTotals.from_bytes(model.stats), Conditions.from_bytes(model.conditions)
    return ModelJson(
        model.model_id,
        model.version,
        model.calls,
        model.errors,
        _shown(Histogram.from_bytes(model.latency)),
        StatsJson(stats.rates, stats.amounts, stats.names, _shown(stats.time_to_first_token_ms))
        if model.stats
        else None,
        [
            ConditionJson(*condition, latency_ms=shown)
            for condition, latencies in conditions.latencies.items()
            if (shown := _shown(latencies)) is not None
        ],
        model.cancelled,
    )


def _model_from_json(model: ModelJson) -> ModelMinute:
    stats, conditions = StatsTotals(), Conditions()
    if model.stats is not None:
        stats.rates, stats.amounts, stats.names = model.stats.rates, model.stats.amounts, model.stats.names
        stats.time_to_first_token_ms = _read(model.stats.time_to_first_token_ms)
    for each in model.conditions:
        key = (each.thermal_state, each.power_source, each.hardware_used)
        conditions.latencies[key] = _read(each.latency_ms)
    latency = _read(model.latency_ms).to_bytes()
    return ModelMinute(
        model.model_id, model.version, model.calls, model.errors, latency, stats.to_bytes(), conditions.to_bytes(),
        model.cancelled,
    )  # fmt: skip


def _shown(histogram: Histogram) -> HistogramJson | None:
    if not histogram.count:
        return None
    offset, counts = histogram.dense()
    return HistogramJson(
        histogram.count, histogram.sum, histogram.min, histogram.max, SCALE, histogram.zero_count, offset, counts
    )


def _read(given: HistogramJson | None) -> Histogram:
    histogram = Histogram()
    if given is not None:
        histogram.count, histogram.zero_count, histogram.sum = given.count, given.zero_count, given.sum
        histogram.min, histogram.max = given.min, given.max
        histogram.buckets = {given.offset + at: count for at, count in enumerate(given.counts) if count}
    return histogram


def read_result(answer: Any) -> MinutesResult:
    """A decoded answer as typed objects. Raises msgspec.ValidationError when it has another shape."""
    return msgspec.convert(answer, MinutesResult)
