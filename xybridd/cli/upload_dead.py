"""``xybridd upload dead``: what a sink will never take as it is: read it, send it again, or drop it."""

from __future__ import annotations

import time
from typing import Any

import click

from xybridd.cli.output import call, console, json_option, make_sure, plain, print_json, span
from xybridd.errors import XybriddError

_id = click.argument("export_id", metavar="[ID]", required=False, type=click.IntRange(min=1))
_all = click.option("--all", "all_", is_flag=True, help="All of them.")


@click.group()
def dead() -> None:
    """Exports that a sink refused for good: read, replay or drop them.

    \b
    Example:  xybridd upload dead list
    """


@dead.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """All dead letters, oldest first, each with the reason.

    \b
    Example:  xybridd upload dead list --json
    """
    found = call("upload.dead.list")["dead"]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("no dead letters: nothing was refused for good")
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("sink", no_wrap=True)
    table.add_column("session", no_wrap=True)
    table.add_column("rev", justify="right", no_wrap=True)
    table.add_column("age", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for each in found:
        table.add_row(
            str(each["export_id"]),
            each["sink"],
            _what(each),
            str(each["revision"]) if each["kind"] == "session" else "–",
            span(time.time() - each["made_at_ms"] / 1000),
            plain(each["reason"] or ""),
        )
    console().print(table)


def _what(letter: dict[str, Any]) -> str:
    session = plain(letter["session_id"][:8])
    if letter["kind"] == "deletion":
        return f"deletion of {session or 'all'}"
    return session if letter["kind"] == "session" else f"{letter['kind']} {session}".strip()


@dead.command()
@click.argument("export_id", metavar="ID", type=click.IntRange(min=1))
@json_option
def show(export_id: int, *, as_json: bool) -> None:
    """What was to be sent, as JSON.

    \b
    Example:  xybridd upload dead show 17

    Why it was refused is said on standard error; with --json all that is known of it is one object.
    """
    found = call("upload.dead.show", export_id=export_id)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['sink']}: {found['reason']}", err=True)
    if found["payload"] is None:
        raise XybriddError("what was to be sent is lost: the database was damaged")
    print_json(found["payload"])


@dead.command()
@_id
@_all
@json_option
def replay(export_id: int | None, *, all_: bool, as_json: bool) -> None:
    """Queue it again, as if it had never been sent.

    \b
    Example:  xybridd upload dead replay --all
    """
    _one_or_all(export_id, all_=all_)
    found = call("upload.dead.replay", export_id=export_id)
    if as_json:
        print_json(found)
    else:
        click.echo(f"queued again: {found['replayed']:,}; see: xybridd upload status")


@dead.command()
@_id
@_all
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop(export_id: int | None, *, all_: bool, yes: bool, as_json: bool) -> None:
    """Delete it; it will never be sent, and counts as forgotten.

    The session itself stays where it is.

    \b
    Example:  xybridd upload dead drop 17 --yes
    """
    _one_or_all(export_id, all_=all_)
    make_sure(f"Drop {'all dead letters' if all_ else f'the dead letter {export_id}'} for good?", yes=yes)
    found = call("upload.dead.drop", export_id=export_id)
    if as_json:
        print_json(found)
    else:
        click.echo(f"dropped: {found['dropped']:,}")


def _one_or_all(export_id: int | None, *, all_: bool) -> None:
    if (export_id is None) != all_:
        raise click.UsageError("give the ID of one, or --all; `xybridd upload dead list` has the IDs")
