"""``xybridd stats``: what was recorded in a time, added up by whatever is asked for, and why it was slow."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xybridd.cli import when
from xybridd.cli.figures import FIELDS, columns, figures
from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import daemon
from xybridd.cli.sessions import find_session
from xybridd.cli.table import UNKNOWN, Column, Table, forms, number, write
from xybridd.core.grouping import DIMENSIONS, OF_CONDITION, OF_TIME, check_dimensions, group
from xybridd.core.slower import ENOUGH, compare, times_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xybridd.core.grouping import Group
    from xybridd.core.minute import AppMinute
    from xybridd.core.slower import Comparison

    Row = dict[str, Any]

#: So many sentences at most stand below the table, those that cost most time first.
_MOST_SENTENCES = 3

NOTHING = "nothing was recorded in that time; try: xybridd record inference whisper-tiny 1.0 212"


def _dimensions(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    by = [each.strip() for each in text.split(",") if each.strip()]
    if fault := check_dimensions(by):
        raise click.BadParameter(fault)
    return by


@click.command()
@when.since("7d")
@when.until
@click.option(
    "--by", callback=_dimensions, metavar="NAMES", default="model", show_default=True, help=", ".join(DIMENSIONS) + "."
)
@click.option("--app", help="Only of this app.")
@click.option("--session", "session_id", metavar="ID", help="Only of this session; its first characters do.")
@forms
def stats(
    since_ms: int, until_ms: int | None, by: list[str], app: str | None, session_id: str | None, form: str | None
) -> None:
    """Calls, errors, percentiles and tokens of a time, by model or whatever you ask for.

    By thermal, power or hardware it answers why it was slow: × USUAL compares each model's median with its own where
    the device is coolest, on the mains, or on the hardware that most calls used. The words below the table are said
    where both sides have 30 calls, chance (at 95 %) is no explanation, and a tenth or more is between them.

    \b
    Example:  xybridd stats --since 24h --by model,thermal
    """
    connection = daemon()
    try:
        if session_id is not None:
            session_id = find_session(connection, session_id)
        minutes = list(read_minutes(connection, since_ms=since_ms, until_ms=until_ms, app=app, session_id=session_id))
    finally:
        connection.close()
    groups = group(minutes, by, when.midnight)
    comparisons = compare(minutes, by) if set(by) & set(OF_CONDITION) else []
    write([_row(one, by, comparisons) for one in groups], _table(by), form, empty=NOTHING)
    if form is None and groups and set(by) & set(OF_CONDITION):
        for sentence in sentences(comparisons, minutes, by):
            click.echo(sentence)


def _row(one: Group, by: Sequence[str], comparisons: Sequence[Comparison]) -> Row:
    key = dict(zip(by, one.key, strict=True))
    conditions = [each for each in by if each in OF_CONDITION]
    shown: Row = {
        name: when.step_time(int(value)) if name in OF_TIME else value for name, value in key.items()
    } | figures(one)
    if conditions:
        times = times_of(comparisons, key, conditions)
        shown["times_usual"] = None if times is None else round(times, 3)
    return shown | {"sessions": len(one.sessions), "first_ms": one.first_ms, "last_ms": one.last_ms}


def _table(by: Sequence[str]) -> Table:
    compared = ["times_usual"] if set(by) & set(OF_CONDITION) else []
    keys = [Column(name.replace("_", " "), partial(_key, name)) for name in by]
    usual = [number("× usual", lambda row: _times(row["times_usual"]), style=_slow)] if compared else []
    shown = columns()
    if "category" in by:
        shown = [each for each in shown if each.title == "errors"]
    return Table([*by, *FIELDS, *compared, "sessions", "first_ms", "last_ms"], [*keys, *shown, *usual])


def _key(name: str, row: Row) -> str:
    value = str(row[name])
    if name == "session":
        return value[:8]
    if name in OF_TIME:
        return value[:10] if name == "day" else value[:16].replace("T", " ")
    return value or UNKNOWN


def _times(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _slow(row: Row) -> str:
    times = row["times_usual"]
    return "red" if times is not None and times >= 1.5 else ""


# In words


def sentences(comparisons: Sequence[Comparison], minutes: Sequence[AppMinute], by: Sequence[str]) -> list[str]:
    """What there is to be said of heat, power and hardware; when there is nothing, why."""
    told = [one for one in comparisons if one.told]
    if told:
        several = _several_versions(minutes)
        told.sort(key=lambda one: -abs(one.lost_ms))
        return [_sentence(one, by, several) for one in told[:_MOST_SENTENCES]]
    names = " and ".join("heat" if each == "thermal" else each for each in by if each in OF_CONDITION)
    if any(min(one.calls, one.usual_calls) >= ENOUGH for one in comparisons):
        return [f"{names} made no difference to any model that is more than chance, or more than a tenth"]
    return [f"nothing can be said of {names} yet: it takes {ENOUGH} calls of one model under each of two conditions"]


def _several_versions(minutes: Sequence[AppMinute]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for each in minutes:
        for model in each.minute.models:
            seen.setdefault(model.model_id, set()).add(model.version)
    return {model for model, versions in seen.items() if len(versions) > 1}


def _sentence(one: Comparison, by: Sequence[str], several: set[str]) -> str:
    conditions = [each for each in by if each in OF_CONDITION]
    around = "".join(f" ({name} {value})" for name, value in one.around.items() if name not in OF_TIME)
    model = f"{one.model}@{one.version}" if one.model in several else one.model
    here = ", ".join(_under(name, value) for name, value in zip(conditions, one.values, strict=True))
    usual = (
        one.usual[0] if conditions == ["thermal"]
        else ", ".join(_under(name, value) for name, value in zip(conditions, one.usual, strict=True))
    )  # fmt: skip
    joint = "that of" if conditions == ["thermal"] else "that"
    return (
        f"{here}, {model}'s median{around} is {one.times:.2g}× {joint} {usual} "
        f"({one.calls:,} calls against {one.usual_calls:,})"
    )


def _under(dimension: str, value: str) -> str:
    if dimension == "thermal":
        return f"when {value}"
    if dimension == "power":
        return "on battery" if value == "battery" else f"on {value}"
    return f"on the {value}"
