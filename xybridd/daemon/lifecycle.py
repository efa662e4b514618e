"""What the operating system asks of a daemon: identity, limits, logging, and telling systemd."""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
from systemd_watchdog.systemd_watchdog import WatchDog

from xybridd.errors import StartError

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DEVICE_ID_NAME = "device-id"


def boot_id() -> str:
    """What tells one boot from the next: the kernel's own id, or the time of the boot where there is none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return f"booted-at-{int(psutil.boot_time())}"


def device_id(folder: Path, configured: str | None) -> str:
    """The id of this installation: as configured, else random and kept in the data folder. Never from hardware."""
    named = os.environ.get("XYBRID_DEVICE_ID") or configured
    if named:
        return named
    path = folder / _DEVICE_ID_NAME
    try:
        with suppress(FileNotFoundError):
            kept = path.read_text("ascii", "replace").strip()
            if kept:
                return kept
        made = str(uuid.uuid4())
        draft = path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, f"{made}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        return made
    except OSError as error:
        raise StartError(f"cannot keep the device's id in {path}: {error.strerror or error}") from error


def raise_file_limit() -> None:
    """As many open files as the system allows: the soft limit is often 1,024, and a connection is a file."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"


def start_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_UtcFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_log_level(level)


def set_log_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
    # APScheduler logs every run of every job at info.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)


def tell_systemd_ready() -> None:
    """Does nothing where systemd did not start this process and wait for it."""
    try:
        WatchDog().ready()
    except OSError as error:
        log.warning("systemd could not be told that the daemon is ready: %s", error)
