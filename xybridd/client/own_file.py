"""Descriptors that an app may close behind our back."""

from __future__ import annotations

import os


class OwnFile:
    """Whether a descriptor still is the file that it was: an app that detaches itself closes all of them.

    Its number may be a file of the app's by then, which must not be closed.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = self._look()

    @property
    def intact(self) -> bool:
        return self._identity is not None and self._look() == self._identity

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return found.st_dev, found.st_ino
