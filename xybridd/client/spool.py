"""What could not be brought to the daemon while its producer lived, in files, until somebody brings it.

One file is one producer: its first line says who that was, each further line is a request as it would have gone out
(start, numbered batches, end), in order. Who delivers it says `hello` with that producer's ``client_id``, so a batch
that the daemon has already is a duplicate, however often and by however many the file is delivered.

A file appears whole or not at all (written under another name, fsynced, renamed), is 0600, and goes when everything in
it is on the daemon's disk. Errors are redacted before they are written, as the daemon does. Only files and folders that
belong to this user and that nobody else may write are trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.client.connection import Connection
from xybridd.errors import (
    InternalError,
    InvalidParams,
    Overloaded,
    SessionEnded,
    StorageUnavailable,
    UnknownSession,
    WireError,
)
from xybridd.protocol.records import ErrorRecord, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

#: Bytes that the spool of a user may take; past it nothing is added, and what would have been is counted as lost.
MOST_BYTES = 64 * 2**20

_ANSWER_S = 10.0
#: Answers that say: not now. The file stays.
_LATER = (Overloaded, StorageUnavailable, InternalError)

_SUFFIX = ".spool"
_DAMAGED = ".damaged"


class Producer(msgspec.Struct, frozen=True):
    """The first line: what `hello` says."""

    app: str
    client_id: str
    app_version: str = ""
    sdk_version: str = ""
    spool: int = 1
    #: By the clock of which boot the records tell times.
    boot_id: str = ""


class Request(msgspec.Struct, frozen=True):
    method: str
    params: msgspec.Raw


class _Batch(msgspec.Struct):
    seq: int
    session_id: str
    records: msgspec.Raw
    flush: bool = True
    dropped: int = 0


class _Session(msgspec.Struct, omit_defaults=True):
    session_id: str
    started_at_ms: int | None = None
    labels: dict[str, str] = {}


_encode = msgspec.json.encode
_producer = msgspec.json.Decoder(Producer)
_request = msgspec.json.Decoder(Request)
_batch = msgspec.json.Decoder(_Batch)
_session = msgspec.json.Decoder(_Session)
_records = msgspec.json.Decoder(list[Record])


def write(folder: Path, producer: Producer, requests: Iterable[tuple[str, bytes]]) -> Path:
    """A new file, on disk when this returns. Raises OSError, and then nothing is left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_ours(os.lstat(folder), stat.S_ISDIR)
    lines = [_encode(producer), *(_encode(Request(method, msgspec.Raw(_fit(params)))) for method, params in requests)]
    data = b"\n".join(lines) + b"\n"
    if len(data) + sum(path.lstat().st_size for path in folder.iterdir()) > MOST_BYTES:
        raise OSError(f"{folder} holds {MOST_BYTES // 2**20} MiB already, and no daemon has fetched them")
    unfinished = folder / f".{producer.client_id}"
    target = folder / f"{time.time_ns() // 1_000_000:014d}-{producer.client_id}{_SUFFIX}"
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        unfinished.rename(target)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    with contextlib.suppress(OSError):
        _sync_folder(folder)
    return target


def _fit(params: bytes) -> bytes:
    """As it may stand on a disk: errors say no more than the daemon would keep, and their category, taken before."""
    if b'"type":"error"' not in params:
        return params
    batch = _batch.decode(params)
    batch.records = msgspec.Raw(_encode([_fit_record(each) for each in _records.decode(batch.records)]))
    return _encode(batch)


