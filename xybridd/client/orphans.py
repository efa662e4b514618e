"""Rings whose process is gone: found in a folder, and held until they are drained.

The `flock` of a ring is free when its writer and a daemon that reads it are gone. A process that detached itself from
its terminal may have closed all of its files and still write: so the process that the header names must be gone too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

DAMAGED = ".damaged"

#: So many are held at once: each is an open file.
MOST_HELD = 64

#: A ring that was never finished, because its writer was killed while it made it.
_UNFINISHED_S = 60.0


def process_started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - an app imports this, and not pathlib
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def orphans(folder: Path, *, apart_from: frozenset[str] = frozenset()) -> Iterator[tuple[Path, int]]:
    """The orphans in a folder, oldest first, each with its open and locked file, which is the caller's to close.

    At most `MOST_HELD`: ask again when those are drained. Nothing from a folder, and no file, that another user owns
    or may write. ``apart_from``: names to leave alone.
    """
    try:
        if not _is_ours(os.lstat(folder), stat.S_ISDIR):
            return
        with os.scandir(folder) as entries:
            found = sorted((each.stat(follow_symlinks=False).st_mtime, each.name) for each in entries)
    except OSError:
        return
    rings: list[tuple[float, Path, int]] = []
    for changed_at_s, name in found:
        path = folder / name
        if name.startswith(".") and time.time() - changed_at_s > _UNFINISHED_S:
            _remove_unfinished(path)
        if path.suffix == layout.SUFFIX and not name.startswith(".") and name not in apart_from:
            fd = hold(path)
            if fd is not None:
                rings.append((_created_s(fd), path, fd))
            if len(rings) >= MOST_HELD:
                break
    rings.sort(key=lambda each: each[0])
    try:
        while rings:
            _, path, fd = rings.pop(0)
            yield path, fd
    finally:
        for _, _, fd in rings:
            os.close(fd)


def hold(path: Path) -> int | None:
    """The open file of an orphan, locked; None when a process has it, or it is not to be trusted."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_nlink and _is_ours(found, stat.S_ISREG) and not _writer_lives(fd):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def remove(path: Path) -> None:
    """Everything in it is on a daemon's disk."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def set_aside(path: Path, reason: object) -> None:
    """Keep a file that is not a ring, under another name, so that it is not tried again."""
    log.warning("%s cannot be read as a ring (%s); it is kept as %s", path, reason, path.with_suffix(DAMAGED).name)
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(DAMAGED))


def _identity(fd: int) -> tuple[float, int, int]:
    """Time of creation, process and its start; zeros where there is no header."""
    data = os.pread(fd, layout.IDENTITY.size, 0)
    if len(data) < layout.IDENTITY.size:
        return 0.0, 0, 0
    *_, created_s, pid, started = layout.IDENTITY.unpack(data)
    return created_s, pid, started


def _created_s(fd: int) -> float:
    return _identity(fd)[0]


def _writer_lives(fd: int) -> bool:
    _, pid, started = _identity(fd)
    return bool(0 < pid < 2**31 and started and process_started(pid) == started)


def _remove_unfinished(path: Path) -> None:
    if (fd := hold(path)) is not None:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)


def _is_ours(found: os.stat_result, kind: object) -> bool:
    return bool(kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022)  # type: ignore[operator]
