"""Facts about the data folder, the file system it is on, and the database."""

from __future__ import annotations

import os
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from xybridd.core.health.storage import DatabaseFacts, FolderFacts, judge_database, judge_folder
from xybridd.errors import DaemonUnreachable, PermissionDenied, XybriddError
from xybridd.units.observed import user_name

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding

#: All of a database at its quota is read in far less.
_CHECK_S = 30.0


def look_at_folder(scene: Scene) -> list[Finding]:
    return judge_folder(_folder_facts(scene))


def _folder_facts(scene: Scene) -> FolderFacts:
    path = scene.data
    there, nearest = _there(path), path
    while not _there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    found = None
    with suppress(OSError):
        found = nearest.stat()
    space = None
    with suppress(OSError):
        space = os.statvfs(nearest)
    storage = (scene.status or {}).get("storage", {})
    return FolderFacts(
        path=str(path),
        there=there,
        mode=None if found is None else stat.S_IMODE(found.st_mode),
        owner="" if found is None else user_name(found.st_uid),
        ours=found is not None and scene.uid in {0, found.st_uid},
        writable=os.access(nearest, os.W_OK | os.X_OK),
        daemon_runs=scene.daemon_runs,
        file_system=_file_system(nearest),
        read_only=space is not None and bool(space.f_flag & os.ST_RDONLY),
        free_bytes=None if space is None else space.f_bavail * space.f_frsize,
        # File systems without a fixed number of files say that there are none.
        free_files=space.f_favail if space is not None and space.f_files else None,
        quota_bytes=storage.get("quota_bytes", int(scene.config.storage.quota_mib * 2**20)),
        used_bytes=storage.get("used_bytes"),
    )


def _there(path: Path) -> bool:
    """A folder that we may not look into is there all the same."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _file_system(path: Path) -> str | None:
    """The type of what is mounted nearest above."""
    real = os.path.realpath(path)
    mounts = [each for each in psutil.disk_partitions(all=True) if _holds(each.mountpoint, real)]
    # Of several at one place the last covers the others.
    return max(enumerate(mounts), key=lambda each: (len(each[1].mountpoint), each[0]))[1].fstype if mounts else None


def _holds(mountpoint: str, path: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")


def look_at_database(scene: Scene) -> list[Finding]:
    return judge_database(_by_daemon(scene) if scene.status is not None else _by_copy(scene.data))


def _by_daemon(scene: Scene) -> DatabaseFacts:
    from xybridd.client.connection import Connection

    storage = (scene.status or {})["storage"]
    looked, complaint = "daemon", None
    try:
        with closing(Connection.open((scene.connected,) if scene.connected else None)) as connection:
            complaint = connection.call("daemon.check", timeout_s=_CHECK_S)["complaint"]
    except PermissionDenied:
        looked = "denied"
    except (DaemonUnreachable, XybriddError) as error:
        looked, complaint = "failed", str(error)
    return DatabaseFacts(
        path=storage["path"],
        looked=looked,  # type: ignore[arg-type] # one of the three above
        complaint=complaint,
        used_bytes=storage.get("used_bytes"),
        quota_bytes=storage["quota_bytes"],
        salvages=tuple(storage.get("salvages", ())),
        set_aside=_set_aside(Path(storage["path"]).parent),
        now_ms=int(time.time() * 1000),
    )


def _by_copy(folder: Path) -> DatabaseFacts:
    from xybridd.storage.looking import DATABASE_NAME, LOCK_NAME, look

    path = folder / DATABASE_NAME
    if not _there(folder) or (_set_aside(folder) is not None and not path.exists()):
        return DatabaseFacts(path=str(path), looked="absent")
    if _in_use(folder / LOCK_NAME):
        return DatabaseFacts(path=str(path), looked="open")
    try:
        seen = look(path)
    except PermissionError:
        return DatabaseFacts(path=str(path), looked="denied")
    except OSError as error:
        return DatabaseFacts(path=str(path), looked="failed", complaint=error.strerror or str(error))
    return DatabaseFacts(
        path=str(path),
        looked="copy",
        complaint=seen.complaint,
        unclean=seen.unclean,
        used_bytes=seen.used_bytes,
        salvages=tuple(seen.salvages),
        set_aside=_set_aside(folder),
        now_ms=int(time.time() * 1000),
    )


def looked_at(folder: Path) -> dict[str, Any]:
    """Of a database that nobody has open: whether it is sound, and how many rows there are."""
    import msgspec

    from xybridd.storage.looking import DATABASE_NAME, LOCK_NAME, look

    if _in_use(folder / LOCK_NAME):
        raise XybriddError("a process that does not answer has it open")
    found: dict[str, Any] = msgspec.to_builtins(look(folder / DATABASE_NAME))
    return found


def _in_use(lock: Path) -> bool:
    """Whether the process that is named in the lock file lives. To ask the kernel, one would have to take the lock."""
    with suppress(OSError, ValueError):
        return psutil.pid_exists(int(lock.read_text("ascii")))
    return False


def _set_aside(folder: Path) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(each.name for each in folder.iterdir() if ".damaged-" in each.name))
    except OSError:
        return None
