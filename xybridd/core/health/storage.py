"""The data folder, the disk under it, and the database in it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from xybridd.core.health.finding import Finding, Topic
from xybridd.core.words import many, size, span

FOLDER = Topic("data folder", "what apps record is private: the folder is its owner's alone, 0700")
DISK = Topic("disk", "on a full or read-only disk new records are refused, and apps must keep them")
FILES = Topic("file system", "a record is acknowledged once it is on disk; that needs a disk that stays, and locks")
DATABASE = Topic("database", "a damaged file is salvaged at the next start, and what cannot be read is lost")
ROOM = Topic("room", "past its quota the oldest sessions are deleted, sent or not")
SALVAGE = Topic("salvage", "part of what was recorded may be missing; the ledger says how much")

#: SQLite's write-ahead log needs shared memory and locks that these do not have.
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "ncp")
_VOLATILE = ("tmpfs", "ramfs")
_WITHOUT_MODES = ("vfat", "exfat", "msdos")

_LEAST_FREE_BYTES = 16 * 2**20
_LEAST_FREE_FILES = 100
_FULL = 0.9
_RECENT_MS = 7 * 86_400_000


class FolderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of the folder, or where it is to be made: the nearest that exists."""

    path: str
    there: bool
    #: None: we may not even look.
    mode: int | None = None
    owner: str = ""
    #: Whether whoever asks is the owner, or root.
    ours: bool = True
    writable: bool = True
    daemon_runs: bool = False
    #: As mounted; None where it is not known.
    file_system: str | None = None
    read_only: bool = False
    free_bytes: int | None = None
    free_files: int | None = None
    quota_bytes: int = 0
    used_bytes: int | None = None


class DatabaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``looked``: who looked at all of it. ``open``: a daemon that does not answer has it open."""

    path: str
    looked: Literal["daemon", "copy", "absent", "open", "denied", "failed"]
    complaint: str | None = None
    unclean: bool = False
    used_bytes: int | None = None
    quota_bytes: int | None = None
    salvages: tuple[dict[str, Any], ...] = ()
    #: Damaged files that are still there; None where we may not look.
    set_aside: tuple[str, ...] | None = None
    now_ms: int = 0


def judge_folder(facts: FolderFacts) -> list[Finding]:
    return [_folder(facts), _disk(facts), _file_system(facts)]


def _folder(facts: FolderFacts) -> Finding:
    if facts.mode is None:
        return FOLDER.unknown(f"we may not look at {facts.path}", "sudo xybridd doctor")
    if not facts.there:
        if facts.daemon_runs:
            return FOLDER.problem(f"{facts.path} is gone while the daemon runs", "xybridd service restart")
        if not facts.writable:
            return FOLDER.problem(f"{facts.path} cannot be made", "export XYBRIDD_DATA_DIR=~/xybridd")
        return FOLDER.ok(f"{facts.path}, made at the first start")
    if facts.mode & 0o077:
        return FOLDER.warning(f"others may look into {facts.path} (mode {facts.mode:04o})", f"chmod 700 {facts.path}")
    if facts.ours and not facts.writable:
        return FOLDER.problem(f"{facts.path} cannot be written", f"ls -ld {facts.path}")
    return FOLDER.ok(f"{facts.path}, of {facts.owner} alone")


def _disk(facts: FolderFacts) -> Finding:
    if facts.free_bytes is None:
        return DISK.unknown(f"the disk under {facts.path} does not say how full it is")
    look = f"df -h {facts.path}" if facts.there else "df -h"
    if facts.read_only:
        return DISK.problem(f"{facts.path} is on a file system that is mounted read-only", f"findmnt -T {facts.path}")
    left = size(facts.free_bytes)
    if facts.free_files is not None and facts.free_files < _LEAST_FREE_FILES:
        return DISK.problem(f"room for {many(facts.free_files, 'more file')} (inodes)", look.replace("-h", "-i"))
    if facts.free_bytes < _LEAST_FREE_BYTES:
        return DISK.problem(f"{left} free", look)
    to_grow = max(0, facts.quota_bytes - (facts.used_bytes or 0))
    if facts.free_bytes < to_grow:
        return DISK.warning(f"{left} free, and the database may still grow by {size(to_grow)}", look)
    return DISK.ok(f"{left} free")


def _file_system(facts: FolderFacts) -> Finding:
    kind = facts.file_system
    if kind is None:
        return FILES.unknown("what is mounted there is not known")
    elsewhere = "set [storage] path in the config to a folder on a disk of this machine"
    if kind.startswith(_NETWORK):
        return FILES.problem(f"{facts.path} is on the network ({kind}): the database may be damaged there", elsewhere)
    if kind in _VOLATILE:
        return FILES.warning(f"{facts.path} is in memory ({kind}): a reboot takes all of it", elsewhere)
    if kind in _WITHOUT_MODES:
        return FILES.warning(f"{kind} keeps no permissions: everybody may read what is recorded", elsewhere)
    return FILES.ok(kind)


def judge_database(facts: DatabaseFacts) -> list[Finding]:
    if facts.looked == "absent":
        return [DATABASE.ok("not there yet; made at the first start")]
    found = [_soundness(facts)]
    if facts.used_bytes is not None and facts.quota_bytes:
        found.append(_room(facts.used_bytes, facts.quota_bytes))
    if facts.salvages:
        found.append(_salvaged(facts))
    return found


def _soundness(facts: DatabaseFacts) -> Finding:
    match facts.looked:
        case "denied":
            return DATABASE.unknown("only its owner and root may have all of it checked", "sudo xybridd doctor")
        case "open":
            return DATABASE.unknown("a process that does not answer has it open, so it was not looked at")
        case "failed":
            return DATABASE.unknown(f"it could not be looked at: {facts.complaint}")
        case _ if facts.complaint is not None and "newer" in facts.complaint:
            return DATABASE.problem(facts.complaint, "pip install --upgrade xybridd")
        case _ if facts.complaint is not None:
            return DATABASE.problem(
                f"damaged: {facts.complaint}", "xybridd service restart   (it salvages what it can)"
            )
        case "copy" if facts.unclean:
            return DATABASE.ok("sound, though its daemon did not end cleanly; it goes on from there")
        case _:
            return DATABASE.ok("sound")


def _room(used_bytes: int, quota_bytes: int) -> Finding:
    says = f"{size(used_bytes)} of {size(quota_bytes)} used"
    if used_bytes > _FULL * quota_bytes:
        return ROOM.warning(says, "raise [storage] quota_mib in the config, or lower retention_days")
    return ROOM.ok(says)


def _salvaged(facts: DatabaseFacts) -> Finding:
    last = facts.salvages[-1]
    ago = span((facts.now_ms - last["at_ms"]) / 1000)
    says = f"it was damaged {ago} ago ({last['reason']})"
    if last["set_aside"]:  # else it was mended in its place
        says += f"; {many(last['rows_saved'], 'row')} could be saved"
    folder = facts.path.rpartition("/")[0]
    if facts.set_aside:
        return SALVAGE.warning(
            f"{says}, the damaged file is kept", f"rm {folder}/{last['set_aside'] or facts.set_aside[0]}*"
        )
    recent = facts.now_ms - last["at_ms"] < _RECENT_MS
    if recent and facts.set_aside is None:
        return SALVAGE.warning(says, f"sudo ls -l {folder}")
    return SALVAGE.ok(says)
