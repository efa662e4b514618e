"""What an app's exit had no time for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import until

if TYPE_CHECKING:
    from tests.support import Daemon


def fetched(daemon: Daemon) -> None:
    """Until the daemon has what an app left.

    On a machine that is busy enough the quarter of a second that an exit may take is too little, and the rest is in the
    spool, which a daemon fetches when it starts.
    """
    folder = daemon.data / "spool"
    if any(folder.glob("*.spool")):
        daemon.stop()
        daemon.start()
        until(lambda: not any(folder.glob("*.spool")), "the spool to be fetched")
