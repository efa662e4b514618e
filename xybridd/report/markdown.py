"""The report as Markdown: for an issue, a chat, a commit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xybridd.report import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xybridd.core.report.figures import ModelFigures, Report


def safe(given: object) -> str:
    """What an app wrote, as words: neither markup, nor a link, nor another cell."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&@])", r"\\\1", text.plain(given))


def markdown(report: Report) -> str:
    clock, totals, latency = text.Clock(report), report.totals, report.totals.latency
    only = f", only the app {safe(report.app)}" if report.app is not None else ""
    covers = (
        f"{clock.full(report.since_ms)} to {clock.full(report.until_ms)} ({clock.name}){only}, "
        f"device {safe(report.device.device_id)}, xybridd {safe(report.daemon_version)}"
    )
    parts = ["# xybridd report", covers]
    if report.empty:
        return "\n\n".join([*parts, "Nothing was recorded in this time.", ""])
    parts += [
        _table(
            ("Sessions", "Crash-free", "Calls", "Error rate", "p50", "p99", "Tokens out"),
            [
                (
                    text.count(totals.sessions),
                    text.percent(totals.crash_free_percent),
                    text.count(totals.calls),
                    text.percent(totals.error_percent),
                    text.ms(latency.p50_ms if latency else None),
                    text.ms(latency.p99_ms if latency else None),
                    text.count(totals.output_tokens),
                )
            ],
        ),
        "## How latency changes with heat, power and hardware",
        *[
            f"- {text.label(one.dimension)}: {safe(text.model_name(one.model_id, one.version))} {one.words}"
            for one in report.findings
        ],
        *[_conditions(model) for model in report.models if model.latency is not None],
        "## Models",
        _models(report.models),
    ]
    if report.errors:
        rows = [(safe(each.category), f"{each.count:,}") for each in report.errors]
        parts += ["## Errors by category", _table(("Category", "Errors"), rows)]
    if report.interrupted_calls:
        parts += ["## Interrupted calls", _interrupted(report)]
    parts += [f"- Energy ({one.what}): {one.watt_hours:.2f} Wh" for one in report.device.energy]
    return "\n\n".join([*parts, ""])


def _conditions(model: ModelFigures) -> str:
    rows = [
        (
            text.label(each.dimension),
            text.label(state.value),
            f"{state.calls:,}",
            text.ms(state.latency.p50_ms),
            text.ms(state.latency.p90_ms),
            state.words,
        )
        for each in model.dimensions
        for state in each.states
    ]
    return f"### {safe(model.name)}\n\n" + _table(("", "State", "Calls", "p50", "p90", "Compared"), rows)


def _interrupted(report: Report) -> str:
    clock = text.Clock(report)
    rows = [
        (
            safe(text.model_name(each.model_id, each.version)),
            safe(each.app),
            text.running(each.running_ms),
            "still active" if each.ended_at is None else clock.full(each.ended_at),
            safe(each.session_id[:8]),
        )
        for each in report.interrupted_calls
    ]
    left = f"\n\n{report.interrupted_left_out:,} more are not listed." if report.interrupted_left_out else ""
    return _table(("Model", "App", "Running for", "Session ended", "Session"), rows) + left


def _models(models: Sequence[ModelFigures]) -> str:
    cancelled = any(model.cancelled for model in models)
    return _table(
        ("Model", "Calls", "Errors", *(["Cancelled"] if cancelled else []), "p50", "p90", "p99", "Tokens/s"),
        [
            (
                safe(model.name),
                f"{model.calls:,}",
                f"{model.errors:,}",
                *([f"{model.cancelled:,}"] if cancelled else []),
                *(
                    text.ms(getattr(model.latency, name) if model.latency else None)
                    for name in ("p50_ms", "p90_ms", "p99_ms")
                ),
                text.number(model.tokens_per_second),
            )
            for model in models
        ],
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
