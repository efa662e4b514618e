"""One daemon for one data folder: an advisory lock on a file that names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from xybridd.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """Held until released or until the process ends, however it ends: the kernel lets go of it."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises StartError naming the process that has the lock."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StartError(f"cannot use the lock file {self._path}: {error.strerror or error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StartError(
                f"{self._what} is in use by another xybridd (pid {holder}); stop it first, or give this one a "
                f"place of its own (XYBRIDD_DATA_DIR and XYBRIDD_SOCKET)"
            ) from error
        self._fd = fd
        # Who holds it is a help for people; a disk without space for it must not keep the daemon from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
