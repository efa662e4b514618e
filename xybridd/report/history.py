"""What changes with time: latency, calls, tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.report import text
from xybridd.report.axes import TimeAxis, ValueAxis
from xybridd.report.charts import Bars, Chart, Line, Row, figure
from xybridd.report.text import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xybridd.core.report.figures import ModelFigures, Report

#: A chart for each; past these, the tables have them.
MOST_CHARTS = 6

# Latency and calls


def latency(report: Report) -> str:
    clock = Clock(report)
    shown = [model for model in report.models if model.over_time]
    drawn = "".join(_of_model(report, clock, model, number) for number, model in enumerate(shown[:MOST_CHARTS]))
    more = len(shown) - MOST_CHARTS
    note = f"<p class='dim'>The {MOST_CHARTS} most used of {len(shown):,} models.</p>" if more > 0 else ""
    if not shown:
        return "<h2>Latency over time</h2><p>No calls in this time.</p>"
    return f'<h2>Latency over time</h2>{note}<div class="charts">{drawn}</div>'


def _of_model(report: Report, clock: Clock, model: ModelFigures, number: int) -> str:
    steps = model.over_time
    axis = ValueAxis([value for step in steps for value in (step.p50_ms, step.p99_ms)], may_be_log=True)
    slow = max(steps, key=lambda step: step.p50_ms)
    fast = min(steps, key=lambda step: step.p50_ms)
    says = (
        f"The median goes from {text.ms(fast.p50_ms)} ({clock.step(fast.at_ms, report.step_ms)}) "
        f"to {text.ms(slow.p50_ms)} ({clock.step(slow.at_ms, report.step_ms)})."
        + (" The axis is logarithmic." if axis.log else "")
    )
    names = (("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"))
    chart = Chart(
        f"latency-{number}",
        model.name + (" (logarithmic)" if axis.log else ""),
        says,
        TimeAxis(report, clock),
        axis,
        axis.ticks(_axis_ms),
        [Line(name, name, [(step.at_ms, getattr(step, field)) for step in steps]) for name, field in reversed(names)],
        [],
        ("Time", "p50", "p90", "p99", "Calls"),
        [
            Row(
                step.at_ms,
                (
                    clock.step(step.at_ms, report.step_ms),
                    text.ms(step.p50_ms),
                    text.ms(step.p90_ms),
                    text.ms(step.p99_ms),
                    f"{step.calls:,}",
                ),
            )
            for step in steps
        ],
    )
    return figure(chart)


def _axis_ms(value: float) -> str:
    return f"{text.short(value)} ms" if value < 1000 else f"{text.short(value / 1000)} s"


def calls(report: Report) -> str:
    clock, steps = Clock(report), report.over_time
    every = text.span(report.step_ms)
    rows = [
        Row(step.at_ms, (clock.step(step.at_ms, report.step_ms), f"{step.calls:,}", f"{step.errors:,}"))
        for step in steps
    ]
    columns = ("Time", "Calls", "Errors")
    points = [(step.at_ms, step.calls) for step in steps]
    drawn = figure(_bars(report, "calls-0", f"Calls in {every}", Bars("calls", "calls", points), columns, rows))
    if any(step.errors for step in steps):
        bars = Bars("errors", "bad", [(step.at_ms, step.errors) for step in steps])
        drawn += figure(_bars(report, "calls-1", f"Errors in {every}", bars, columns, rows))
    return f'<h2>Calls over time</h2><div class="charts">{drawn}</div>'


def tokens_chart(report: Report) -> str:
    steps = [step for step in report.over_time if step.output_tokens or step.input_tokens]
    if not steps:
        return ""
    clock = Clock(report)
    rows = [
        Row(
            step.at_ms,
            (clock.step(step.at_ms, report.step_ms), f"{step.output_tokens:,}", f"{step.input_tokens:,}"),
        )
        for step in steps
    ]
    bars = Bars("tokens out", "calls", [(step.at_ms, step.output_tokens) for step in steps])
    title = f"Tokens out in {text.span(report.step_ms)}"
    return figure(_bars(report, "tokens-0", title, bars, ("Time", "Out", "In"), rows))


def _bars(report: Report, key: str, title: str, bars: Bars, columns: Sequence[str], rows: Sequence[Row]) -> Chart:
    clock, axis = Clock(report), ValueAxis([value for _, value in bars.points])
    says = ""
    if bars.points:
        at_ms, most = max(bars.points, key=lambda point: point[1])
        says = f"Most {bars.name} at {clock.step(at_ms, report.step_ms)}: {most:,.0f}."
    time = TimeAxis(report, clock)
    return Chart(key, title, says, time, axis, axis.ticks(text.short), [bars], [], columns, rows, 120)
