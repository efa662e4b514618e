"""``xybridd models``: what each model did, where it ran, and when it was used last."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli import when
from xybridd.cli.figures import FIELDS, HARDWARE, SPLITS, TARGETS, columns, figures, split, splits
from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import clock_time, daemon
from xybridd.cli.stats import NOTHING
from xybridd.cli.table import Column, Table, forms, write
from xybridd.core.grouping import OF_CALL, group


@click.command()
@when.since("30d")
@when.until
@click.option("--app", help="Only of this app.")
@forms
def models(since_ms: int, until_ms: int | None, app: str | None, form: str | None) -> None:
    """Each model: calls, errors, percentiles, tokens, where it ran, when it was used last.

    \b
    Example:  xybridd models --app kiosk
    """
    connection = daemon()
    try:
        groups = group(read_minutes(connection, since_ms=since_ms, until_ms=until_ms, app=app), OF_CALL)
    finally:
        connection.close()
    rows = [
        dict(zip(OF_CALL, one.key, strict=True)) | figures(one) | splits(one) | {"last_used_ms": one.last_ms}
        for one in groups
    ]
    write(rows, _table(), form, empty=NOTHING)


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']}@{row['version']}" if row["version"] else row["model"]


def _table() -> Table:
    return Table(
        [*OF_CALL, *FIELDS, *SPLITS, "last_used_ms"],
        [
            Column("model", _name),
            *columns(),
            Column("target", lambda row: split(row, "target", TARGETS), 4),
            Column("hardware", lambda row: split(row, "hardware", HARDWARE), 5),
            Column("last used", lambda row: clock_time(row["last_used_ms"]), 6),
        ],
    )
