"""``xybridd dashboard``: the page of ``xybridd report``, live, on loopback, for as long as the command runs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import webbrowser
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xybridd.cli.output import ago

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0: any that is free.")
@click.option("--since", "since_s", type=ago, metavar="TIME", default="24h", show_default=True, help="How far back.")
@click.option("--app", help="Only of this app.")
@click.option("--open/--no-open", "open_", default=True, help="Whether to open it in a browser.")
@click.option("--for", "lasting_s", type=ago, metavar="TIME", help="End after so long; without it, with Ctrl-C.")
def dashboard(port: int, since_s: float, app: str | None, lasting_s: float | None, *, open_: bool) -> None:
    """Show the report in a browser, kept up to date, until Ctrl-C.

    It is served on this machine's loopback alone, to whoever has the address with its token.

    \b
    Example:  xybridd dashboard --since 1h
    """
    from xybridd.cli.dashboard_feed import Feed
    from xybridd.cli.dashboard_server import Server

    feed = Feed(since_s, app)
    feed.now()  # without a daemon there is nothing to show
    try:
        server = Server(port, feed)
    except OSError as error:
        raise click.ClickException(f"cannot listen at 127.0.0.1:{port}: {error.strerror or error}") from error

    def end(_number: int, _frame: FrameType | None) -> None:
        # The loop that serves cannot be stopped from inside this handler, which interrupts it.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if lasting_s is not None:
        timer = threading.Timer(lasting_s, server.shutdown)
        timer.daemon = True
        timer.start()
    click.echo(f"the dashboard is at {server.url} until Ctrl-C")
    with _opened(server.url, wanted=open_):
        server.serve_forever(poll_interval=0.1)
    server.server_close()
    if sys.stdout.isatty():
        click.echo()  # the terminal stands behind its ^C


@contextmanager
def _opened(url: str, *, wanted: bool) -> Iterator[None]:
    """A browser is given a file that leads there: an argument of its command would show the token to everybody here."""
    if not wanted or not _has_screen():
        yield
        return
    folder = tempfile.mkdtemp(prefix="xybridd-dashboard-")
    try:
        file = Path(folder) / "dashboard.html"
        file.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0;url={url}"><title>xybridd</title>')
        webbrowser.open(file.as_uri())
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
