"""``xybridd sessions``: what was recorded, as a table, live, or as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from xybridd.cli.output import (
    call,
    clock_time,
    console,
    daemon,
    json_option,
    ms,
    on_terminal,
    plain,
    print_json,
    span,
    ticks,
)
from xybridd.cli.table import UNKNOWN, Column, Table, forms, number, write
from xybridd.errors import UnknownSession, XybriddError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Group

    from xybridd.client.connection import Connection

_id_argument = click.argument("session_id", required=False)


def _state_colour(row: dict[str, Any]) -> str:
    return "green" if row["ended_at"] is None else ""


def _error_colour(row: dict[str, Any]) -> str:
    return "red" if row["error_count"] else ""


@click.group()
def sessions() -> None:
    """Look at what was recorded.

    Where a command takes a session's ID, its first characters do, and without one the newest session is meant.

    \b
    Example:  xybridd sessions show --watch
    """


def find_session(connection: Connection, given: str | None, app: str | None = None) -> str:
    """The id that starts with `given`; the newest session's when nothing is given."""
    found: list[dict[str, Any]] = connection.call(
        "session.list", {"limit": 10_000 if given else 1, **({"app": app} if app else {})}
    )["sessions"]
    if not given:
        if not found:
            raise UnknownSession("nothing was recorded yet; try: xybridd record inference whisper-tiny 1.0 212")
        return str(found[0]["session_id"])
    matching = [str(each["session_id"]) for each in found if each["session_id"].startswith(given.lower())]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise XybriddError(f"{len(matching)} sessions start with {given}; give more characters of it")
    raise UnknownSession(f"no session starts with {given}; see: xybridd sessions list")


