"""``xybridd tail``: records as they come."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xybridd.cli.output import clock_time, daemon, json_option, ms, on_terminal
from xybridd.cli.table import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from xybridd.client.connection import Connection

    Record = dict[str, Any]


@click.command()
@click.option("--app", help="Only of this app.")
@click.option("--model", "model_id", metavar="ID", help="Only of this model.")
@click.option("--errors", "errors_only", is_flag=True, help="Only errors.")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many records.")
@click.option("--for", "lasting_s", type=click.FloatRange(0, 86_400), metavar="SECONDS", help="End after so long.")
@json_option
def tail(
    app: str | None,
    model_id: str | None,
    count: int | None,
    lasting_s: float | None,
    *,
    errors_only: bool,
    as_json: bool,
) -> None:
    """Show records as they come, until Ctrl-C; with --json, an object a line.

    What is shown is counted, and on disk within a second. Nobody waits for this command: where records come faster
    than they are read, some are left out, and a line says how many.

    \b
    Example:  xybridd tail --app kiosk --errors
    """
    connection = daemon()
    try:
        wanted = {"app": app, "model_id": model_id, "errors_only": errors_only}
        connection.call("records.watch", {name: value for name, value in wanted.items() if value})
        if on_terminal() and not as_json:
            click.echo("waiting for records; Ctrl-C ends it", err=True)
        left = count
        for each in _records(connection, lasting_s):
            _show(each, as_json=as_json)
            if left is not None and "dropped" not in each:
                left -= 1
                if not left:
                    return
    finally:
        connection.close()


def _records(connection: Connection, lasting_s: float | None) -> Iterator[Record]:
    """Each record with its session and app; a dict with `dropped` alone stands for so many that were left out."""
    ends_s = None if lasting_s is None else time.monotonic() + lasting_s
    while (left_s := 3600.0 if ends_s is None else ends_s - time.monotonic()) > 0:
        for answer in connection.receive(left_s):
            if answer.method != "records.counted":
                continue
            told = answer.params
            if told["dropped"]:
                yield {"dropped": told["dropped"]}
            for record in told["records"]:
                yield {"app": told["app"], "session_id": told["session_id"]} | record
        sys.stdout.flush()


def _show(record: Record, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
    elif on_terminal():
        from xybridd.cli.output import console

        console().print(line(record), soft_wrap=True)
    else:
        sys.stdout.write(line(record).plain + "\n")


def line(record: Record) -> Text:
    """``13:24:54  kiosk  whisper-tiny@1.0  212 ms  gpu  41.5 tok/s``."""
    from rich.text import Text

    if "dropped" in record:
        return Text(f"… {record['dropped']:,} records came too fast to be shown", style="yellow")
    shown = Text()
    shown.append(clock_time(record["timestamp_ms"]), style="dim")
    shown.append(f"  {printable(record['app'])}  ")
    model, version = record.get("model_id"), record.get("version")
    if model is not None:
        shown.append(printable(f"{model}@{version}" if version else model) + "  ", style="bold")
    if record["type"] == "error":
        shown.append(f"error ({record['category']}): {printable(record['error'])}", style="red")
        return shown
    if record["type"] == "cancelled":
        shown.append(f"cancelled after {ms(record['latency_ms'])} ms", style="yellow")
        return shown
    shown.append(f"{ms(record['latency_ms'])} ms")
    stats = record.get("stats") or {}
    for name, form in (
        ("hardware_used", "{}"),
        ("execution_target", "{}"),
        ("tokens_per_second", "{:.1f} tok/s"),
        ("output_tokens", "{:,} tokens"),
        ("time_to_first_token_ms", "first after {:.0f} ms"),
    ):
        if stats.get(name) is not None:
            shown.append("  " + form.format(stats[name]))
    return shown
