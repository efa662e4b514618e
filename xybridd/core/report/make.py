"""Facts to figures: the report, whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from xybridd.core.histogram import Histogram
from xybridd.core.report.conditions import ENOUGH, dimensions_of, findings
from xybridd.core.report.device import device_of
from xybridd.core.report.figures import (
    FORMAT,
    AppFigures,
    CategoryFigures,
    InterruptedCall,
    ModelFigures,
    ModelStep,
    Report,
    Step,
    Totals,
    latency_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.report.facts import Facts
    from xybridd.core.report.sums import ModelSums, Sums

#: Shown one by one; what is past them is counted, and said to be left out.
MOST_MODELS = 40
MOST_SESSIONS = 50
MOST_APPS = 50
MOST_INTERRUPTED = 20


def make_report(facts: Facts) -> Report:
    models = sorted(facts.sums.models.items(), key=lambda item: (-item[1].calls, -item[1].errors, item[0]))
    shown = [_model(*key, one) for key, one in models[:MOST_MODELS]]
    interrupted = _interrupted(facts)
    apps = [AppFigures(app, one.calls, one.errors) for app, one in facts.sums.apps.items()]
    return Report(
        format=FORMAT,
        made_at_ms=facts.made_at_ms,
        since_ms=facts.since_ms,
        until_ms=facts.until_ms,
        utc_offset_ms=facts.utc_offset_ms,
        step_ms=facts.sums.step_ms,
        app=facts.app,
        daemon_version=str(facts.status.get("version", "")),
        daemon_state=str(facts.status.get("state", "")),
        device=device_of(facts),
        totals=_totals(facts),
        findings=findings(shown),
        apps=sorted(apps, key=lambda one: (-one.calls, one.app))[:MOST_APPS],
        models=shown,
        models_left_out=len(models) - len(shown),
        calls_left_out=sum(one.calls for _, one in models[MOST_MODELS:]),
        over_time=[
            Step(at_ms, step.calls, step.errors, step.input_tokens, step.output_tokens)
            for at_ms, step in sorted(facts.sums.steps.items())
        ],
        errors=_errors(facts.sums),
        sessions=facts.sessions[:MOST_SESSIONS],
        sessions_left_out=max(0, len(facts.sessions) - MOST_SESSIONS),
        ledger=facts.status.get("ledger", {}),
        enough_calls=ENOUGH,
        interrupted_calls=interrupted[:MOST_INTERRUPTED],
        interrupted_left_out=max(0, len(interrupted) - MOST_INTERRUPTED),
    )


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 4) if whole else None


def _totals(facts: Facts) -> Totals:
    models = facts.sums.models.values()
    latency = Histogram()
    for one in models:
        latency.merge(one.latency)
    calls, errors = sum(one.calls for one in models), sum(facts.sums.errors.values())
    reasons = Counter(session.end_reason or "active" for session in facts.sessions)
    lost, sessions = reasons["client_lost"], len(facts.sessions)
    ended = sessions - reasons["active"]
    return Totals(
        sessions=sessions,
        active=reasons["active"],
        lost=lost,
        crash_free_percent=_percent(ended - lost, ended),
        calls=calls,
        errors=errors,
        error_percent=_percent(errors, calls + errors),
        latency=latency_of(latency),
        input_tokens=_tokens(models, "input_tokens"),
        output_tokens=_tokens(models, "output_tokens"),
        models=len(facts.sums.models),
        end_reasons=dict(reasons.most_common()),
    )


def _tokens(models: Iterable[ModelSums], name: str) -> int | None:
    """None when no app ever said."""
    found = [one.stats.amounts[name].total for one in models if name in one.stats.amounts]
    return sum(found) if found else None


def _model(model_id: str, version: str, one: ModelSums) -> ModelFigures:
    stats = one.stats
    rate = stats.rates.get("tokens_per_second")
    memory = stats.amounts.get("memory_peak_mb")
    return ModelFigures(
        model_id=model_id,
        version=version,
        calls=one.calls,
        errors=one.errors,
        error_percent=_percent(one.errors, one.calls + one.errors),
        latency=latency_of(one.latency),
        time_to_first_token=latency_of(stats.time_to_first_token_ms),
        tokens_per_second=round(rate.total / rate.count, 3) if rate is not None and rate.count else None,
        input_tokens=_tokens((one,), "input_tokens"),
        output_tokens=_tokens((one,), "output_tokens"),
        memory_peak_mb=None if memory is None else memory.max,
        hardware_used=stats.names.get("hardware_used", {}),
        execution_target=stats.names.get("execution_target", {}),
        dimensions=dimensions_of(one.conditions),
        over_time=[
            ModelStep(at_ms, values.count, *(round(values.quantile(share), 4) for share in (0.5, 0.9, 0.99)))
            for at_ms, values in sorted(one.steps.items())
        ],
        cancelled=one.cancelled,
    )


def _errors(sums: Sums) -> list[CategoryFigures]:
    found: dict[str, dict[str, int]] = {}
    for (category, model), count in sums.errors.items():
        found.setdefault(category, {})[model] = count
    figures = [
        CategoryFigures(category, sum(models.values()), dict(sorted(models.items(), key=lambda item: -item[1])[:10]))
        for category, models in found.items()
    ]
    return sorted(figures, key=lambda one: (-one.count, one.category))


def _interrupted(facts: Facts) -> list[InterruptedCall]:
    """Newest session first."""
    return [
        InterruptedCall(each.model_id, each.version, one.app, one.session_id, one.ended_at, each.running_ms)
        for one in facts.sessions
        for each in one.calls_in_progress
    ]
