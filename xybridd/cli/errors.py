"""``xybridd errors``: what went wrong, how often, and since when; the calls whose process disappeared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xybridd.cli import when
from xybridd.cli.figures import count, percent
from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import clock_time, daemon
from xybridd.cli.sessions import called, length
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
_NONE_INTERRUPTED = "no process disappeared during a call in that time"


@click.command()
@when.since("7d")
@click.option("--app", help="Only of this app.")
@click.option("--by-category", is_flag=True, help="By category and model alone, without messages.")
@click.option("--interrupted", is_flag=True, help="Only the calls whose process disappeared.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many rows.")
@forms
def errors(
    since_ms: int, app: str | None, limit: int, form: str | None, *, by_category: bool, interrupted: bool
) -> None:
    """What went wrong: each error with its category and model, how often, first and last.

    Messages are counted by session: those that came up again in that time count with all of their session. Calls that
    had started when their process disappeared follow below; --json and --csv list them with --interrupted.

    \b
    Example:  xybridd errors --since 24h --app kiosk
    """
    if by_category and interrupted:
        raise click.UsageError("--by-category and --interrupted cannot be used together")
    connection = daemon()
    try:
        sessions = _sessions(connection, since_ms, app)
        cut_off = _interrupted(sessions)
        if interrupted:
            write(cut_off[:limit], _INTERRUPTED, form, empty=_NONE_INTERRUPTED)
            _say_left_out(len(cut_off) - limit, "interrupted calls")
            return
        if by_category:
            rows, more = _categories(connection, since_ms, app), 0
        else:
            rows, more = _messages(connection, sessions, since_ms)
    finally:
        connection.close()
    whole = sum(row["count"] for row in rows)
    table = _table(messages=not by_category)
    shown = [row | {"share_percent": round(100 * row["count"] / whole, 3)} for row in rows[:limit]]
    write([{name: row[name] for name in table.fields} for row in shown], table, form, empty=_NONE)
    if more:
        click.echo(f"{more:,} older sessions with errors were left out; give a shorter --since", err=True)
    _say_left_out(len(rows) - limit, "errors")
    if cut_off and form is None:
        click.echo("\nInterrupted calls")
        write(cut_off[:limit], _INTERRUPTED, None, empty=_NONE_INTERRUPTED)
        _say_left_out(len(cut_off) - limit, "interrupted calls")


def _say_left_out(number_of: int, what: str) -> None:
    if number_of > 0:
        click.echo(f"{number_of:,} more {what} were left out; --limit shows more", err=True)


def _sessions(connection: Connection, since_ms: int, app: str | None) -> list[Row]:
    params: dict[str, Any] = {"since_ms": since_ms, "limit": 10_000} | ({"app": app} if app else {})
    found: list[Row] = connection.call("session.list", params)["sessions"]
    return found


def _interrupted(sessions: Iterable[Row]) -> list[Row]:
    """The calls that had started when their process disappeared; the newest session first."""
    return [
        {"model": call["model_id"], "version": call["version"], "app": session["app"]}
        | {"running_ms": call["running_ms"], "ended_ms": session["ended_at"], "session_id": session["session_id"]}
        for session in sessions
        for call in session.get("calls_in_progress", [])
    ]


def _categories(connection: Connection, since_ms: int, app: str | None) -> list[Row]:
    groups = group(read_minutes(connection, since_ms=since_ms, app=app), ("category", "model"))
    return [
        {"category": one.key[0], "model": one.key[1] or None, "count": one.errors}
        | {"first_ms": one.first_ms, "last_ms": one.last_ms, "sessions": len(one.sessions)}
        for one in groups
    ]


def _messages(connection: Connection, sessions: Iterable[Row], since_ms: int) -> tuple[list[Row], int]:
    """The errors by their text, the most frequent first, and how many sessions with errors were not read."""
    failed = [each["session_id"] for each in sessions if each["error_count"]]
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


#: ``ended_ms``: when the session ended; None while other processes continue it.
_INTERRUPTED = Table(
    ["model", "version", "app", "running_ms", "ended_ms", "session_id"],
    [
        Column("model", lambda row: called({"model_id": row["model"], "version": row["version"]})),
        Column("app", lambda row: row["app"], 6),
        Column("running for", lambda row: length(row["running_ms"]), 7),
        Column("session ended", lambda row: "active" if row["ended_ms"] is None else clock_time(row["ended_ms"]), 5),
        Column("session", lambda row: row["session_id"][:8], 4),
    ],
)
