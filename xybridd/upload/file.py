"""The sink ``file``: JSON lines, for a device that never has a network.

A line is an event of the sink ``xybrid`` with the batch's ``idempotency_key`` at its end. A batch is in the file once,
whole, whatever happened: it is written by one call and fsynced before it counts as delivered; what a write that failed
left is taken out at once, and what one that was killed left, by the next, which knows it by the missing newline.
A batch that is tried again writes those of its lines that are not there yet.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.delivery import Job, Outcome
from xybridd.upload.xybrid import Event, event

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ_BYTES = 2**20


class _Line(Event, frozen=True, kw_only=True):
    idempotency_key: str


def lines(job: Job) -> list[bytes]:
    """Each with its newline."""
    return [_line(event(item), job.key) for item in job.items]


def _line(of: Event, key: str) -> bytes:
    line = msgspec.json.encode(_Line(**msgspec.structs.asdict(of), idempotency_key=key))
    # Within a JSON string a newline is escaped, so these can only be space between the parts of a payload.
    return line.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def append(job: Job) -> Outcome:
    """Write the batch; returns when it is on disk. Expected failures are ``file``, with the reason."""
    path = Path(job.target.endpoint)
    if not path.is_absolute():
        return _failed(path, "its path must be absolute")
    try:
        fd = _open(path)
    except OSError as error:
        return _failed(path, _reason(error))
    try:
        return _append(fd, path, job)
    except OSError as error:
        return _failed(path, _reason(error))
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """Never through a symbolic link, never a pipe or a device; made with its folder where it is missing."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        _sync_folder(path.parent)
    except OSError:
        os.close(fd)
        raise
    return fd


def _sync_folder(path: Path) -> None:
    """A new file's name is on disk only when its folder is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _append(fd: int, path: Path, job: Job) -> Outcome:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return _failed(path, "it is not a regular file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _failed(path, "another process is writing it")
    end = _cut_torn_end(fd)
    wanted = lines(job)
    if job.again:
        there = set(_lines_with(fd, job.key))
        wanted = [line for line in wanted if line not in there]
    batch = b"".join(wanted)
    try:
        written = os.write(fd, batch)
        while written < len(batch):  # a disk that fills up takes a part; asked again it says why
            written += os.write(fd, batch[written:])
        os.fsync(fd)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, end)
        raise
    return Outcome(sent_bytes=len(batch))


def _cut_torn_end(fd: int) -> int:
    """Take away a last line without its newline, which a writer that was killed left; the size then."""
    size = end = os.fstat(fd).st_size
    while end:
        start = max(0, end - _READ_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return end


def _lines_with(fd: int, key: str) -> Iterator[bytes]:
    wanted = key.encode()
    with os.fdopen(os.dup(fd), "rb", _READ_BYTES) as file:
        file.seek(0)
        for line in file:
            if wanted in line:
                yield line


def _reason(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)


def _failed(path: Path, reason: str) -> Outcome:
    return Outcome(failure="file", detail=f"the file {path} cannot be written: {reason}")
