"""The socket that the service manager holds for us, so that no client ever finds nobody listening.

systemd hands over open files from 3 on and says how many, and to whom (sd_listen_fds(3)). launchd is asked by the name
that the plist gives the socket (launch_activate_socket(3)); that was written from its manual and not run.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from xybridd.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_FD = 3

#: The name of the socket in the plists.
LAUNCHD_NAME = "Listener"


def handed_over() -> socket.socket | None:
    """The listening Unix socket, or None when there is none. Raises StartError when it is something else."""
    fd = _launchd_fd(_libc_call()) if sys.platform == "darwin" else _systemd_fd()
    if fd is None:
        return None
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    listens = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
    if not listens or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise StartError("the service manager handed over something that is no listening Unix stream socket")
    sock.setblocking(False)
    return sock


def _systemd_fd() -> int | None:
    """Takes the variables away, so that no child takes the files for its own."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or int(count) < 1:
        return None
    if int(count) > 1:
        raise StartError(f"the service manager handed over {count} sockets; one is expected: see xybridd.socket")
    return _FIRST_FD


def _libc_call() -> Callable[[bytes, Any, Any], int]:
    found: Callable[[bytes, Any, Any], int] = ctypes.CDLL(None).launch_activate_socket
    return found


def _launchd_fd(activate: Callable[[bytes, Any, Any], int]) -> int | None:
    """An error number means that launchd does not know this process, or not that name: there is none then."""
    fds, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    if activate(LAUNCHD_NAME.encode(), ctypes.byref(fds), ctypes.byref(count)) != 0 or count.value < 1:
        return None
    return int(fds[0])
