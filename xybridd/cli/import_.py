"""``xybridd import``: what another device wrote into a file, queued to be sent from here."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import click

from xybridd.cli.output import daemon, json_option, print_json, progress
from xybridd.core.importing import item_from
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.client.connection import Connection

#: What stands around the lines in a request, generously.
_FRAME_BYTES = 256

#: Lines in one request: it is one transaction, and should hold up nobody for long.
_AT_ONCE = 1000

_LONG_S = 120.0


class _Source(NamedTuple):
    name: str
    file: BinaryIO


@click.command("import")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@json_option
def import_(files: tuple[str, ...], *, as_json: bool) -> None:
    """Queue what another device wrote into a file; - reads standard input.

    Takes what the sink `file` and `xybridd export --to` write: an event or a TelemetryExport a line. All lines are
    checked before any is taken, and what is known already is not sent again, so a file may come twice.

    \b
    Example:  xybridd import /media/stick/*.jsonl
    """
    connection = daemon()
    try:
        longest = connection.call("daemon.status")["limits"]["max_frame_bytes"] - _FRAME_BYTES
        with ExitStack() as stack:
            sources = [_opened(name, stack) for name in files]
            lines = _check(sources, longest)
            if not lines:
                raise XybriddError(f"there is no export in {', '.join(source.name for source in sources)}")
            queued, known = _send(connection, sources, longest, lines)
    finally:
        connection.close()
    if as_json:
        print_json({"queued": queued, "known": known})
    else:
        more = f", {known:,} were known already" if known else ""
        click.echo(f"queued {queued:,} exports{more}; see: xybridd upload status")


def _opened(name: str, stack: ExitStack) -> _Source:
    """A file that can be read twice: what comes from a pipe is laid aside."""
    if name == "-":
        aside = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        shutil.copyfileobj(sys.stdin.buffer, aside)
        return _Source("standard input", aside)
    try:
        file = stack.enter_context(open(name, "rb"))  # noqa: PTH123, SIM115 - likewise
        if not file.seekable():
            aside = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            shutil.copyfileobj(file, aside)
            return _Source(name, aside)
    except OSError as error:
        raise XybriddError(f"{name} cannot be read: {error.strerror or error}") from error
    return _Source(name, file)


def _lines(sources: list[_Source], longest: int) -> Iterator[tuple[_Source, int, bytes]]:
    """Each line that is not empty, with source and number, from the start; of one that is too long, the beginning."""
    for source in sources:
        source.file.seek(0)
        number = 0
        while line := source.file.readline(longest + 1):
            number += 1
            if len(line) > longest and not line.endswith(b"\n"):
                yield source, number, line
            elif stripped := line.strip():
                yield source, number, stripped


def _check(sources: list[_Source], longest: int) -> int:
    """How many lines there are. Raises XybriddError, which names file and line."""
    count = 0
    for source, number, line in _lines(sources, longest):
        place = f"{source.name}, line {number}"
        if len(line) > longest and line.startswith(b"{"):
            raise XybriddError(
                f"{place} is longer than the daemon takes; raise max_frame_bytes under [limits] in its config, and "
                "start it again. Nothing was taken"
            )
        try:
            line.decode()
            item_from(line, 0)
        except ValueError as error:
            raise XybriddError(f"{place}: {_said(error, line)}. Nothing was taken") from error
        count += 1
    return count


def _said(error: ValueError, line: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not an export: it is not text"
    if line.startswith(b"{") and not line.endswith(b"}"):
        return "not an export: the line is cut off. Delete it to import the others"
    return str(error)


def _send(connection: Connection, sources: list[_Source], longest: int, total: int) -> tuple[int, int]:
    """How many were queued, and how many were known."""
    queued = known = 0
    with progress() as bar:
        task = bar.add_task("importing", total=total)
        for part in _parts(sources, longest):
            try:
                done = _call(connection, part)
            except XybriddError as error:
                if queued + known == 0:
                    raise
                raise type(error)(
                    f"{error}; {queued + known:,} of {total:,} were taken before. Import it again: those are known"
                ) from error
            queued, known = queued + done["queued"], known + done["known"]
            bar.advance(task, len(part))
    return queued, known


def _parts(sources: list[_Source], longest: int) -> Iterator[list[bytes]]:
    """As many lines as one request may hold."""
    part, size_bytes = list[bytes](), 0
    for _source, _number, line in _lines(sources, longest):
        if part and (size_bytes + len(line) + 1 > longest or len(part) == _AT_ONCE):
            yield part
            part, size_bytes = [], 0
        part.append(line)
        size_bytes += len(line) + 1
    if part:
        yield part


def _call(connection: Connection, lines: list[bytes]) -> dict[str, int]:
    import msgspec

    raw = [msgspec.Raw(line) for line in lines]
    done: dict[str, int] = connection.call("upload.import", {"exports": raw}, timeout_s=_LONG_S)
    return done
