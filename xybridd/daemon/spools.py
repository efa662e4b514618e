"""What clients of the daemon's own user could not bring while they lived: fetched over the daemon's own socket.

Fetching is what any client does (`xybridd.client.spool`), on a thread of its own: its disk may be slow, and a spool is
delivered under the number of its producer, so that it does not matter whether a client delivers it at the same time.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from xybridd.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)


class Spools:
    def __init__(self, folders: Sequence[Path], socket: Path) -> None:
        self._folders = tuple(dict.fromkeys(folders))
        self._socket = socket
        self._fetching: asyncio.Task[None] | None = None

    async def fetch(self) -> None:
        """Begin to deliver what is there, beside everything else. What cannot be now stays for the next time."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch(), name="spools")

    async def _fetch(self) -> None:
        worker = Worker(asyncio.get_running_loop(), "xybridd-spools")
        worker.start()
        try:
            fetched = await worker.run(self._deliver)
        except Exception as error:  # noqa: BLE001 - the files stay, and are tried again
            log.warning("what clients left in their spool could not be fetched now: %s", error)
        else:
            if fetched:
                log.info("fetched what %d clients had left in their spool", fetched)
        finally:
            worker.stop()

    def _deliver(self) -> int:
        if not any(_holds_something(folder) for folder in self._folders):
            return 0
        from xybridd.client import spool  # noqa: PLC0415 - rarely needed

        return spool.deliver_all(self._folders, (self._socket,))


def _holds_something(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
