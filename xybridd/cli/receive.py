"""``xybridd receive``: a receiver for a developer's desk, that prints what arrives."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xybridd.cli.output import clock_time, json_option

if TYPE_CHECKING:
    from types import FrameType

    from xybridd.testing.inbox import Event, Taken


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--key", envvar="XYBRIDD_RECEIVER_KEY", help="The API key that is taken; without it, any or none is.")
@json_option
def receive(port: int, host: str, key: str | None, *, as_json: bool) -> None:
    """Receive exports here, to see what a device sends.

    Takes the ingest format and OTLP metrics, checks the form and the key, and prints a line for each event. Ctrl-C ends
    it with a summary. It keeps what came in memory only; http://HOST:PORT/seen has all of it.

    \b
    Example:  xybridd receive --port 8080
              XYBRID_INGEST_URL=http://127.0.0.1:8080 xybridd run
    """
    from xybridd.testing.receiver import Server

    try:
        server = Server((host, port), key=key, told=_print_json if as_json else _print)
    except OSError as error:
        raise click.ClickException(f"cannot listen at {host}:{port}: {error.strerror or error}") from error

    def end(_number: int, _frame: FrameType | None) -> None:
        # The loop that serves cannot be stopped from inside this handler, which interrupts it.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    click.echo(f"listening at {server.url}; Ctrl-C ends it", err=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    _sum_up(server.inbox.seen())


def _print(batch: Taken, is_new: bool) -> None:
    now = clock_time(_now_ms())
    if not is_new:
        click.echo(f"{now}  repeat of {_plain(batch.key)}, not counted again")
        return
    for event in batch.events:
        click.echo(f"{now}  {_line(event)}")
    if batch.metrics:
        click.echo(f"{now}  metrics: {batch.points} points, {len(batch.metrics)} resources")


def _line(event: Event) -> str:
    export = event.payload
    parts = [_plain(event.event_type), _plain(event.session_id) or "(whole device)"]
    if event.event_type == "SessionExport":
        parts.append(f"revision {event.revision}")
        metrics, more = export.get("metrics"), export.get("extensions")
        if isinstance(more, dict) and more.get("app"):
            parts.append(_plain(f"{more['app']} {event.app_version}".strip()))
        if isinstance(metrics, dict):
            inferences, errors = metrics.get("total_inferences", 0), metrics.get("error_count", 0)
            parts.append(_plain(f"{inferences} inferences, {errors} errors"))
    return "  ".join(parts)


def _print_json(batch: Taken, is_new: bool) -> None:
    common: dict[str, Any] = {"idempotency_key": batch.key, "repeat": not is_new}
    for event in batch.events:
        _echo_json({**common, "event": event})
    for resource in batch.metrics:
        _echo_json({**common, "metrics": resource})


def _echo_json(value: Any) -> None:
    click.echo(msgspec.json.encode(value))


def _sum_up(seen: dict[str, Any]) -> None:
    events, metrics = seen["counts"], [batch for batch in seen["batches"] if batch.metrics]
    sessions = {row["session_id"] for row in events}
    if sys.stderr.isatty():
        click.echo(err=True)  # the terminal stands behind its ^C
    refused = sum(1 for request in seen["requests"] if request.status is not None and request.status >= 400)
    click.echo(
        f"{len(events)} events of {len(sessions)} sessions and {sum(batch.points for batch in metrics)} points in "
        f"{seen['deliveries']} batches; {seen['repeats']} repeats, {refused} refused, "
        f"{len(seen['requests'])} requests",
        err=True,
    )


def _now_ms() -> int:
    import time

    return int(time.time() * 1000)


def _plain(text: str) -> str:
    """What came from outside must not move the terminal."""
    return "".join(each if each.isprintable() else "·" for each in text)
