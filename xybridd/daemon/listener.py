"""The socket's place in the file system: a stale file is replaced, a live one never.

One that the service manager holds is taken as it is, and left as it is: it goes on listening when we are gone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from xybridd.errors import StartError
from xybridd.paths import SUN_PATH_BYTES
from xybridd.storage.lock import FileLock

_ADVICE = "choose another place with XYBRIDD_SOCKET or [socket] path"


class Listener:
    """A bound, listening Unix socket; its file goes when it is released."""

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._mode = mode
        self._lock = FileLock(path.with_name(path.name + ".lock"), f"the socket {path}")
        self._inode: int | None = None
        self._handed: socket.socket | None = None

    @classmethod
    def taking(cls, sock: socket.socket) -> Listener:
        """A socket that was handed over."""
        self = cls(Path(sock.getsockname()), 0)
        self._handed = sock
        return self

    def bind(self) -> socket.socket:
        """Raises StartError: the path is too long, somebody listens there, or something else lies there."""
        if self._handed is not None:
            return self._handed
        self._check_length()
        try:
            # Made for its owner alone; a folder that is there already keeps its mode, others may share it.
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_folder()
            self._lock.acquire()
            self._clear()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.bind(str(self.path))
                self.path.chmod(self._mode)
                self._inode = self.path.lstat().st_ino
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise StartError(f"cannot listen at {self.path}: {error.strerror or error}; {_ADVICE}") from error
        return sock

    def release(self) -> None:
        """Take the file away, if it is still the one that was made here."""
        with suppress(OSError):
            if self._inode is not None and self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        self._lock.release()

    def _check_length(self) -> None:
        size = len(os.fsencode(self.path))
        if size >= SUN_PATH_BYTES:
            raise StartError(
                f"the socket path {self.path} is too long: {size} bytes, and the system takes at most "
                f"{SUN_PATH_BYTES - 1}; {_ADVICE}"
            )

    def _check_folder(self) -> None:
        """A folder of another user's, made in /tmp before us, is no place for a socket that apps trust."""
        owner = self.path.parent.stat().st_uid
        if owner not in {0, os.getuid()}:
            raise StartError(f"the folder {self.path.parent} belongs to another user (uid {owner}); {_ADVICE}")

    def _clear(self) -> None:
        """Remove a socket file that nobody listens at any more."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise StartError(f"{self.path} is there already and is no socket; move it away, or {_ADVICE}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(self.path)) == errno.ECONNREFUSED:
                self.path.unlink()
                return
        raise StartError(f"another process listens at {self.path} already; stop it, or {_ADVICE}")
