"""What apps left in rings when they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import until

if TYPE_CHECKING:
    from tests.support import Daemon


def fetched(daemon: Daemon) -> None:
    """Until the daemon has read the rings that apps left."""
    folder = daemon.data / "spool"
    until(lambda: not any(folder.glob("*.ring")), "the rings to be read")
