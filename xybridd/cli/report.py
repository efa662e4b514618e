"""``xybridd report``: what was recorded as one page to send, or as JSON, CSV, Markdown."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from xybridd.cli.output import ago, daemon, progress, size, span
from xybridd.cli.report_facts import empty_sums, read_facts, read_sums, span_of
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from xybridd.core.report.figures import Report

_FORMATS = ("html", "csv", "json", "md")
_HOUR_MS = 3_600_000


@click.command()
@click.option("--since", "since_s", type=ago, metavar="TIME", default="7d", show_default=True, help="From so long ago.")
@click.option("--until", "until_s", type=ago, metavar="TIME", default="0s", help="Until so long ago; without it, now.")
@click.option("--app", help="Only of this app.")
@click.option("-o", "--output", metavar="FILE", help="Where to; - is standard output.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Without it, by the name of FILE, else html.")
def report(since_s: float, until_s: float, app: str | None, output: str | None, form: str | None) -> None:
    """Make one page of what was recorded: how it ran, and how heat, power and hardware changed that.

    The page is one file that needs no network. Without -o it is written to xybridd-report.html here; the other forms
    go to standard output.

    \b
    Example:  xybridd report --since 7d -o report.html
              xybridd report --format csv | head
    """
    if until_s >= since_s:
        raise click.UsageError("--until is to be later than --since: give a shorter time")
    form = form or _form_of(output)
    if output is None:
        output = "xybridd-report.html" if form == "html" else "-"
    made = _read(since_s, until_s, app)
    written = _rendered(made, form)
    if output == "-":
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()
        return
    _write(Path(output), written)
    totals = made.totals
    click.echo(
        f"{output}: {span((made.until_ms - made.since_ms) / 1000)}, {totals.sessions:,} sessions, "
        f"{totals.calls:,} calls, {totals.errors:,} errors; {size(len(written))}"
        + (", to be opened in any browser" if form == "html" else "")
    )


def _form_of(output: str | None) -> str:
    suffix = Path(output or "").suffix.lstrip(".").lower()
    return suffix if suffix in _FORMATS else "html"


def _read(since_s: float, until_s: float, app: str | None) -> Report:
    from xybridd.core.report.make import make_report

    asked = span_of(since_s, until_s)
    connection = daemon()
    try:
        with progress() as bar:
            task = bar.add_task("reading hours", total=(asked.until_ms - asked.since_ms) // _HOUR_MS or 1)
            sums = read_sums(
                connection,
                empty_sums(asked),
                asked.since_ms,
                asked.until_ms,
                app,
                lambda at_ms: bar.update(task, completed=(at_ms - asked.since_ms) // _HOUR_MS),
            )
        return make_report(read_facts(connection, asked, app, sums))
    finally:
        connection.close()


def _rendered(made: Report, form: str) -> bytes:
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"
    if form == "csv":
        from xybridd.report.table import table

        return table(made).encode()
    if form == "md":
        from xybridd.report.markdown import markdown

        return markdown(made).encode()
    from xybridd.report.page import page

    return page(made).encode()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: what was there stays until the new one is."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise XybriddError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
