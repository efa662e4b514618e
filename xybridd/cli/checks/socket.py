"""Facts about each socket that clients try."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from xybridd.cli.checks.scene import ANSWER_S
from xybridd.core.health.socket import Reached, SocketFacts, judge
from xybridd.paths import SUN_PATH_BYTES, client_sockets
from xybridd.units.observed import user_name

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding


def look(scene: Scene) -> list[Finding]:
    return judge(gather(scene))


def gather(scene: Scene) -> list[SocketFacts]:
    return [_facts(path, scene) for path in client_sockets()]


def _facts(path: Path, scene: Scene) -> SocketFacts:
    found = None
    with suppress(OSError):
        found = path.stat()
    group = _group(found)
    return SocketFacts(
        path=str(path),
        reached=_reached(path, found),
        mode=None if found is None else stat.S_IMODE(found.st_mode),
        owner="" if found is None else user_name(found.st_uid),
        group="" if group is None else group.gr_name,
        folder_open=_open(path.parent),
        user=scene.user,
        is_member=group is not None and scene.user in group.gr_mem,
        has_group=found is not None and found.st_gid in os.getgroups(),
        most_bytes=SUN_PATH_BYTES - 1,
    )


def _reached(path: Path, found: os.stat_result | None) -> Reached:
    if len(os.fsencode(path)) >= SUN_PATH_BYTES:
        return "too long"
    if found is not None and not stat.S_ISSOCK(found.st_mode):
        return "no socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(path))
        except TimeoutError:
            return "silent"
        except OSError as error:
            return {errno.EACCES: "denied", errno.EPERM: "denied", errno.ENOENT: "missing", errno.EAGAIN: "silent"}.get(
                error.errno or 0,
                "refused",
            )  # type: ignore[return-value]
    return "connected"


def _group(found: os.stat_result | None) -> grp.struct_group | None:
    if found is not None:
        with suppress(KeyError):
            return grp.getgrgid(found.st_gid)
    return None


def _open(folder: Path) -> bool:
    """Whether others may put files in it and take away what is not theirs."""
    with suppress(OSError):
        mode = folder.stat().st_mode
        return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
    return False
