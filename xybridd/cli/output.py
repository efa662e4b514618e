"""What every command shares: a connection to the daemon, JSON out, and the words and forms of the tables."""

from __future__ import annotations

import getpass
import grp
import os
import re
import stat
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xybridd.core.words import size, span
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress

    from xybridd.client.connection import Connection

__all__ = ["size", "span"]  # not made here, but what every page of a command wants

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def daemon() -> Connection:
    """Raises DaemonUnreachable or PermissionDenied, which end the command with one helpful line (exit codes 3, 4)."""
    from xybridd.client.connection import Connection
    from xybridd.errors import DaemonUnreachable, PermissionDenied

    try:
        return Connection.open()
    except DaemonUnreachable as error:
        for path in error.tried:
            if group := _group_to_join(path):
                raise PermissionDenied(
                    f"{path} is for the members of the group {group}; join it, and log in again: "
                    f"sudo usermod -aG {group} {getpass.getuser()}"
                ) from error
        raise


def _group_to_join(path: str) -> str | None:
    """The group whose members may connect where we may not."""
    try:
        found = Path(path).stat()
        if not stat.S_ISSOCK(found.st_mode) or os.access(path, os.W_OK) or not found.st_mode & stat.S_IWGRP:
            return None
        return grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return None


def call(method: str, **params: Any) -> Any:
    connection = daemon()
    try:
        given = {name: value for name, value in params.items() if value is not None}
        return connection.call(method, given)
    finally:
        connection.close()


def print_json(value: Any) -> None:
    """As UTF-8, which JSON is, whatever the terminal knows."""
    click.echo(msgspec.json.format(json_bytes(value), indent=2))


def json_bytes(value: Any) -> bytes:
    """A name of a file that is no text comes out with a mark where its bytes are."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_as_text(msgspec.to_builtins(value)))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, list) else value


def console() -> Console:
    from xybridd.cli.terminal import page

    return page()


def say_done(sentence: str) -> None:
    """The line that a command ends with which has done something, in green where there is colour."""
    console().print(f"[green]{plain(sentence)}[/]", soft_wrap=True)


def clock_time(timestamp_ms: int) -> str:
    """Local time to the second; days when it is not today."""
    try:
        when = datetime.fromtimestamp(timestamp_ms / 1000).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"
    today = datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M:%S")


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


def plain(text: str) -> str:
    """What an app or a server wrote, as it is: brackets are not rich's markup, control characters do nothing."""
    from rich.markup import escape

    return escape("".join(each if each.isprintable() else "·" for each in text))


def progress() -> Progress:
    """A bar on standard error, on a terminal only, gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def make_sure(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone. Raises UsageError where there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; give --yes if you mean it")
    if not click.confirm(question, err=True):
        raise XybriddError("nothing was done")


_UNITS_S = {"d": 86_400, "h": 3600, "min": 60, "m": 60, "s": 1}


def ago(text: str) -> float:
    """The type of an option that takes a length of time, such as ``7d``, ``24h``, ``30min``, ``45s``: its seconds."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?) ?(d|h|min|m|s)", text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no length of time; expected something like 7d, 24h, 30min or 45s")
    return float(found[1]) * _UNITS_S[found[2]]


def since_ms(ago_s: float | None) -> int | None:
    """The UTC milliseconds of so long ago."""
    return None if ago_s is None else max(0, int((time.time() - ago_s) * 1000))
