"""What the daemon knows as families of the official Prometheus client, which writes them in its text formats.

Names and units are those that a Collector makes of our OTLP (`xybridd.core.names`), so that one dashboard serves both.
Durations have buckets at powers of two of a millisecond: these are edges of our own histograms too, so that nothing is
counted on the wrong side of one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from xybridd import __version__
from xybridd.core import names
from xybridd.core.figures import known, measured
from xybridd.core.histogram import SCALE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from xybridd.core.histogram import Histogram
    from xybridd.core.metering import ModelTotals, Totals
    from xybridd.core.minute import Sample

#: Half a millisecond to a minute, in powers of two of a millisecond.
_EDGES = range(-1, 17)

#: The attribute that says whose a figure is: `service.name` of the resource over OTLP.
_APP = "service_name"
_OF_MODEL = (_APP, *map(names.prometheus_label, (names.REQUEST_MODEL, names.MODEL_VERSION)))
_CONDITIONS = tuple(map(names.prometheus_label, (names.THERMAL_STATE, names.POWER_SOURCE, names.ACCELERATOR)))
_TARGET, _TOKEN_TYPE, _ERROR_TYPE, _MODEL = map(
    names.prometheus_label, (names.TARGET, names.TOKEN_TYPE, names.ERROR_TYPE, names.REQUEST_MODEL)
)
_HARDWARE = tuple(map(names.prometheus_label, (names.HW_ID, names.HW_NAME, names.HW_TYPE)))


class Facts(NamedTuple):
    """What is exposed, taken at one moment. ``exports``: of each sink the two sides of its ledger."""

    totals: Totals
    ended: Mapping[tuple[str, str], int]
    sample: Sample
    ledger: Mapping[str, Any]
    sessions_active: int
    well: bool
    used_bytes: int | None
    quota_bytes: int
    device_id: str


def families(facts: Facts) -> Iterator[Metric]:
    """Every family, in a settled order; one without a sample is left out by whoever writes them."""
    yield from _of_models(facts.totals)
    yield _errors(facts.totals)
    yield from _of_device(facts.sample)
    yield from _of_daemon(facts)


def _of_models(totals: Totals) -> Iterator[Metric]:
    duration = _histogram(names.OPERATION_DURATION, *_OF_MODEL, *_CONDITIONS)
    first_token = _histogram(names.TIME_TO_FIRST_TOKEN, *_OF_MODEL)
    tokens, rate = _histogram(names.TOKEN_USAGE, *_OF_MODEL, _TOKEN_TYPE), _histogram(names.TOKEN_RATE, *_OF_MODEL)
    calls = _counter(names.CALLS, *_OF_MODEL, _TARGET)
    for key, model in totals.models.items():
        of_model = [key.app, key.model_id, key.version]
        for condition, latencies in model.conditions.latencies.items():
            _add(duration, [*of_model, *map(known, condition)], latencies)
        _add(first_token, of_model, model.stats.time_to_first_token_ms)
        for token_type in ("input", "output"):
            if (amount := model.stats.amounts.get(f"{token_type}_tokens")) is not None:
                tokens.add_metric([*of_model, token_type], [("+Inf", amount.count)], amount.total)
        if (said := model.stats.rates.get("tokens_per_second")) is not None:
            rate.add_metric(of_model, [("+Inf", said.count)], said.total)
        for target, count in _by_target(model):
            calls.add_metric([*of_model, target], count)
    yield from (duration, first_token, tokens, rate, calls)


def _by_target(model: ModelTotals) -> Iterator[tuple[str, int]]:
    """All calls; those that did not say where they were carried out under no name."""
    said = model.stats.names.get("execution_target", {})
    yield from said.items()
    yield "", max(0, model.calls - sum(said.values()))


def _errors(totals: Totals) -> Metric:
    family = _counter(names.ERRORS, _APP, _ERROR_TYPE, _MODEL)
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for key, count in totals.errors.items():
        counts[key.app, names.error_type(key.category), key.model_id] += count
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _of_device(sample: Sample) -> Iterator[Metric]:
    found: dict[names.Metric, GaugeMetricFamily] = {}
    for metric, hardware, value in measured(sample):
        if value is None:
            continue
        family = found.get(metric)
        if family is None:
            family = found[metric] = GaugeMetricFamily(
                names.prometheus_name(metric), metric.description, labels=_HARDWARE
            )
        labels = {names.prometheus_label(attribute): said for attribute, said in hardware.items()}
        family.add_metric([labels.get(label, "") for label in _HARDWARE], value)
    yield from found.values()


def _of_daemon(facts: Facts) -> Iterator[Metric]:
    ledger = facts.ledger
    yield InfoMetricFamily(
        "xybridd_build", "Which daemon this is.", {"version": __version__, "device_id": facts.device_id}
    )
    yield GaugeMetricFamily("xybridd_up", "1 while its disk takes records, else 0.", int(facts.well))
    yield GaugeMetricFamily("xybridd_sessions_active", "Sessions that are open.", facts.sessions_active)
    ended = CounterMetricFamily(
        "xybridd_sessions_ended", "Sessions that ended, by the reason; client_lost is a crash.", labels=(_APP, "reason")
    )
    for labels, count in facts.ended.items():
        ended.add_metric(labels, count)
    yield ended
    yield CounterMetricFamily("xybridd_records_received", "Records that arrived, ever.", ledger["received"])
    yield CounterMetricFamily("xybridd_records_counted", "Records counted in sessions, ever.", ledger["counted"])
    yield CounterMetricFamily("xybridd_records_duplicate", "Records that had come before.", ledger["duplicates"])
    for name, meaning in (("rejected", "Records refused."), ("removed", "Records deleted with their sessions.")):
        family = CounterMetricFamily(f"xybridd_records_{name}", meaning, labels=("reason",))
        for reason, count in ledger[name].items():
            family.add_metric([reason], count)
        yield family
    exports = GaugeMetricFamily("xybridd_exports", "What became of what was made to be sent.", labels=("sink", "state"))
    for sink, tally in ledger["exports"].items():
        for state, count in tally.items():
            exports.add_metric([sink, state], count)
    yield exports
    if facts.used_bytes is not None:
        yield GaugeMetricFamily("xybridd_storage_used_bytes", "What the database takes.", facts.used_bytes)
    yield GaugeMetricFamily("xybridd_storage_quota_bytes", "What it may take.", facts.quota_bytes)


def _histogram(metric: names.Metric, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(names.prometheus_name(metric), metric.description, labels=labels)


def _counter(metric: names.Metric, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(names.prometheus_name(metric), metric.description, labels=labels)


def _add(family: HistogramMetricFamily, labels: list[str], of_ms: Histogram) -> None:
    if of_ms.count:
        family.add_metric(labels, buckets(of_ms), of_ms.sum / 1000)


def buckets(of_ms: Histogram) -> list[tuple[str, float]]:
    """Of a histogram of milliseconds: its edges in seconds, and how many values do not exceed each."""
    steps = 2**SCALE
    found = []
    for power in _EDGES:
        # The bucket that an edge closes is the one before that edge's index.
        below = sum(count for index, count in of_ms.buckets.items() if index < power * steps)
        found.append((repr(2.0**power / 1000), float(of_ms.zero_count + below)))
    return [*found, ("+Inf", float(of_ms.count))]
