"""What is on its way to the daemon: numbered batches and calls about sessions, in their order.

Pure of I/O: the flusher sends what `due` says and reports what came of it. A batch stays until it is acknowledged. A
call about a session (start, end) goes out alone, when everything before it is done, because a batch that has to be
sent again must not be overtaken by the end of its session.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.protocol.records import ErrorRecord, InferenceRecord, InferenceStats, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Batches that may be on their way at once.
_MOST_UNDERWAY = 16

#: What an app gave: (model_id, version, latency_ms, time, stats or None), or an error's five with a None in front.
Given = tuple[Any, ...]

_STATS = frozenset(InferenceStats.__struct_fields__)


def record_of(given: Given) -> Record:
    """A record from what the app gave. What cannot be right shows when it is encoded and checked."""
    if given[0] is None:
        _, error, model_id, version, category, at_s = given
        return ErrorRecord(error, model_id, version, category, int(at_s * 1000))
    model_id, version, latency_ms, at_s, stats = given
    figures = None
    if stats:
        try:
            figures = InferenceStats(**stats)
        except TypeError:  # a figure that nobody knows: the others still count
            figures = InferenceStats(**{name: value for name, value in stats.items() if name in _STATS})
    return InferenceRecord(model_id, version, latency_ms, int(at_s * 1000), figures)


def _plain(value: Any) -> Any:
    """What JSON has no type for, as it most likely is meant: a numpy number, a path."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_check_all = msgspec.json.Decoder(list[Record])
_check_one = msgspec.json.Decoder(Record)


def encode_records(records: list[Record]) -> tuple[bytes, int]:
    """The records as a JSON list that the daemon will take, and how many had to be left out because it would not."""
    try:
        encoded = _encode(records)
        _check_all.decode(encoded)
    except (msgspec.MsgspecError, TypeError, ValueError, UnicodeError, OverflowError, RecursionError):
        sound = [line for line in map(_encode_one, records) if line is not None]
        return b"[%b]" % b",".join(sound), len(records) - len(sound)
    return encoded, 0


def _encode_one(record: Record) -> bytes | None:
    try:
        encoded = _encode(record)
    except UnicodeError:
        # A lone surrogate, as in the name of a file that is not UTF-8.
        texts = {
            name: value.encode("utf-8", "replace").decode()
            for name in record.__struct_fields__
            if isinstance(value := getattr(record, name), str)
        }
        return _encode_one(msgspec.structs.replace(record, **texts))
    except (TypeError, ValueError, OverflowError):
        return None
    try:
        _check_one.decode(encoded)
    except msgspec.MsgspecError:
        return None
    return encoded


class Batch:
    """Params of ``record.batch``: ``records`` is a JSON list; ``tries`` counts the answers that said no."""

    __slots__ = ("count", "dropped", "flush", "place", "records", "seq", "session_id", "tries")

    def __init__(self, seq: int, session_id: str, records: bytes, count: int, dropped: int) -> None:
        self.seq = seq
        self.session_id = session_id
        self.records = records
        self.count = count
        self.dropped = dropped
        self.flush = False
        self.tries = 0
        self.place = 0

    method = "record.batch"

    def params(self) -> bytes:
        return msgspec.json.encode(
            {
                "seq": self.seq,
                "session_id": self.session_id,
                "flush": self.flush,
                "dropped": self.dropped,
                "records": msgspec.Raw(self.records),
            }
        )


class Call:
    """A call about a session; ``done`` gets its result, or None when it failed."""

    __slots__ = ("arguments", "done", "method", "place", "tries")

    def __init__(self, method: str, arguments: dict[str, Any], done: Callable[[msgspec.Raw | None], None]) -> None:
        self.method = method
        self.arguments = arguments
        self.done = done
        self.tries = 0
        self.place = 0

    def params(self) -> bytes:
        return msgspec.json.encode(self.arguments)


Item = Batch | Call


class Outbox:
    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self._underway: dict[int, Item] = {}
        self._last_seq = 0
        self._last_place = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def underway(self) -> int:
        return len(self._underway)

    @property
    def records(self) -> int:
        return sum(item.count for item in self.items if isinstance(item, Batch))

    def add_batch(self, session_id: str, records: bytes, count: int, dropped: int) -> Batch:
        self._last_seq += 1
        batch = Batch(self._last_seq, session_id, records, count, dropped)
        self.items.append(self._placed(batch))
        return batch

    def add_call(self, call: Call) -> None:
        self.items.append(self._placed(call))

    def put_first(self, call: Call) -> None:
        """Before everything else; only while nothing is under way."""
        self.items.appendleft(self._placed(call))

    def _placed(self, item: Item) -> Item:
        self._last_place += 1
        item.place = self._last_place
        return item

    @property
    def last_place(self) -> int:
        """Grows with every item: who wants to know when all there is now is done waits for `done_up_to` this."""
        return self._last_place

    def done_up_to(self, place: int) -> bool:
        return all(item.place > place for item in self.items)

    def due(self) -> Iterator[Item]:
        """What may be sent now, in order.

        Batches of two sessions are never under way together: one that has to be moved to another session because its
        own is over would be overtaken by a later number, and look like a duplicate.
        """
        if any(isinstance(item, Call) for item in self._underway.values()):
            return
        underway = set(map(id, self._underway.values()))
        session_id = None
        for position, item in enumerate(self.items):
            if isinstance(item, Call):
                if position == 0:
                    yield item
                return
            session_id = session_id or item.session_id
            if item.session_id != session_id or len(self._underway) >= _MOST_UNDERWAY:
                return
            if id(item) not in underway:
                yield item

    def last_batch(self) -> Batch | None:
        return next((item for item in reversed(self.items) if isinstance(item, Batch)), None)

    def starts(self, session_id: str) -> bool:
        """Whether a call that starts that session is still to be answered."""
        return any(
            isinstance(item, Call) and item.method == "session.start" and item.arguments["session_id"] == session_id
            for item in self.items
        )

    def is_underway(self, item: Item) -> bool:
        return any(item is other for other in self._underway.values())

    def sent(self, request_id: int, item: Item) -> None:
        self._underway[request_id] = item

    def answered(self, request_id: Any) -> Item | None:
        """The item that an answer is for; None when nobody waits for it any more."""
        return self._underway.pop(request_id, None)

    def settle(self, item: Item) -> None:
        """It is done with, one way or the other."""
        self.items.remove(item)

    def recall(self) -> None:
        """Nothing is under way any more; what was is to be sent again."""
        self._underway.clear()

    def acknowledge(self, last_seq: int) -> Iterable[Batch]:
        """After a reconnect: the batches up to `last_seq` are on disk already."""
        done = [item for item in self.items if isinstance(item, Batch) and item.seq <= last_seq]
        for batch in done:
            self.items.remove(batch)
        return done
