"""``xybridd ps``: who infers now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import psutil

from xybridd.cli.figures import count, errors_red
from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import daemon, span
from xybridd.cli.table import UNKNOWN, Column, Table, forms, number, write

if TYPE_CHECKING:
    from xybridd.client.connection import Connection
    from xybridd.core.minute import AppMinute

    Row = dict[str, Any]

_MINUTE_MS = 60_000


@click.command()
@click.option("--app", help="Only of this app.")
@forms
def ps(app: str | None, form: str | None) -> None:
    """Who infers now: each open session, the process that holds it, and its calls a second.

    The rate is that of the last minute, or up to two, since it is counted by the minute. A session that lost its app
    ends as client_lost after 30 seconds, unless the app comes back.

    \b
    Example:  xybridd ps --json
    """
    connection = daemon()
    try:
        rows = active(connection, app)
    finally:
        connection.close()
    write(rows, _TABLE, form, empty="nobody has a session open; what was recorded: xybridd sessions list")


def active(connection: Connection, app: str | None = None) -> list[Row]:
    """The open sessions, the busiest first."""
    now_ms = int(time.time() * 1000)
    params: dict[str, Any] = {"active": True, "limit": 10_000} | ({"app": app} if app else {})
    found = connection.call("session.list", params)["sessions"]
    recent: dict[str, list[AppMinute]] = {}
    for each in read_minutes(connection, since_ms=max(0, now_ms - 2 * _MINUTE_MS), app=app):
        recent.setdefault(each.minute.session_id, []).append(each)
    rows = [_row(each, recent.get(each["session_id"], []), now_ms) for each in found]
    return sorted(rows, key=lambda row: (-row["calls_per_second"], -row["started_ms"]))


def _row(session: Row, minutes: list[AppMinute], now_ms: int) -> Row:
    pids = session.get("pids")
    return {
        "app": session["app"],
        "session_id": session["session_id"],
        "state": "open" if pids is None else "connected" if pids else "lost",
        "pids": pids or [],
        "processes": [_process_name(pid) for pid in pids or []],
        "calls_per_second": round(rate(minutes, session["started_at"], now_ms), 3),
        "calls": session["total_inferences"],
        "errors": session["error_count"],
        "models": session["models_used"],
        "started_ms": session["started_at"],
    }


def rate(minutes: list[AppMinute], started_ms: int, now_ms: int) -> float:
    """Calls a second over the minutes that reach into the last one."""
    recent = [each.minute for each in minutes if each.minute.ended_at_ms >= now_ms - _MINUTE_MS]
    if not recent:
        return 0.0
    # A minute begins with its first record: what was quiet before it counts too, as far as the session reaches.
    began_ms = min(*(each.started_at_ms for each in recent), max(started_ms, now_ms - _MINUTE_MS))
    return sum(each.calls for each in recent) / (max(1000, now_ms - began_ms) / 1000)


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, ValueError):
        return ""


def _state(row: Row) -> str:
    if row["state"] == "lost":
        return "lost its app"
    if row["state"] == "open":
        return "open, by no process"
    named = [f"{name} {pid}".strip() for name, pid in zip(row["processes"], row["pids"], strict=True)]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _since(row: Row) -> str:
    return span(time.time() - row["started_ms"] / 1000)


_TABLE = Table(
    [
        "app", "session_id", "state", "pids", "processes", "calls_per_second", "calls", "errors", "models",
        "started_ms",
    ],
    [
        Column("app", lambda row: row["app"]),
        Column("session", lambda row: row["session_id"][:8], 7),
        Column("process", _state, 6, style=lambda row: "red" if row["state"] == "lost" else ""),
        number("calls/s", lambda row: f"{row['calls_per_second']:,.1f}"),
        number("calls", lambda row: count(row["calls"]), 5),
        number("errors", lambda row: count(row["errors"]), 8, style=errors_red),
        Column("since", _since, 4),
        Column("models", lambda row: ", ".join(row["models"]) or UNKNOWN, 8),
    ],
)  # fmt: skip
