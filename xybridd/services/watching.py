"""Word of records to those who watch: what is counted is sent on, as it comes, and nothing is kept for anybody.

Who watches is never waited for. One that does not read gets up to `_MOST_WAITING_BYTES` into its connection and then
nothing; how many records that cost it is said with the next that it gets. While nobody watches, the recorder is told so
(`on_watched`), and a record costs nothing more.

What is sent is what is kept: error messages are redacted, and have their category.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.category import category_named
from xybridd.core.session import judge_error
from xybridd.errors import Overloaded
from xybridd.protocol.records import ErrorRecord, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.core.changes import SessionHead
    from xybridd.services.sessions import Link

log = logging.getLogger(__name__)

#: Each costs the daemon the work of sending; a device has few people who look.
MOST_WATCHERS = 16

_MOST_WAITING_BYTES = 2**20
_MOST_AT_ONCE = 500


class Wanted(msgspec.Struct, frozen=True):
    """Whose records (``uid`` None: everybody's), of which app and model, only errors or all."""

    uid: int | None = None
    app: str | None = None
    model_id: str | None = None
    errors_only: bool = False

    def takes_session(self, head: SessionHead) -> bool:
        return self.uid in {None, head.uid} and self.app in {None, head.app}

    def takes(self, record: Record) -> bool:
        if self.errors_only and not isinstance(record, ErrorRecord):
            return False
        return self.model_id in {None, record.model_id}


class WatchedRecords(msgspec.Struct, frozen=True):
    """The params of ``records.counted``; ``dropped``: how many were not sent since the last, for want of a reader."""

    session_id: str
    app: str
    records: list[Record]
    dropped: int


class _Watcher:
    def __init__(self, wanted: Wanted, push: Callable[[str, Any, int], bool]) -> None:
        self.wanted = wanted
        self.push = push
        self.dropped = 0


class Watching:
    def __init__(self) -> None:
        self._watchers: dict[int, _Watcher] = {}
        #: Told whom to call with what is counted: `tell`, or nobody.
        self.on_watched: Callable[[Callable[[SessionHead, Sequence[Record], int], None] | None], None] = lambda _: None

    def watch(self, link: Link, wanted: Wanted) -> None:
        """From now on `link` gets what is wanted; once more changes what that is. Raises Overloaded."""
        if link.link_id not in self._watchers and len(self._watchers) >= MOST_WATCHERS:
            raise Overloaded(f"{MOST_WATCHERS} connections watch records already", retry_after_ms=10_000)
        if link.gone:
            return
        self._watchers[link.link_id] = _Watcher(wanted, link.push)
        self.on_watched(self.tell)

    def unwatch(self, link_id: int) -> None:
        if self._watchers.pop(link_id, None) is not None and not self._watchers:
            self.on_watched(None)

    def tell(self, head: SessionHead, records: Sequence[Record], now_ms: int) -> None:
        """Records were counted. Never raises: whoever recorded has nothing to do with who watches."""
        try:
            for watcher in self._watchers.values():
                if watcher.wanted.takes_session(head):
                    _send(watcher, head, [record for record in records if watcher.wanted.takes(record)], now_ms)
        except Exception:
            log.exception("who watches records could not be told")


def _send(watcher: _Watcher, head: SessionHead, records: list[Record], now_ms: int) -> None:
    for start in range(0, len(records), _MOST_AT_ONCE):
        part = [_kept(record, now_ms) for record in records[start : start + _MOST_AT_ONCE]]
        told = WatchedRecords(head.session_id, head.app, part, watcher.dropped)
        if not watcher.push("records.counted", told, _MOST_WAITING_BYTES):
            watcher.dropped += len(records) - start
            return
        watcher.dropped = 0


def _kept(record: Record, now_ms: int) -> Record:
    """As it is counted: with a time, and an error with its category and without what must not leave the device."""
    at_ms = now_ms if record.timestamp_ms is None else record.timestamp_ms
    if not isinstance(record, ErrorRecord):
        return record if record.timestamp_ms is not None else msgspec.structs.replace(record, timestamp_ms=at_ms)
    category, message = judge_error(record.error)
    if record.category is not None:
        category = category_named(record.category)
    return ErrorRecord(message, record.model_id, record.version, category.value, at_ms)
