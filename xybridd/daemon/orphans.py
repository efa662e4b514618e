"""The rings that exited processes of the daemon's own user left: read into the database, and removed.

The kernel says when a file in one of the folders lost its last writer (inotify), so a killed process is noticed at once
and nothing is polled. Where there is no inotify, the folders are looked at when the daemon starts and every hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
from typing import TYPE_CHECKING

from xybridd.client.orphans import MOST_HELD, orphans, remove, set_aside
from xybridd.errors import InvalidParams, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xybridd.services.rings import Rings

log = logging.getLogger(__name__)

#: sys/inotify.h
_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000

#: A process that ends has several rings, and a pool several processes.
_SETTLE_S = 0.1


class OrphanRings:
    def __init__(self, folders: Sequence[Path], rings: Rings) -> None:
        self._folders = tuple(dict.fromkeys(folders))
        self._rings = rings
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._soon: asyncio.TimerHandle | None = None
        self._inotify = -1
        rings.on_closed = self.look_soon

    async def fetch(self) -> None:
        """Begin to read what is there, beside everything else."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fetch(), name="orphan rings")

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the kernel say when a file lost its writer."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)  # files of a folder that others may write are not trusted
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if self._inotify < 0:
            log.warning(
                "no inotify: rings of killed apps are looked for every hour (%s)", os.strerror(ctypes.get_errno())
            )
            return
        for folder in self._folders:
            libc.inotify_add_watch(self._inotify, os.fsencode(folder), _CLOSE_WRITE | _MOVED_TO)
        loop.add_reader(self._inotify, self._noticed)

    def close(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def look_soon(self) -> None:
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SETTLE_S, self._look)

    def _noticed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._inotify, 65_536)
        self.look_soon()

    def _look(self) -> None:
        self._soon = None
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fetch(), name="orphan rings")

    async def _fetch(self) -> None:
        while self._again:
            self._again = False
            for folder in self._folders:
                drained = 0
                for path, fd in orphans(folder):
                    try:
                        drained += await self._drain(path, fd)
                    finally:
                        os.close(fd)
                self._again = self._again or drained >= MOST_HELD

    async def _drain(self, path: Path, fd: int) -> bool:
        """One file; what is wrong with it is no matter of the others. Whether it is done with."""
        try:
            drained, ticket = await self._rings.drain(os.dup(fd), os.getuid())
            if ticket is not None:
                await asyncio.shield(ticket)
            if drained:
                remove(path)
            return drained
        except InvalidParams as error:
            set_aside(path, error)
            return True
        except (WireError, OSError) as error:
            log.info("%s is left for another time: %s", path.name, error)
        except Exception:
            log.exception("%s cannot be read; it is left for another time", path.name)
        return False
