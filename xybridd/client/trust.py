"""Who listens there? Asked of the kernel before anything is sent.

Whoever makes a folder in /tmp first, or may write where a socket lies, can put one there that looks like the daemon's,
and would be told everything that an app records. So a connection is used only if

- the process that listens is this user's or root's (the kernel says who called listen, whatever the path leads to), or
  that of the user whose folder root made for it, as systemd makes /run/xybridd;
- the folder is that of one of them, and not everybody may put files in the place of others' there;
- a link to it was made by this user or root.

Whoever has a reason to trust another user's daemon names it: ``XYBRIDD_TRUSTED_UID``.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def listener_uid(sock: socket.socket) -> int:
    """The user id of who listens at the other end of a connected socket."""
    if sys.platform == "darwin":
        # struct xucred: version, uid, …; LOCAL_PEERCRED is 1, level SOL_LOCAL 0.
        return int(struct.unpack_from("=II", sock.getsockopt(0, 1, 76))[1])
    return int(struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def distrust(path: Path, sock: socket.socket) -> str | None:
    """Why what listens at `path` is not to be trusted; None when it is. Raises OSError."""
    trusted = {0, os.geteuid()}
    named = os.environ.get("XYBRIDD_TRUSTED_UID", "")
    if named.isdecimal():
        trusted.add(int(named))
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode):
        if link.st_uid not in trusted:
            return f"a link that another user (uid {link.st_uid}) made; it is not followed"
        path = path.resolve()
    folder, file = path.parent.stat(), path.lstat()
    made_by_root = _only_root_makes(path.parent)
    if folder.st_uid not in trusted and not made_by_root:
        return f"its folder belongs to another user (uid {folder.st_uid}); {_advice()}"
    if folder.st_mode & stat.S_IWOTH:
        if not folder.st_mode & stat.S_ISVTX:
            return f"everybody may write in its folder; run: chmod o-w {path.parent}"
        if file.st_uid not in trusted:
            return f"another user (uid {file.st_uid}) put it into a folder for all; {_advice()}"
    listens = listener_uid(sock)
    if listens not in trusted and not (made_by_root and listens == folder.st_uid):
        return f"another user (uid {listens}) listens there; {_advice()}"
    return None


def _only_root_makes(folder: Path) -> bool:
    """Whether nobody but root can have made this folder and given it to its owner."""
    above = folder.parent.stat()
    return above.st_uid == 0 and not above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _advice() -> str:
    return "remove it, or name the daemon's socket with XYBRIDD_SOCKET"
