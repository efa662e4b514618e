"""What the daemon asks the kernel about processes and files of its clients."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import psutil

#: linux/magic.h: file systems whose files another machine, or a process, answers for. A read may hang.
_REMOTE = frozenset({
    0x6969, 0x517B, 0xFE534D42, 0xFF534D42, 0x65735546, 0x01021997, 0x00C36400, 0x5346414F, 0x6B414653, 0x73757245,
    0x0BD00BD0, 0x19830326, 0x47504653,
})  # fmt: skip

#: A process that is exiting: linux/sched.h, PF_EXITING.
_EXITING = 0x4


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that is exiting, or waits to be reaped, does not."""
    if pid <= 0:
        return False
    if Path("/proc/self/stat").exists():
        return _alive_by_stat(pid)
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _alive_by_stat(pid: int) -> bool:
    """By /proc/PID/stat: state and flags are the first and the seventh field after the name in brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return fields[0] not in {"Z", "X", "x"} and not int(fields[6]) & _EXITING
    except (OSError, ValueError, IndexError):
        return False


def is_local(fd: int) -> bool:
    """Whether an open file is on a local file system, so that a read of it returns. Linux; elsewhere True."""
    if sys.platform != "linux":
        return True
    found = (ctypes.c_long * 32)()
    if ctypes.CDLL(None, use_errno=True).fstatfs(fd, ctypes.byref(found)) != 0:
        return False
    return found[0] & 0xFFFFFFFF not in _REMOTE
