"""Minutes and samples as points of OTLP metrics.

Our histograms are OTLP's exponential ones already, but of milliseconds, and the conventions want seconds. At scale 5 a
division by 1,000 is a shift by ``log2(1000) * 32`` = 318.905 buckets; buckets go as they are, shifted by 319, which
moves each edge by 0.21 %. With the 1.1 % that a bucket of this scale has anyhow, a percentile is within 1.3 %.

What nobody knows is left out: an attribute that would say "unknown", a gauge without a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from xybridd.core import names
from xybridd.core.conditions import Conditions
from xybridd.core.figures import Attributes, inference, known, measured
from xybridd.core.histogram import SCALE, ZERO_THRESHOLD, Histogram
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xybridd.core.minute import Minute, ModelMinute, Sample

#: Buckets between a histogram of milliseconds and the same of seconds.
TO_SECONDS_BUCKETS = 319

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_NS_OF_MS = 1_000_000
_LARGEST_TIME_NS = 2**64 - 1

P = TypeVar("P", NumberDataPoint, HistogramDataPoint, ExponentialHistogramDataPoint)


class _Span(NamedTuple):
    """Nanoseconds since 1970."""

    start: int
    end: int


def attributes(given: Mapping[str, str]) -> list[KeyValue]:
    """Those that say something."""
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in given.items() if value]


class Points:
    """Collects points by metric; metrics are in the order of their first point."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}

    def add_minute(self, minute: Minute) -> None:
        # A session that began and ended within one batch: a delta over no time at all is none, as OTLP sees it.
        ended_at_ms = max(minute.ended_at_ms, minute.started_at_ms + 1)
        span = _Span(_nanoseconds(minute.started_at_ms), _nanoseconds(ended_at_ms))
        for model in minute.models:
            self._add_model(model, span)
        counts: dict[tuple[str, str], int] = {}
        for error in minute.errors:
            kind = names.error_type(error.category), error.model_id or ""
            counts[kind] = counts.get(kind, 0) + error.count
        for (error_type, model_id), count in counts.items():
            around = {names.ERROR_TYPE: error_type, **inference(model_id)}
            self._sum(names.ERRORS, around, count, span)

    def _add_model(self, model: ModelMinute, span: _Span) -> None:
        of_model = inference(model.model_id, model.version)
        for around, latencies in _conditions(model):
            self._exponential(names.OPERATION_DURATION, {**of_model, **around}, latencies, span)
        stats = StatsTotals.from_bytes(model.stats)
        self._exponential(names.TIME_TO_FIRST_TOKEN, of_model, stats.time_to_first_token_ms, span)
        for token_type in ("input", "output"):
            tokens = stats.amounts.get(f"{token_type}_tokens")
            if tokens is not None and tokens.count:
                histogram = HistogramDataPoint(count=tokens.count, sum=tokens.total, max=tokens.max)
                self._histogram(names.TOKEN_USAGE, {**of_model, names.TOKEN_TYPE: token_type}, histogram, span)
        rate = stats.rates.get("tokens_per_second")
        if rate is not None and rate.count:
            histogram = HistogramDataPoint(count=rate.count, sum=rate.total, min=rate.min, max=rate.max)
            self._histogram(names.TOKEN_RATE, of_model, histogram, span)
        for target, count in _by_target(model, stats):
            self._sum(names.CALLS, {**of_model, names.TARGET: target}, count, span)

    def add_sample(self, sample: Sample) -> None:
        around = {
            names.THERMAL_STATE: known(sample.thermal_state),
            names.POWER_SOURCE: known(sample.power_source),
        }
        for metric, hardware, value in measured(sample):
            if value is None:
                continue
            point = NumberDataPoint(
                attributes=attributes({**hardware, **around}), time_unix_nano=_nanoseconds(sample.at_ms)
            )
            if isinstance(value, int):
                point.as_int = value
            else:
                point.as_double = value
            self._of(metric).gauge.data_points.append(point)

    def _of(self, metric: names.Metric) -> Metric:
        if metric.name not in self.metrics:
            self.metrics[metric.name] = Metric(name=metric.name, unit=metric.unit, description=metric.description)
        return self.metrics[metric.name]

    def _sum(self, metric: names.Metric, around: Attributes, count: int, span: _Span) -> None:
        found = self._of(metric).sum
        found.aggregation_temporality, found.is_monotonic = _DELTA, True
        found.data_points.append(_placed(NumberDataPoint(as_int=count), around, span))

    def _histogram(self, metric: names.Metric, around: Attributes, point: HistogramDataPoint, span: _Span) -> None:
        """Count, sum and extremes; there are no buckets, which is a form that OTLP has."""
        found = self._of(metric).histogram
        found.aggregation_temporality = _DELTA
        found.data_points.append(_placed(point, around, span))

    def _exponential(self, metric: names.Metric, around: Attributes, of_ms: Histogram, span: _Span) -> None:
        if not of_ms.count:
            return
        point = ExponentialHistogramDataPoint(
            count=of_ms.count,
            sum=of_ms.sum / 1000,
            min=of_ms.min / 1000,
            max=of_ms.max / 1000,
            scale=SCALE,
            zero_count=of_ms.zero_count,
            zero_threshold=ZERO_THRESHOLD / 1000,
        )
        if of_ms.buckets:
            low, high = min(of_ms.buckets), max(of_ms.buckets)
            point.positive.offset = low - TO_SECONDS_BUCKETS
            point.positive.bucket_counts.extend(of_ms.buckets.get(index, 0) for index in range(low, high + 1))
        found = self._of(metric).exponential_histogram
        found.aggregation_temporality = _DELTA
        found.data_points.append(_placed(point, around, span))


def _placed(point: P, around: Attributes, span: _Span) -> P:
    point.attributes.extend(attributes(around))
    point.start_time_unix_nano, point.time_unix_nano = span
    return point


def _nanoseconds(timestamp_ms: int) -> int:
    """Since 1970; what the field cannot hold, because some clock was mad, is its nearest end."""
    return min(max(timestamp_ms * _NS_OF_MS, 0), _LARGEST_TIME_NS)


def _conditions(model: ModelMinute) -> Iterator[tuple[Attributes, Histogram]]:
    latencies = Conditions.from_bytes(model.conditions).latencies
    if not latencies:
        yield {}, Histogram.from_bytes(model.latency)
    for (thermal_state, power_source, used), histogram in latencies.items():
        around = {
            names.THERMAL_STATE: known(thermal_state),
            names.POWER_SOURCE: known(power_source),
            names.ACCELERATOR: known(used),
        }
        yield around, histogram


def _by_target(model: ModelMinute, stats: StatsTotals) -> Iterator[tuple[str, int]]:
    """All calls; those that did not say where they were carried out under no name."""
    said = stats.names.get("execution_target", {})
    yield from said.items()
    unsaid = model.calls - sum(said.values())
    if unsaid > 0:
        yield "", unsaid