def _fit_record(record: Record) -> Record:
    if not isinstance(record, ErrorRecord):
        return record
    try:
        from xybridd.core.category import categorize  # noqa: PLC0415 - few processes spool, and fewer an error
        from xybridd.core.redaction import redact  # noqa: PLC0415

        category = record.category or categorize(record.error).value
        return msgspec.structs.replace(record, error=redact(record.error), category=category)
    except ImportError:  # a process that ends may not be able to import any more: counted, and not told
        return msgspec.structs.replace(record, error="[redacted]")


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _check_ours(found: os.stat_result, kind: Callable[[int], bool]) -> None:
    """Raises PermissionError for what another user made, or may write."""
    if not kind(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError("the spool is not this user's own, or others may write it: it is left alone")


def waiting(folder: Path) -> list[Path]:
    """Files to deliver, oldest first."""
    try:
        _check_ours(os.lstat(folder), stat.S_ISDIR)
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
    except OSError:
        return []


def deliver(
    path: Path,
    sockets: Sequence[Path] | None,
    opened: Callable[[Connection | None], None] = lambda _: None,
) -> bool:
    """Bring one file to the daemon; whether that is done: False when somebody else is at it, or it is not ours.

    ``opened`` is told of the connection, and None when it is closed, so that another thread can break it off. Raises
    DaemonUnreachable, or the WireError of a daemon that says "not now": the file stays, and what was taken of it is not
    taken again.
    """
    with _locked(path) as data:
        if data is None:
            return False
        try:
            first, *rest = data.splitlines()
            producer = _producer.decode(first)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            _put_aside(path, error)
            return True
        connection = Connection.open(sockets)
        try:
            opened(connection)
            damage = _Delivery(connection, producer).carry_out(rest)
        finally:
            opened(None)
            connection.close()
        if damage is not None:
            _put_aside(path, damage)
        else:
            path.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bytes | None]:
    """What the file holds, while nobody else delivers it; None when it is gone, taken, or not to be trusted."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    with open(file, "rb") as stream:  # noqa: PTH123 - by descriptor
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file)
            _check_ours(found, stat.S_ISREG)
            data = stream.read() if found.st_nlink else None
        except OSError as error:
            log.debug("%s is left alone: %s", path.name, error)
            data = None
        yield data


def _put_aside(path: Path, error: Exception) -> None:
    log.warning("%s is damaged (%s); what can be read of it was delivered, and it is kept beside", path, error)
    path.rename(path.with_suffix(_DAMAGED))


class _Delivery:
    """One file on one connection."""

    def __init__(self, connection: Connection, producer: Producer) -> None:
        self._connection = connection
        self._producer = producer
        self._instead: dict[str, str] = {}
        self._last_seq = 0

    def carry_out(self, lines: list[bytes]) -> Exception | None:
        """Everything in it; what was wrong with a line that could not be read, if there was one."""
        who = msgspec.to_builtins(self._producer)
        del who["spool"]
        try:
            self._last_seq = self._call("hello", who)["last_seq"]
        except InvalidParams as error:
            return error
        damage: Exception | None = None
        for line in lines:
            try:
                self._one(_request.decode(line))
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                damage = error
        for session_id in self._instead.values():
            self._try("session.end", {"session_id": session_id})
        return damage

    def _one(self, request: Request) -> None:
        if request.method == "record.batch":
            self._bring(_batch.decode(request.params))
        elif request.method in {"session.start", "session.end"}:
            session = _session.decode(request.params)
            if session.session_id not in self._instead:
                # Refused: it has ended meanwhile. What was recorded for it may still be taken.
                self._try(request.method, msgspec.to_builtins(session))

    def _bring(self, batch: _Batch) -> None:
        if batch.seq <= self._last_seq:
            return
        batch.flush = True
        meant = batch.session_id
        batch.session_id = self._instead.get(meant, meant)
        try:
            try:
                self._call("record.batch", batch)
            except (SessionEnded, UnknownSession):
                # It was ended for good, or is gone: these records get one of their own.
                batch.session_id = self._instead[meant] = str(uuid.uuid4())
                self._call("session.start", {"session_id": batch.session_id})
                self._call("record.batch", batch)
        except _LATER:
            raise
        except WireError as error:
            log.warning("the daemon refused records of a spool: %s", error)

    def _try(self, method: str, params: dict[str, Any]) -> None:
        try:
            self._call(method, params)
        except _LATER:
            raise
        except WireError as error:
            log.debug("%s of a spool was refused: %s", method, error)

    def _call(self, method: str, params: Any) -> Any:
        return self._connection.call(method, params, _ANSWER_S)


def deliver_all(folders: Iterable[Path], sockets: Sequence[Path] | None) -> int:
    """Every file in these folders; how many were delivered. Raises as `deliver` does."""
    return sum(deliver(path, sockets) for folder in folders for path in waiting(folder))
