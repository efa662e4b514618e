"""``xybridd errors``: what went wrong, how often, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xybridd.cli import when
from xybridd.cli.figures import count, percent
from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import clock_time, daemon
from xybridd.cli.table import UNKNOWN, Column, Table, forms, number, write
from xybridd.core.grouping import group
from xybridd.errors import UnknownSession

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.client.connection import Connection

    Row = dict[str, Any]

#: Messages are kept by session; so many sessions with errors are read at most, the newest.
_MOST_SESSIONS = 1000

_NONE = "no errors were recorded in that time"


@click.command()
@when.since("7d")
@click.option("--app", help="Only of this app.")
@click.option("--by-category", is_flag=True, help="By category and model alone, without messages.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many rows.")
@forms
def errors(since_ms: int, app: str | None, limit: int, form: str | None, *, by_category: bool) -> None:
    """What went wrong: each error with its category and model, how often, first and last.

    Messages are counted by session: those that came up again in that time count with all of their session.

    \b
    Example:  xybridd errors --since 24h --app kiosk
    """
    connection = daemon()
    try:
        if by_category:
            rows, more = _categories(connection, since_ms, app), 0
        else:
            rows, more = _messages(connection, since_ms, app)
    finally:
        connection.close()
    whole = sum(row["count"] for row in rows)
    table = _table(messages=not by_category)
    shown = [row | {"share_percent": round(100 * row["count"] / whole, 3)} for row in rows[:limit]]
    write([{name: row[name] for name in table.fields} for row in shown], table, form, empty=_NONE)
    if more:
        click.echo(f"{more:,} older sessions with errors were left out; give a shorter --since", err=True)
    if len(rows) > limit:
        click.echo(f"{len(rows) - limit:,} more errors were left out; --limit shows more", err=True)


def _categories(connection: Connection, since_ms: int, app: str | None) -> list[Row]:
    groups = group(read_minutes(connection, since_ms=since_ms, app=app), ("category", "model"))
    return [
        {"category": one.key[0], "model": one.key[1] or None, "count": one.errors}
        | {"first_ms": one.first_ms, "last_ms": one.last_ms, "sessions": len(one.sessions)}
        for one in groups
    ]


def _messages(connection: Connection, since_ms: int, app: str | None) -> tuple[list[Row], int]:
    """The errors by their text, the most frequent first, and how many sessions with errors were not read."""
    params: dict[str, Any] = {"since_ms": since_ms, "limit": 10_000} | ({"app": app} if app else {})
    failed = [each["session_id"] for each in connection.call("session.list", params)["sessions"] if each["error_count"]]
    found: dict[tuple[str, str | None, str], Row] = {}
    for session_id in failed[:_MOST_SESSIONS]:
        try:
            session = connection.call("session.get", {"session_id": session_id})
        except UnknownSession:  # it was forgotten meanwhile
            continue
        _add(found, (error for error in session["errors"] if error["last_seen"] >= since_ms))
    rows = sorted(found.values(), key=lambda row: (-row["count"], -row["last_ms"]))
    return rows, max(0, len(failed) - _MOST_SESSIONS)


def _add(found: dict[tuple[str, str | None, str], Row], errors: Iterable[Row]) -> None:
    """The errors of one more session."""
    seen = set()
    for error in errors:
        key = (error["category"], error["model_id"], error["message"])
        row = found.setdefault(
            key,
            dict(zip(("category", "model", "message"), key, strict=True))
            | {"count": 0, "first_ms": error["first_seen"], "last_ms": error["last_seen"], "sessions": 0},
        )
        row["count"] += error["count"]
        row["first_ms"] = min(row["first_ms"], error["first_seen"])
        row["last_ms"] = max(row["last_ms"], error["last_seen"])
        row["sessions"] += key not in seen
        seen.add(key)


def _table(*, messages: bool) -> Table:
    return Table(
        [
            "category", "model", *(["message"] if messages else []), "count", "share_percent", "sessions", "first_ms",
            "last_ms",
        ],
        [
            number("times", lambda row: count(row["count"])),
            number("share %", lambda row: percent(row["share_percent"]), 4),
            number("sessions", lambda row: count(row["sessions"]), 3),
            Column("category", lambda row: row["category"]),
            Column("model", lambda row: row["model"] or UNKNOWN, 6),
            Column("first", lambda row: clock_time(row["first_ms"]), 2),
            Column("last", lambda row: clock_time(row["last_ms"]), 5),
            *([Column("error", lambda row: row["message"], folds=True)] if messages else []),
        ],
    )  # fmt: skip
