"""What every command shares: a connection to the daemon, JSON out, and the words and forms of the tables."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from xybridd.client.connection import Connection

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def daemon() -> Connection:
    """Raises DaemonUnreachable, which ends the command with exit code 3 and one helpful line."""
    from xybridd.client.connection import Connection

    return Connection.open()


def call(method: str, **params: Any) -> Any:
    connection = daemon()
    try:
        given = {name: value for name, value in params.items() if value is not None}
        return connection.call(method, given)
    finally:
        connection.close()


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def clock_time(timestamp_ms: int) -> str:
    """Local time to the second; days when it is not today."""
    try:
        when = datetime.fromtimestamp(timestamp_ms / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"
    today = datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A length of time in its two largest units: ``3 d 4 h``, ``2 min 5 s``, ``12 s``."""
    left = int(max(0, seconds))
    parts = []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2]) or "0 s"


def size(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def ms(value: float | None) -> str:
    """Milliseconds with three digits that matter."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def ticks(every_s: float, lasting_s: float | None) -> Iterator[float]:
    """Seconds since the start, once at once and then every `every_s` until `lasting_s` is over."""
    started_s = time.monotonic()
    while True:
        yield time.monotonic() - started_s
        left_s = every_s if lasting_s is None else min(every_s, started_s + lasting_s - time.monotonic())
        if left_s <= 0:
            return
        time.sleep(left_s)


def on_terminal() -> bool:
    return sys.stdout.isatty()
