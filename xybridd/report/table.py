"""The report as CSV: one table, a row for each model in each state and in each step of time.

``dimension`` is ``all`` (the whole of a model), ``thermal_state``, ``power_source``, ``hardware_used`` or ``time`` (the
``value`` is then when a step begins). Numbers are plain, milliseconds; what is not known is empty.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from xybridd.report import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.core.report.figures import Latency, ModelFigures, Report

COLUMNS = (
    "model_id", "version", "dimension", "value", "calls", "errors", "p50_ms", "p90_ms", "p99_ms", "max_ms",
    "compared_with", "factor", "factor_alike",
)  # fmt: skip


def table(report: Report) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    clock = text.Clock(report)
    for model in report.models:
        for row in _rows(model, clock):
            writer.writerow(["" if value is None else value for value in row])
    return out.getvalue()


def _rows(model: ModelFigures, clock: text.Clock) -> Iterator[tuple[object, ...]]:
    who = _safe(model.model_id), _safe(model.version)
    yield (*who, "all", "", model.calls, model.errors, *_quantiles(model.latency), None, None, None)
    for each in model.dimensions:
        for state in each.states:
            compared = each.compared_with if state.factor is not None else None
            yield (
                *who, each.dimension, state.value, state.calls, None, *_quantiles(state.latency), compared,
                state.factor, state.factor_alike,
            )  # fmt: skip
    for step in model.over_time:
        quantiles = (step.p50_ms, step.p90_ms, step.p99_ms, None)
        yield (*who, "time", clock.iso(step.at_ms), step.calls, None, *quantiles, None, None, None)


def _quantiles(latency: Latency | None) -> tuple[float | None, ...]:
    return (None,) * 4 if latency is None else (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms)


def _safe(given: str) -> str:
    """A spreadsheet takes a cell that begins like this for a formula; an apostrophe says that it is none."""
    shown = text.plain(given)
    return f"'{shown}" if shown[:1] in {"=", "+", "-", "@"} else shown
