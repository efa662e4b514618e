"""What the operating system asks of a daemon: identity, limits, and word to the service manager."""

from __future__ import annotations

import logging
import os
import resource
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
from systemd_watchdog.systemd_watchdog import WatchDog

from xybridd import paths
from xybridd.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_DEVICE_ID_NAME = "device-id"


def boot_id() -> str:
    """What tells one boot from the next: the kernel's own id, or the time of the boot where there is none."""
    return paths.boot_id() or f"booted-at-{int(psutil.boot_time())}"


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


class Manager:
    """The service manager, as far as it wants to hear from us; without one nothing is said."""

    def __init__(self) -> None:
        self._systemd = WatchDog()

    def say_ready(self, status: str) -> None:
        self._say(self._systemd.ready)
        self.say(status)

    def say(self, status: str) -> None:
        """What ``systemctl status`` shows."""
        self._say(lambda: self._systemd.status(status))

    def say_alive(self) -> None:
        self._say(self._systemd.notify)

    def alive_every_s(self) -> float | None:
        """How often it wants to hear that we live: half of ``WatchdogSec``; None when it does not watch."""
        if not self._systemd.is_enabled or not os.environ.get("WATCHDOG_USEC", "").isdigit():
            return None
        return self._systemd.timeout_td.total_seconds() / 2

    def _say(self, what: Callable[[], None]) -> None:
        try:
            what()
        except OSError as error:
            log.warning("the service manager could not be told: %s", error)
