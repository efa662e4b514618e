"""``xybridd top``: live, each app and model, and the device; one page of text where there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import daemon, json_option, on_terminal, print_json
from xybridd.cli.table import fitted_lines, room
from xybridd.cli.top_page import NOTHING, columns, device_lines, title
from xybridd.cli.top_state import SORTS, Poll, TopState

if TYPE_CHECKING:
    from xybridd.client.connection import Connection

_WINDOWS = {"1m": 60, "5m": 300, "15m": 900}


@click.command()
@click.option("--window", type=click.Choice(list(_WINDOWS)), default="5m", show_default=True, help="What is counted.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="rate", show_default=True)
@click.option("--filter", "wanted", default="", metavar="WORDS", help="Only apps and models with these in their names.")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, metavar="SECONDS",
    help="How often it is looked at.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="One page of text; also what a pipe gets.")
@json_option
def top(*, window: str, sort: str, wanted: str, every_s: float, once: bool, as_json: bool) -> int | None:
    """Watch each app and model live, and the device.

    Rate, percentiles, errors, tokens, and where it ran; ? shows the keys. It works at 60 columns, over ssh, and
    without colour (NO_COLOR), and goes on when the daemon was away.

    \b
    Example:  xybridd top --window 1m --filter whisper
    """
    connection = daemon()
    if not once and not as_json and on_terminal() and sys.stdin.isatty():
        from xybridd.cli.top_screen import TopScreen

        screen = TopScreen(connection, window_s=_WINDOWS[window], sort=sort, wanted=wanted, every_s=every_s)
        screen.run()
        return screen.return_code
    try:
        state = TopState()
        state.take(poll(connection, state, device=True))
    finally:
        connection.close()
    rows = state.rows(_WINDOWS[window], sort, wanted)
    if as_json:
        print_json(_for_programs(state, rows, _WINDOWS[window]))
        return None
    _page(state, rows, _WINDOWS[window])
    return None


def poll(connection: Connection, state: TopState, *, device: bool) -> Poll:
    """Ask the daemon for what the state needs next. Raises DaemonUnreachable, WireError."""
    now_ms = int(time.time() * 1000)
    minutes = list(read_minutes(connection, since_ms=state.since_ms(now_ms)))
    sessions = len(connection.call("session.list", {"active": True, "limit": 10_000})["sessions"])
    details = connection.call("device.capabilities")["details"] if device else None
    return Poll(now_ms, time.monotonic(), minutes, sessions, details)


def _for_programs(state: TopState, rows: list[dict[str, Any]], window_s: int) -> dict[str, Any]:
    return {
        "at_ms": state.at_ms, "window_s": window_s, "sessions": state.sessions, "rows": rows, "device": state.device
    }  # fmt: skip


def _page(state: TopState, rows: list[dict[str, Any]], window_s: int) -> None:
    width = room()
    click.echo(title(state, window_s, width or 200).plain)
    for line in device_lines(state, width or 120):
        click.echo(line.plain)
    click.echo()
    if not rows:
        click.echo(NOTHING)
        return
    for text in fitted_lines(rows, columns(), width):
        click.echo(text)
