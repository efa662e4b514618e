"""``xybridd status``: is it well, what is it doing."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli.output import call, console, json_option, print_json, size, span
from xybridd.cli.upload_page import balance, in_a_line


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """Say whether the daemon is well, and what it is doing.

    \b
    Example:  xybridd status --json
    """
    found = call("daemon.status")
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    ledger, storage, sessions = found["ledger"], found["storage"], found["sessions"]
    well = found["state"] == "ok"
    colour = "green" if well else "red"
    reason = "" if well else f": {found['reason']}"
    out.print(
        f"[{colour}]●[/] xybridd {found['version']} is [{colour}]{found['state']}[/]{reason}, up "
        f"{span(found['uptime_s'])} (pid {found['pid']})"
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    stored = "unknown" if sessions["stored"] is None else f"{sessions['stored']:,}"
    table.add_row("sessions", f"{sessions['active']:,} active, {stored} stored")
    table.add_row("connections", str(found["connections"] - 1))  # this one does not count
    table.add_row("records", f"{ledger['counted']:,} counted of {ledger['received']:,} received")
    for name, amount in (
        ("duplicates", ledger["duplicates"]),
        *((f"rejected ({reason})", amount) for reason, amount in ledger["rejected"].items()),
        *((f"removed ({reason})", amount) for reason, amount in ledger["removed"].items()),
        ("missing batches", ledger["missing_batches"]),
        ("dropped by clients", ledger["dropped_by_clients"]),
    ):
        if amount:
            table.add_row(name, f"{amount:,}")
    for sink, tally in ledger["exports"].items():
        table.add_row(f"exports ({sink})", balance(tally))
    used = size(storage["used_bytes"]) if "used_bytes" in storage else "unknown"
    table.add_row("storage", f"{used} of {size(storage['quota_bytes'])}, {storage['path']}")
    for salvage in storage.get("salvages", []):
        aside = salvage["set_aside"]
        told = f"{salvage['rows_saved']} rows; the damaged file is {aside}" if aside else salvage["reason"]
        table.add_row("salvaged", told)
    table.add_row("upload", in_a_line(found["upload"]))
    table.add_row("device", found["device_id"])
    out.print(table)
