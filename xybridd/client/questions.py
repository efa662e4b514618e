"""Questions to the daemon, and what it tells by itself: beside the records, so that an answer waits for no disk."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.connection import Connection
    from xybridd.client.flusher import Mark
    from xybridd.protocol.messages import Answer

log = logging.getLogger(__name__)


class Questions:
    """On the flusher's thread, but for the list of watchers, which the app's threads add to and take from."""

    def __init__(self, watchers: list[Callable[[dict[str, Any]], object]]) -> None:
        self._watchers = watchers
        self._waiting: list[Mark] = []
        self._asked: dict[int, Mark] = {}
        self._watching: int | None = None
        self._watched = False
        self._latest: dict[str, Any] | None = None
        self._complained = False

    @property
    def due(self) -> bool:
        return bool(self._waiting)

    def add(self, mark: Mark) -> None:
        self._waiting.append(mark)

    def watch(self, watcher: Callable[[dict[str, Any]], object]) -> None:
        """Somebody new watches: tell them what is known; when nothing is, it is asked for with what goes out next."""
        if self._latest is not None:
            self._tell(self._latest, [watcher])

    def send(self, connection: Connection) -> None:
        """Raises DaemonUnreachable."""
        while self._waiting:
            mark = self._waiting[0]
            self._asked[connection.send(mark.arguments["method"], msgspec.json.encode(mark.arguments["params"]))] = mark
            del self._waiting[0]
        if self._watchers and not self._watched:
            self._watching = connection.send("device.watch", b"{}")
            self._watched = True

    def take(self, answer: Answer) -> bool:
        """Whether this answer, or notification, was for us."""
        if answer.method == "device.changed":
            self._tell_all(answer.params)
            return True
        if answer.id is not None and answer.id == self._watching:
            if answer.error is None:
                self._tell_all(answer.result)
            return True
        mark = self._asked.pop(answer.id, None) if isinstance(answer.id, int) else None
        if mark is None:
            return False
        mark.finish(msgspec.json.decode(answer.result) if answer.error is None else None)
        return True

    def lost(self) -> None:
        """The connection is gone: who waits for an answer gets none, who watches is told again on the next one."""
        for mark in self._asked.values():
            mark.finish()
        self._asked.clear()
        self._watching, self._watched = None, False

    def close(self) -> None:
        self.lost()
        for mark in self._waiting:
            mark.finish()
        self._waiting.clear()

    def _tell_all(self, encoded: msgspec.Raw) -> None:
        self._latest = msgspec.json.decode(encoded)
        self._tell(self._latest, list(self._watchers))

    def _tell(self, now: dict[str, Any], watchers: list[Callable[[dict[str, Any]], object]]) -> None:
        for watcher in watchers:
            try:
                watcher(now)
            except Exception:
                if not self._complained:
                    self._complained = True
                    log.exception("a callback of watch() failed; said once")
