"""Charts as SVG: what is drawn stretches with the page, what is written keeps its size.

That takes two drawings in one: shapes lie in an inner one whose box is stretched, words and grid in the outer one at
percentages. Each chart is a figure with its legend, a line that says what is under the cursor, and its table; the
script reads that line from the rows of the table, so a value stands in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xybridd.report.text import esc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xybridd.report.axes import TimeAxis, ValueAxis

_TOP, _BOTTOM, _STRIP = 16, 20, 22
_BOX = 1000


class Line(NamedTuple):
    """``points``: beginnings of steps and their values, in order. ``style`` is a class of the style sheet."""

    name: str
    style: str
    points: Sequence[tuple[int, float]]


class Bars(NamedTuple):
    name: str
    style: str
    points: Sequence[tuple[int, float]]


class Strip(NamedTuple):
    """A row of coloured stretches under the plot. ``points``: steps, the style of each, and its height from 0 to 1."""

    name: str
    points: Sequence[tuple[int, str, float]]
    legend: Sequence[tuple[str, str]] = ()


class Row(NamedTuple):
    """A row of a chart's table: the step that it is about, and what stands in it."""

    at_ms: int
    cells: Sequence[str]


class Chart(NamedTuple):
    """``says``: what a person who cannot see it is told. ``unit`` turns a value of the axis into words."""

    key: str
    title: str
    says: str
    time: TimeAxis
    values: ValueAxis | None
    ticks: Sequence[tuple[float, str]]
    shapes: Sequence[Line | Bars]
    strips: Sequence[Strip]
    columns: Sequence[str]
    rows: Sequence[Row]
    height: int = 150


def figure(chart: Chart) -> str:
    return (
        f'<figure class="chart" id="{chart.key}">'
        f'<figcaption id="{chart.key}-title">{esc(chart.title)}</figcaption>{_legend(chart)}'
        f'<div class="plot" data-label="{esc(chart.title)}">{_drawing(chart)}</div>'
        f'<p class="reading" aria-hidden="true"></p>{_table(chart)}</figure>'
    )


def _legend(chart: Chart) -> str:
    shapes = [shape for shape in chart.shapes if len(chart.shapes) > 1 or isinstance(shape, Bars)]
    entries = [(_swatch(shape), shape.name) for shape in shapes] if len(shapes) > 1 else []
    entries += [
        (f'<svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" class="{style}"/></svg>', name)
        for strip in chart.strips
        for style, name in strip.legend
    ]
    if not entries:
        return ""
    return '<ul class="legend">' + "".join(f"<li>{swatch} {esc(name)}</li>" for swatch, name in entries) + "</ul>"


def _swatch(shape: Line | Bars) -> str:
    inner = (
        f'<line x1="0" y1="50%" x2="100%" y2="50%" class="{shape.style}"/>'
        if isinstance(shape, Line)
        else f'<rect width="100%" height="100%" class="{shape.style}"/>'
    )
    return f'<svg class="swatch" aria-hidden="true">{inner}</svg>'


# What is drawn


def _drawing(chart: Chart) -> str:
    plot = chart.height if chart.values is not None else 0
    strips_at = _TOP + plot + (8 if plot and chart.strips else 0)
    whole = strips_at + _STRIP * len(chart.strips) + _BOTTOM
    parts = [
        f'<svg role="img" width="100%" height="{whole}" aria-labelledby="{chart.key}-t {chart.key}-d">',
        f'<title id="{chart.key}-t">{esc(chart.title)}</title><desc id="{chart.key}-d">{esc(chart.says)}</desc>',
        _across(chart, whole),
    ]
    if chart.values is not None:
        parts.append(_grid(chart, chart.values, plot))
        shapes = "".join(_shape(shape, chart.time, chart.values) for shape in chart.shapes)
        parts.append(_stretched(_TOP, plot, shapes))
        parts.append(_scale(chart, chart.values, plot))
    for number, strip in enumerate(chart.strips):
        parts.append(_strip(strip, chart.time, strips_at + number * _STRIP))
    parts.append(f'<line class="cursor" y1="{_TOP}" y2="{whole - _BOTTOM}" visibility="hidden"/></svg>')
    return "".join(parts)


def _stretched(top: int, height: int, inner: str) -> str:
    return (
        f'<svg y="{top}" width="100%" height="{height}" viewBox="0 0 {_BOX} {_BOX}" '
        f'preserveAspectRatio="none" overflow="visible" aria-hidden="true">{inner}</svg>'
    )


def _across(chart: Chart, whole: int) -> str:
    base = whole - _BOTTOM if chart.strips else _TOP + chart.height
    parts = [f'<line class="base" x1="0" x2="100%" y1="{base}" y2="{base}"/>']
    for tick in chart.time.ticks():
        anchor = "start" if tick.share < 0.04 else "end" if tick.share > 0.96 else "middle"
        at = f"{100 * tick.share:.2f}%"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{whole - 5}" text-anchor="{anchor}">{esc(tick.label)}</text>')
    return "".join(parts)


