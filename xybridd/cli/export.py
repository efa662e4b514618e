"""``xybridd export``: the bytes that would go next, to be read first; or sessions in a file, to carry elsewhere."""

from __future__ import annotations

import os
import stat
import sys
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec

from xybridd.cli.output import ago, daemon, json_option, print_json, progress, since_ms
from xybridd.cli.sessions import find_session
from xybridd.core.delivery import Job, Target
from xybridd.core.importing import item_from
from xybridd.errors import UnknownSession, XybriddError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.client.connection import Connection

#: What one ``session.list`` may answer.
_LISTED_AT_ONCE = 10_000

#: The preview is as large as a batch may be.
_LONG_S = 60.0


@click.command()
@click.argument("sessions", nargs=-1, metavar="[SESSION]...")
@click.option("--preview", is_flag=True, help="Print the exact bytes that would be sent next; nothing is sent.")
@click.option("--sink", type=click.Choice(["xybrid", "otlp", "file"]), help="With --preview: to this sink.")
@click.option(
    "--to", metavar="FILE", help="Write every session that has ended into FILE, a line each; - is the output."
)
@click.option("--active", is_flag=True, help="With --to: also those that go on.")
@click.option(
    "--since", "ago_s", type=ago, metavar="TIME", help="With --to: only those still open so long ago, such as 7d."
)
@click.option("--force", is_flag=True, help="With --to: replace FILE if it is there.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    sessions: tuple[str, ...],
    *,
    preview: bool,
    sink: str | None,
    to: str | None,
    as_json: bool,
    **which: Any,
) -> None:
    """See what would be sent next, or write sessions into a file.

    With --to and no SESSION, all are written that you may see; `xybridd import` takes the file on any device.

    \b
    Example:  xybridd export --preview
              xybridd export --to /media/stick/exports.jsonl --since 7d
    """
    narrowed = bool(sessions) or any(which.values())
    if preview and (to or narrowed or as_json):
        raise click.UsageError("--preview goes with --sink alone")
    if to is None and (narrowed or as_json):
        raise click.UsageError("where to? give --to FILE")
    if sink and not preview:
        raise click.UsageError("--sink goes with --preview")
    if preview:
        _preview(sink)
    elif to is not None:
        _write(to, sessions, as_json=as_json, **which)
    else:
        click.echo(ctx.get_help())


# The next bytes


def _preview(sink: str | None) -> None:
    """The body on standard output, to the byte; what it is, on standard error."""
    connection = daemon()
    try:
        status = connection.call("upload.status")
        found = connection.call("upload.preview", timeout_s=_LONG_S)["jobs"]
    finally:
        connection.close()
    on = [each["sink"] for each in status["sinks"]]
    if not on:
        click.echo(f"upload is off: {status['reason']}", err=True)
        return
    if sink is not None and sink not in on:
        raise XybriddError(f"the sink {sink} is not on; on are: {', '.join(on)}")
    jobs = [msgspec.convert(each, Job) for each in found if sink in {None, each["target"]["sink"]}]
    if not jobs:
        click.echo("nothing waits to be sent", err=True)
        return
    if len(jobs) > 1:
        names = ", ".join(job.target.sink for job in jobs)
        raise click.UsageError(f"there is something to send to each of {names}; choose one with --sink")
    head, body = _shown(jobs[0])
    click.echo(head, err=True)
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    if sys.stdout.isatty() and not body.endswith(b"\n"):
        click.echo(err=True)


def _shown(job: Job) -> tuple[str, bytes]:
    again = "; it was sent before, and goes again as it was" if job.again else ""
    if job.target.sink == "file":
        from xybridd.upload.file import lines

        return f"append to {job.target.endpoint}: {len(job.items)} lines{again}\n", b"".join(lines(job))
    if job.target.sink == "otlp":
        # Of protobuf nobody can read the bytes; the same message, as OTLP itself writes it in JSON.
        from xybridd.upload import otlp

        request, body, form = otlp.request(job), otlp.readable(job).encode(), "protobuf, here as JSON"
    else:
        from xybridd.upload import xybrid

        request, body, form = xybrid.request(job), xybrid.body(job), f"{len(xybrid.body(job)):,} bytes, as below"
    headers = [f"{name}: {value}" for name, value in request.headers.items()]
    size = f"({form}; {len(request.body):,} bytes compressed{again}; the key is not shown)"
    return "\n".join([f"POST {request.url}", *headers, size, ""]), body


# Into a file


def _write(to: str, named: tuple[str, ...], *, active: bool, ago_s: float | None, force: bool, as_json: bool) -> None:
    connection = daemon()
    try:
        if named:
            wanted = list(dict.fromkeys(find_session(connection, each) for each in named))
        else:
            wanted = _listed(connection, active=active, since=since_ms(ago_s))
        if to == "-":
            written = _write_lines(connection, wanted, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with _new_file(Path(to), force=force) as file:
                written = _write_lines(connection, wanted, file)
    finally:
        connection.close()
    if as_json and to != "-":
        print_json({"path": to, "sessions": written})
    elif to == "-":
        click.echo(f"{written:,} sessions", err=True)
    else:
        click.echo(f"{to}: {written:,} sessions; on the device that is to send them: xybridd import {Path(to).name}")


def _listed(connection: Connection, *, active: bool, since: int | None) -> list[str]:
    """The ids of all sessions there are, oldest first; read in parts, each from where the last one ended."""
    found: dict[str, None] = {}
    until: int | None = None
    while True:
        params = {"limit": _LISTED_AT_ONCE, "active": None if active else False, "since_ms": since, "until_ms": until}
        given = {name: value for name, value in params.items() if value is not None}
        rows = connection.call("session.list", given, timeout_s=_LONG_S)["sessions"]
        new = [row["session_id"] for row in rows if row["session_id"] not in found]
        found.update(dict.fromkeys(new))
        if len(rows) < _LISTED_AT_ONCE or not new:
            return list(reversed(found))
        until = rows[-1]["started_at"]


def _write_lines(connection: Connection, session_ids: list[str], file: BinaryIO) -> int:
    """How many; one that was deleted meanwhile is left out."""
    written = 0
    with progress() as bar:
        for session_id in bar.track(session_ids, description="writing"):
            try:
                found = connection.call("session.export", {"session_id": session_id})
            except UnknownSession:
                continue
            file.write(_line(found))
            written += 1
    return written


def _line(found: dict[str, Any]) -> bytes:
    """As the sink `file` writes it, under a key that is the same for the same revision."""
    from datetime import UTC, datetime

    from xybridd.upload.file import lines

    ended = found["session"]["ended_at"]
    item = item_from(msgspec.json.encode(found), int(datetime.now(UTC).timestamp() * 1000))
    key = uuid.uuid5(uuid.NAMESPACE_URL, f"xybridd:{item.device_id}:export\n{item.session_id} {item.revision} {ended}")
    return lines(Job(Target("file", ""), str(key), [item]))[0]


@contextmanager
def _new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that is there when it is whole and on disk, and not before. Nobody else may read it."""
    _check_free(path, force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        _check_free(path, force=force)
        temporary.replace(path)
    except OSError as error:
        raise XybriddError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _check_free(path: Path, *, force: bool) -> None:
    try:
        found = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise XybriddError(f"{path} is there, and is not a file that could be replaced")
    if not force:
        raise XybriddError(f"{path} is there; give another name, or --force to replace it")