@sessions.command("list")
@click.option("--active/--ended", default=None, help="Only those that are open, or only those that are not.")
@click.option("--app", help="Only of this app.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@forms
def list_(*, active: bool | None, app: str | None, limit: int, form: str | None) -> None:
    """The sessions, newest first.

    \b
    Example:  xybridd sessions list --app kiosk --ended
    """
    found = call("session.list", active=active, app=app, limit=limit)["sessions"]
    write(found, _LIST, form, empty="no sessions; try: xybridd record inference whisper-tiny 1.0 212")


_LIST = Table(
    [
        "session_id", "app", "started_at", "ended_at", "end_reason", "revision", "total_inferences",
        "total_latency_ms", "avg_latency_ms", "error_count", "models_used",
    ],
    [
        Column("session", lambda row: row["session_id"][:8]),
        Column("app", lambda row: row["app"]),
        Column("started", lambda row: clock_time(row["started_at"]), 7),
        Column("state", lambda row: row["end_reason"] or "active", 6, style=_state_colour),
        number("calls", lambda row: f"{row['total_inferences']:,}"),
        number("errors", lambda row: f"{row['error_count']:,}", 8, style=_error_colour),
        number("avg ms", lambda row: f"{row['avg_latency_ms']:,}", 5),
        Column("models", lambda row: ", ".join(row["models_used"]) or UNKNOWN, 4, folds=True),
    ],
)  # fmt: skip


@sessions.command()
@_id_argument
@click.option("--watch", is_flag=True, help="Live, until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds, with --watch."
)
@click.option("--for", "lasting", type=click.FloatRange(0, 86_400), help="Seconds, with --watch.")
@click.option("--app", help="Of this app, when no ID is given.")
@json_option
def show(
    session_id: str | None,
    app: str | None,
    *,
    watch: bool,
    every: float,
    lasting: float | None,
    as_json: bool,
) -> None:
    """One session: its models with their latencies, its errors.

    \b
    Example:  xybridd sessions show --watch
    """
    connection = daemon()
    try:
        if watch:
            _watch(connection, session_id, app, every, lasting)
            return
        found = connection.call("session.get", {"session_id": find_session(connection, session_id, app)})
        if as_json:
            print_json(found)
        else:
            console().print(_page(found))
    finally:
        connection.close()


def _watch(
    connection: Connection, session_id: str | None, app: str | None, every: float, lasting: float | None
) -> None:
    wanted = find_session(connection, session_id, app)
    if not on_terminal():
        # A log file, a pipe: a line a time, and the whole at the end.
        out = console()
        found: dict[str, Any] = {}
        for _ in ticks(every, lasting):
            found = connection.call("session.get", {"session_id": wanted})
            click.echo(
                f"{found['total_inferences']} calls, avg {found['avg_latency_ms']} ms, {found['error_count']} errors"
            )
        out.print(_page(found))
        return
    from rich.live import Live

    with Live(console=console(), auto_refresh=False) as live:
        for _ in ticks(every, lasting):
            live.update(_page(connection.call("session.get", {"session_id": wanted})), refresh=True)


@sessions.command()
@_id_argument
def export(session_id: str | None) -> None:
    """The session's export (TelemetryExport 2.0), as JSON; nothing is uploaded.

    \b
    Example:  xybridd sessions export > session.json
    """
    connection = daemon()
    try:
        print_json(connection.call("session.export", {"session_id": find_session(connection, session_id)}))
    finally:
        connection.close()


@sessions.command()
@_id_argument
@json_option
def end(session_id: str | None, *, as_json: bool) -> None:
    """End a session; nothing is deleted.

    \b
    Example:  xybridd sessions end 65c1c79a
    """
    connection = daemon()
    try:
        export = connection.call("session.end", {"session_id": find_session(connection, session_id)})
    finally:
        connection.close()
    if as_json:
        print_json(export)
        return
    metrics = export["metrics"]
    click.echo(
        f"ended {export['session']['session_id']}: {metrics['total_inferences']} calls, {metrics['error_count']} errors"
    )


# How a session looks


def _page(found: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    more = found["extensions"]
    ended = found["ended_at"]
    now_ms = time.time() * 1000 if ended is None else ended
    state = "[green]active[/]" if ended is None else f"ended ({more['end_reason']})"
    head = (
        f"[bold]{plain(more['app'])}[/] · session {found['session_id']} · {state} · started "
        f"{clock_time(found['started_at'])}, {span((now_ms - found['started_at']) / 1000)}"
    )
    labels = "  ".join(f"[dim]{plain(key)}=[/]{plain(value)}" for key, value in more.get("labels", {}).items())
    total = f"[bold]{found['total_inferences']:,}[/] calls, avg [bold]{found['avg_latency_ms']:,}[/] ms, " + (
        f"[red]{found['error_count']:,} errors[/]" if found["error_count"] else "no errors"
    )
    parts: list[Any] = [Text.from_markup(head)]
    if labels:
        parts.append(Text.from_markup(labels))
    parts += [Text.from_markup(total), *map(Text.from_markup, _processes(more)), ""]
    if found["by_model"]:
        parts += [_models(found), ""]
    if found["errors"]:
        parts.append(_errors(found))
    return Group(*parts)


def _processes(more: dict[str, Any]) -> Iterator[str]:
    """How the processes went that shared the session, and the calls that were in progress when one was lost."""
    if went := more.get("processes"):
        yield "processes: " + ", ".join(f"{number:,} {plain(outcome)}" for outcome, number in went.items())
    for each in more.get("calls_in_progress", []):
        yield f"[yellow]in progress when lost: {plain(called(each))}, running for {length(each['running_ms'])}[/]"


def called(interrupted: dict[str, Any]) -> str:
    """The model of an interrupted call as people name it: ``llama-3.2-3b 1.0``."""
    return f"{interrupted['model_id']} {interrupted['version']}".rstrip()


def length(running_ms: float) -> str:
    """How long a call had been running; milliseconds below one second."""
    return f"{running_ms:.0f} ms" if running_ms < 1000 else span(running_ms / 1000)


def _models(found: dict[str, Any]) -> Any:
    from rich.table import Table

    details = found["extensions"].get("models", {})
    cancelled = any("cancelled" in each for each in details.values())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("model", overflow="fold")
    counts = ("calls", "errors", *(["cancelled"] if cancelled else []))
    for title in (*counts, "p50 ms", "p90", "p99", "max", "tokens/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for key, metric in found["by_model"].items():
        latency = details.get(key, {}).get("latency_ms", {})
        rate = details.get(key, {}).get("stats", {}).get("tokens_per_second", {}).get("mean")
        table.add_row(
            plain(key.removesuffix("@")),
            f"{metric['call_count']:,}",
            f"[red]{metric['error_count']:,}[/]" if metric["error_count"] else "0",
            *([f"{details.get(key, {}).get('cancelled', 0):,}"] if cancelled else []),
            *(ms(latency.get(name)) for name in ("p50", "p90", "p99", "max")),
            "–" if rate is None else f"{rate:.1f}",
        )
    return table


def _errors(found: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("category", no_wrap=True)
    table.add_column("last", no_wrap=True)
    table.add_column("error", overflow="fold")
    for error in sorted(found["errors"], key=lambda each: -int(each["count"])):
        table.add_row(f"{error['count']:,}", error["category"], clock_time(error["last_seen"]), plain(error["message"]))
    return table
