"""The two writers of a ring that the client has: the reference in Python, and the C extension where it is built.

`Client` chooses one when it makes a ring, by the environment, so a benchmark sets that: for its own process and for
those that it starts.
"""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xybridd

_PURE = "XYBRIDD_PURE_PYTHON"


class Writer(NamedTuple):
    """``pure`` is the value of ``XYBRIDD_PURE_PYTHON``; empty: the C extension."""

    name: str
    pure: str

    @contextlib.contextmanager
    def chosen(self) -> Iterator[None]:
        """Rings that are made meanwhile have this writer."""
        before = os.environ.get(_PURE, "")
        os.environ[_PURE] = self.pure
        try:
            yield
        finally:
            os.environ[_PURE] = before


PYTHON = Writer("Python writer", "1")
C = Writer("C writer", "")

C_IS_BUILT = find_spec("xybridd.client._recorder") is not None

#: Those that there are here.
WRITERS = (PYTHON, C) if C_IS_BUILT else (PYTHON,)


def backlog(*clients: xybridd.Client) -> int:
    """Slots that were written and are not on the daemon's disk; a few words are read, where `counters` reads slots."""
    rings = [ring for client in clients for ring in client._writer.unread()]  # noqa: SLF001
    return sum(ring.last - ring.durable for ring in rings)
