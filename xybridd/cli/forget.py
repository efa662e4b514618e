"""``xybridd forget``: delete sessions, here and wherever they were sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xybridd.cli.output import clock_time, daemon, json_option, make_sure, print_json
from xybridd.cli.sessions import find_session

if TYPE_CHECKING:
    from xybridd.client.connection import Connection

#: Deleting all there is, and overwriting where it stood, takes a while on a slow card.
_LONG_S = 600.0


@click.command()
@click.argument("session_id", metavar="[SESSION]", required=False)
@click.option("--all", "all_", is_flag=True, help="Everything that was recorded here, of all users.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(session_id: str | None, *, all_: bool, yes: bool, as_json: bool) -> None:
    """Delete a session, here and where it was sent to.

    It is gone from this device at once. What waits to be sent of it is not sent, and a sink that has it, or may have
    it, is asked to delete it. The first characters of its ID do; --all deletes everything.

    \b
    Example:  xybridd forget 65c1c79a
    """
    if (session_id is None) != all_:
        raise click.UsageError("give a session's ID, or --all; `xybridd sessions list` has the IDs")
    connection = daemon()
    try:
        wanted = None if session_id is None else find_session(connection, session_id)
        click.echo(f"about to delete {_described(connection, wanted)}", err=True)
        make_sure("There is no way back. Delete?", yes=yes)
        params = {"all": True} if wanted is None else {"session_id": wanted}
        done = connection.call("data.forget", params, timeout_s=_LONG_S)
    finally:
        connection.close()
    if as_json:
        print_json(done)
        return
    sessions, records, asked = done["sessions"], done["records"], done["deletion_requests"]
    click.echo(f"deleted: {sessions:,} sessions with {records:,} records")
    if asked:
        click.echo(f"queued: {asked:,} requests to sinks that they delete it too; see: xybridd upload status")
    else:
        click.echo("no sink that is on has any of it")


def _described(connection: Connection, session_id: str | None) -> str:
    if session_id is None:
        stored = connection.call("daemon.status")["sessions"]["stored"]
        many = "all" if stored is None else f"all {stored:,}"
        return f"{many} sessions of all users, what waits to be sent of them, and how the device was meanwhile"
    found: dict[str, Any] = connection.call("session.get", {"session_id": session_id})
    app = "".join(each for each in found["extensions"]["app"] if each.isprintable())
    active = ", which is active and is ended" if found["ended_at"] is None else ""
    return (
        f"session {session_id} of {app}, started {clock_time(found['started_at'])}: "
        f"{found['total_inferences']:,} calls, {found['error_count']:,} errors{active}"
    )
