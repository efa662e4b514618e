"""The centrepiece: how latency changes with heat, power source and hardware, model by model, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.core.conditions import UNKNOWN
from xybridd.core.report.conditions import ALIKE, factor_words
from xybridd.report import charts, text
from xybridd.report.text import esc

if TYPE_CHECKING:
    from xybridd.core.report.figures import ConditionFigures, DimensionFigures, ModelFigures, Report

#: Past these, the tables and the CSV have them.
MOST_MODELS = 10

_WHY_UNKNOWN = {
    "thermal_state": "This device does not say how hot it is.",
    "power_source": "This device does not say what it runs on.",
    "hardware_used": "The app does not say what each call ran on (hardware_used).",
}


def conditions(report: Report) -> str:
    shown = [model for model in report.models if model.latency is not None]
    more = len(shown) - MOST_MODELS
    note = (
        f"<p class='dim'>The {MOST_MODELS} most used of {len(shown):,} models; JSON and CSV have more.</p>"
        if more > 0
        else ""
    )
    return (
        "<h2>How latency changes with heat, power and hardware</h2>"
        + _findings(report)
        + "<p class='dim'>The bar is the median (p50), its whisker reaches to the 90th percentile.</p>"
        + "".join(_model(model, number) for number, model in enumerate(shown[:MOST_MODELS]))
        + note
    )


def _findings(report: Report) -> str:
    if not report.findings:
        return (
            f"<p>Nothing could be compared yet: no model has {report.enough_calls} calls in each of two states. "
            "Below is what there is.</p>"
        )
    cards = "".join(
        f"<li><strong>{esc(text.label(one.dimension))}: {esc(factor_words(one.factor))}</strong>"
        f"<span>{esc(text.model_name(one.model_id, one.version))} {esc(one.words)}.</span></li>"
        for one in report.findings
    )
    return f'<ul class="findings">{cards}</ul>'


def _model(model: ModelFigures, number: int) -> str:
    longest = max((state.latency.p90_ms for each in model.dimensions for state in each.states), default=0.0)
    panels = "".join(_panel(each, longest, f"{model.name}: {text.label(each.dimension)}") for each in model.dimensions)
    middle = text.ms(model.latency.p50_ms if model.latency else None)
    return (
        f'<section class="model" aria-labelledby="model-{number}"><h3 id="model-{number}">{esc(model.name)} '
        f'<span class="dim">{model.calls:,} calls, median {middle}</span></h3>'
        f'<div class="panels">{panels}</div></section>'
    )


def _panel(dimension: DimensionFigures, longest: float, label: str) -> str:
    name = esc(text.label(dimension.dimension))
    if not dimension.states or all(state.value == UNKNOWN for state in dimension.states):
        return f'<div class="panel"><h4>{name}</h4><p class="dim">{_WHY_UNKNOWN[dimension.dimension]}</p></div>'
    usual = dimension.compared_with if len(dimension.states) > 1 else None
    rows = "".join(_state(state, longest, usual) for state in dimension.states)
    return (
        f'<div class="panel"><table class="states"><caption class="unseen">{esc(label)}</caption><thead><tr>'
        f'<th scope="col">{name}</th><th scope="col"><span class="unseen">Compared</span></th>'
        f'<th scope="col">p50</th><th scope="col">p90</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _state(state: ConditionFigures, longest: float, usual: str | None) -> str:
    style = "" if state.enough else ' class="few"'
    drawn = charts.reach(state.latency.p50_ms / longest, state.latency.p90_ms / longest) if longest else ""
    words = state.words if state.value != UNKNOWN and (usual is not None or not state.enough) else ""
    words = "compared with this" if state.value == usual else words
    strong = state.factor is not None and abs(state.factor - 1) > ALIKE
    first, _, second = words.partition("; ")
    said = f'<span class="compared">{f"<strong>{esc(first)}</strong>" if strong else esc(first)}</span>'
    said += f'<span class="compared">{esc(second)}</span>' if second else ""
    return (
        f'<tr{style}><th scope="row">{esc(text.label(state.value))}<span class="dim">{state.calls:,} calls</span></th>'
        f'<td class="bar">{drawn}{said}</td>'
        f"<td>{text.ms(state.latency.p50_ms)}</td><td>{text.ms(state.latency.p90_ms)}</td></tr>"
    )
