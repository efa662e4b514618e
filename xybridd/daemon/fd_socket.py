"""A listening socket whose connections take open files too (SCM_RIGHTS), under asyncio's ordinary transports.

asyncio reads with `recv`, which drops what comes beside the bytes. These sockets read with `recvmsg` and keep the
files until a request asks for them. Regular files alone; a file arrives no later than the first byte of the request
that it was sent with.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from typing import Any

#: Files that wait on one connection for a request to ask for them; more are closed.
MOST_WAITING = 8

_PER_MESSAGE = 4
_ANCILLARY_BYTES = socket.CMSG_SPACE(_PER_MESSAGE * 4)


class FdSocket(socket.socket):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._files: deque[int] = deque()

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data, ancillary, _flags, _address = self.recvmsg(bufsize, _ANCILLARY_BYTES, flags | socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for at in range(0, len(raw) - len(raw) % 4, 4):
                    self._keep(int.from_bytes(raw[at : at + 4], "little"))
        return data

    def _keep(self, fd: int) -> None:
        # A socket could be the other end of this connection, which then would never end.
        if len(self._files) >= MOST_WAITING or not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
        else:
            self._files.append(fd)

    def take_file(self) -> int | None:
        """The file that came first, now the caller's; None when there is none."""
        return self._files.popleft() if self._files else None

    def close(self) -> None:
        while (fd := self.take_file()) is not None:
            os.close(fd)
        super().close()


class ListeningFdSocket(socket.socket):
    """Accepts `FdSocket`s."""

    def accept(self) -> tuple[socket.socket, Any]:
        fd, address = self._accept()  # type: ignore[attr-defined] # what socket.accept itself calls
        accepted = FdSocket(self.family, self.type, self.proto, fileno=fd)
        accepted.setblocking(False)
        return accepted, address


def accepting_files(sock: socket.socket) -> ListeningFdSocket:
    """The same listening socket, its connections taking files; `sock` is spent."""
    return ListeningFdSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