def _grid(chart: Chart, values: ValueAxis, plot: int) -> str:
    heights = [_TOP + plot * (1 - values.share(value)) for value, _ in chart.ticks]
    lines = [f'<line class="grid" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>' for at in heights]
    return "".join(lines)


def _scale(chart: Chart, values: ValueAxis, plot: int) -> str:
    """The words of the grid, on top of what is drawn."""
    return "".join(
        f'<text class="tick scale" x="2" y="{_TOP + plot * (1 - values.share(value)) - 3:.1f}">{esc(text)}</text>'
        for value, text in chart.ticks
    )


def _shape(shape: Line | Bars, time: TimeAxis, values: ValueAxis) -> str:
    if isinstance(shape, Line):
        return f'<path class="{shape.style}" d="{_path(shape.points, time, values)}"/>'
    width = max(1.0, _BOX * time.step_share * 0.8)
    lead = _BOX * time.step_share * 0.1
    rects = []
    for at_ms, value in shape.points:
        height = max(4.0, _BOX * values.share(value)) if value else 0.0
        if height:
            rects.append(f"M{_BOX * time.share(at_ms) + lead:.1f} {_BOX}v-{height:.0f}h{width:.1f}v{height:.0f}z")
    return f'<path class="{shape.style}" d="{"".join(rects)}"/>'


def _path(points: Iterable[tuple[int, float]], time: TimeAxis, values: ValueAxis) -> str:
    """Broken where steps are missing; a point on its own is a line of no length, which its round ends make a dot."""
    parts: list[str] = []
    last_ms: int | None = None
    for at_ms, value in points:
        place = f"{_BOX * time.middle(at_ms):.0f} {_BOX * (1 - values.share(value)):.0f}"
        joined = last_ms is not None and time.follows(last_ms, at_ms)
        parts.append(f"L{place}" if joined else f"M{place}h0")
        last_ms = at_ms
    return "".join(parts)


def _strip(strip: Strip, time: TimeAxis, top: int) -> str:
    height = _STRIP - 6
    rects = []
    for at_ms, end_ms, style, share in _stretches(strip, time):
        left, right = _BOX * time.share(at_ms), _BOX * time.share(end_ms)
        rects.append(
            f'<rect class="{style}" x="{left:.1f}" width="{right - left:.1f}" '
            f'y="{_BOX * (1 - share):.0f}" height="{_BOX * share:.0f}"/>'
        )
    return (
        _stretched(top, height, f'<rect class="ground" width="{_BOX}" height="{_BOX}"/>' + "".join(rects))
        + f'<text class="tick scale" x="2" y="{top + 12}">{esc(strip.name)}</text>'
    )


def _stretches(strip: Strip, time: TimeAxis) -> Iterable[tuple[int, int, str, float]]:
    """Neighbouring steps of the same kind as one."""
    open_: tuple[int, int, str, float] | None = None
    for at_ms, style, share in strip.points:
        end_ms = at_ms + time.step_ms
        if open_ is not None and open_[2:] == (style, share) and open_[1] == at_ms:
            open_ = (open_[0], end_ms, style, share)
            continue
        if open_ is not None:
            yield open_
        open_ = (at_ms, end_ms, style, share)
    if open_ is not None:
        yield open_


# What is written


def _table(chart: Chart) -> str:
    head = "".join(f'<th scope="col">{esc(each)}</th>' for each in chart.columns)
    body = "".join(
        f'<tr data-x="{chart.time.middle(row.at_ms):.4f}"><th scope="row">{esc(row.cells[0])}</th>'
        + "".join(f"<td>{esc(cell)}</td>" for cell in row.cells[1:])
        + "</tr>"
        for row in chart.rows
    )
    return (
        f'<details id="{chart.key}-table"><summary>As a table</summary>'
        + scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", chart.title)
        + "</details>"
    )


def scrolling(table: str, label: str) -> str:
    """A table that is wider than a phone moves in a frame of its own, by keys too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(label)}">{table}</div>'


def reach(middle: float, high: float) -> str:
    """The bar of a median with the whisker to its 90th percentile, both as shares of the cell."""
    middle, high = (min(1.0, max(0.0, each)) * 99 for each in (middle, high))
    return (
        '<svg class="reach" width="100%" height="14" aria-hidden="true">'
        f'<line class="whisker" x1="{middle:.1f}%" x2="{high:.1f}%" y1="7" y2="7"/>'
        f'<line class="whisker" x1="{high:.1f}%" x2="{high:.1f}%" y1="2" y2="12"/>'
        f'<rect class="median" width="{max(middle, 0.7):.1f}%" height="10" y="2" rx="2"/></svg>'
    )


def bar(share: float, style: str) -> str:
    return (
        '<svg class="reach" width="100%" height="14" aria-hidden="true">'
        f'<rect class="{style}" width="{max(100 * share, 0.7):.1f}%" height="10" y="2" rx="2"/></svg>'
    )
