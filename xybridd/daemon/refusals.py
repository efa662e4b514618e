"""Remember the clients whose requests were refused for a permanent reason, in bounded memory.

An app does not see these refusals: its client counts what it loses and goes on. The operator sees them in
`daemon.status`, and the doctor says what to do.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from xybridd.errors import Overloaded, StorageUnavailable

if TYPE_CHECKING:
    from xybridd.errors import WireError

#: Requests that a client needs before the daemon counts its records.
METHODS = frozenset({"hello", "session.start", "ring.attach", "ring.drain"})

#: Entries for all users, and for one user: a user cannot displace the entries of all others.
MOST, MOST_EACH = 64, 16

#: Entries that one answer shows.
MOST_SHOWN = 16

_LONGEST_APP, _LONGEST_MESSAGE = 128, 300


class RefusedClient(msgspec.Struct):
    """Equal refusals of one app. ``code`` is the error's `data.code`; ``last_at_ms`` is UTC milliseconds."""

    uid: int
    app: str
    method: str
    code: str
    message: str
    count: int = 0
    last_at_ms: int = 0


class Refusals:
    """The refusals that happened last, each kind once."""

    def __init__(self) -> None:
        #: By what is equal; the one that happened last stands last.
        self._found: dict[tuple[int, str, str, str, str], RefusedClient] = {}

    def note(self, uid: int, app: str, method: str, error: WireError, at_ms: int) -> None:
        """Count a refusal. An error that the client may try again is not counted."""
        if method not in METHODS or isinstance(error, (Overloaded, StorageUnavailable)):
            return
        key = (uid, _cut(app, _LONGEST_APP), method, error.code, _cut(error.message, _LONGEST_MESSAGE))
        entry = self._found.pop(key, None) or RefusedClient(*key)
        entry.count += 1
        entry.last_at_ms = at_ms
        self._found[key] = entry
        of_user = Counter(each.uid for each in self._found.values())
        if of_user[uid] > MOST_EACH:
            del self._found[next(key for key in self._found if key[0] == uid)]
        elif len(self._found) > MOST:
            del self._found[next(iter(self._found))]

    def shown(self, uid: int | None) -> list[RefusedClient]:
        """The latest first; ``uid`` None: those of every user."""
        found = [each for each in reversed(self._found.values()) if uid in {None, each.uid}]
        return found[:MOST_SHOWN]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
