"""``xybridd status``: is it well, what is it doing, is anything waiting, what should I do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from xybridd import __version__
from xybridd.cli.output import call, clock_time, console, json_option, plain, print_json, size, span
from xybridd.cli.upload_page import balance, in_a_line
from xybridd.core.health import clients, daemon, storage, upload
from xybridd.core.health.finding import Level, by_weight
from xybridd.core.words import many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.core.health.finding import Finding

_COLOURS = {Level.PROBLEM: "red", Level.WARNING: "yellow"}


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """Say whether the daemon is well, what it does, what waits, and what to do.

    \b
    Example:  xybridd status
    """
    found = call("daemon.status")
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    well = found["state"] == "ok"
    colour, word = ("green", "well") if well else ("red", found["state"])
    reason = "" if well else f": {plain(found['reason'])}"
    out.print(f"[{colour}]●[/] xybridd {found['version']} is [{colour}]{word}[/]{reason}, up {span(found['uptime_s'])}")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, value)
    for number, todo in enumerate(_todos(found)):
        table.add_row("to do" if number == 0 else "", todo)
    out.print(table)


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    ledger, sessions, kept = found["ledger"], found["sessions"], found["storage"]
    stored = "unknown" if sessions["stored"] is None else f"{sessions['stored']:,}"
    connected = found["connections"] - 1  # this one does not count
    yield "doing", f"{sessions['active']:,} of {stored} sessions active, {many(connected, 'connection')}"
    yield "records", _records(ledger)
    if lost := _lost(ledger):
        yield "lost", lost
    yield "waiting", _waiting(found["upload"])
    yield "upload", in_a_line(found["upload"])
    for sink, tally in ledger["exports"].items():
        yield f"to {sink}", balance(tally)
    used = size(kept["used_bytes"]) if "used_bytes" in kept else "unknown"
    yield "storage", f"{used} of {size(kept['quota_bytes'])}, {plain(kept['path'])}"
    yield "device", plain(found["device_id"])
    for client in clients.recent(found.get("refused_clients", []), _now_ms()):
        yield "refused", f"[yellow]{plain(clients.in_a_line(client))}, last {clock_time(client['last_at_ms'])}[/]"


def _now_ms() -> int:
    return int(time.time() * 1000)


def _records(ledger: dict[str, Any]) -> str:
    """The first equation of the ledger; what is nothing is left out."""
    parts = [f"{ledger['counted']:,} counted"]
    if ledger["duplicates"]:
        parts.append(many(ledger["duplicates"], "duplicate"))
    parts += [f"{amount:,} rejected ({plain(reason)})" for reason, amount in ledger["rejected"].items() if amount]
    gone = [f"{amount:,} removed ({plain(reason)})" for reason, amount in ledger["removed"].items() if amount]
    deleted = f"; of them {', '.join(gone)}" if gone else ""
    return f"{ledger['received']:,} received = {' + '.join(parts)}{deleted}"


def _lost(ledger: dict[str, Any]) -> str:
    """What only producers can tell of: it never came."""
    parts = []
    if ledger["missing_batches"]:
        parts.append(many(ledger["missing_batches"], "batch that never came", "batches that never came"))
    if ledger["dropped_by_clients"]:
        parts.append(f"{ledger['dropped_by_clients']:,} dropped by apps whose rings were full")
    return ", ".join(parts)


def _waiting(told: dict[str, Any]) -> str:
    from xybridd.cli.checks.upload import spooled

    queued = {sink["sink"]: sink["queued"] for sink in told["sinks"] if sink["queued"]}
    queued |= {sink: tally["queued"] for sink, tally in told.get("not_configured", {}).items() if tally["queued"]}
    parts = [f"{many(number, 'export')} for {sink}" for sink, number in queued.items()]
    if files := spooled().files:
        parts.append(f"{many(files, 'ring')} of exited processes")
    return ", ".join(parts) or "nothing"


def _todos(found: dict[str, Any]) -> list[str]:
    """By the doctor's judgement of what the daemon told; a first step where nothing is wrong and nothing is there."""
    wrong = [each for each in by_weight(_judged(found)) if each.level in _COLOURS]
    todos = [f"[{_COLOURS[each.level]}]{plain(each.says)}[/]\n→ [bold]{plain(each.mend or '')}[/]" for each in wrong]
    if todos:
        return todos
    if not found["ledger"]["received"]:
        return ["nothing was recorded yet; try: [bold]xybridd record inference whisper-tiny 1.0 212[/]"]
    return ["[green]nothing[/]; to look: [bold]xybridd sessions show[/]"]


def _judged(found: dict[str, Any]) -> list[Finding]:
    kept = found["storage"]
    return [
        *daemon.judge(daemon.DaemonFacts(answers="running", version=__version__, status=found)),
        *clients.judge(clients.ClientFacts(refused=found.get("refused_clients"), now_ms=_now_ms())),
        *upload.judge(upload.UploadFacts(status=found["upload"], by_daemon=True)),
        *storage.judge_database(
            storage.DatabaseFacts(
                path=kept["path"], looked="daemon", used_bytes=kept.get("used_bytes"), quota_bytes=kept["quota_bytes"]
            )
        ),
    ]
