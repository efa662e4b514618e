"""Read what a ring holds: a header, a table of strings, slots. Pure: bytes in, columns and events out.

The rules are those of `docs/ring.md`. Nothing in a ring is trusted: a header that makes no sense is refused
(`parse_header`), and every slot is checked as strictly as a JSON record. What is wrong with a slot costs that slot, and
an optional value that is wrong costs that value.

Slots are read as columns, not one by one: the slots of one model under the same conditions have the same descriptor, so
equal descriptors are a group, and a group's latencies are one strided copy.
"""

from __future__ import annotations

import uuid
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd.core.columns import Calls
from xybridd.errors import InvalidParams
from xybridd.protocol import ring as layout
from xybridd.protocol.messages import HelloParams, SessionStartParams
from xybridd.protocol.records import (
    LARGEST_EXACT,
    CancelledRecord,
    ErrorRecord,
    InferenceRecord,
    InferenceStats,
    ModelId,
    ModelVersion,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xybridd.protocol.records import Record

_LATEST_S = LARGEST_EXACT / 1000
_HARDWARE = (None, *layout.HARDWARE)
_TARGETS = (None, *layout.TARGETS)
_CATEGORIES = (None, *layout.CATEGORIES)
_SESSION_KINDS = frozenset({layout.SESSION_STARTED, layout.SESSION_ENDED, layout.LEFT, layout.DROPPED})

_KIND = 0xFF

#: Errors of one run: each may take milliseconds to redact, and others have their turn behind a run.
_MOST_ERRORS = 8


class Header(NamedTuple):
    """What the writer of a ring says once, and the words of `docs/ring.md` that change."""

    geometry: layout.Geometry
    ordered: bool
    ring_id: str
    created_s: float
    pid: int
    pid_started: int
    table_used: int
    #: The last slot number that belongs to the ring; None while it is in use.
    last: int | None
    durable: int
    counted: int
    rejected: int


def parse_header(data: bytes, size_bytes: int) -> Header:
    """The header in the first page of a file of `size_bytes`. Raises InvalidParams, which says what is wrong."""
    if len(data) < layout.HEADER_BYTES:
        raise InvalidParams("the file is too short for a ring; docs/ring.md describes one")
    magic, header_bytes, table_bytes, slots, flags, raw_id, created, pid, started = layout.IDENTITY.unpack_from(data)
    if magic != layout.MAGIC or header_bytes != layout.HEADER_BYTES:
        raise InvalidParams("the file is not a ring; docs/ring.md describes one")
    geometry = layout.Geometry(slots, table_bytes)
    sound = (
        layout.LEAST_SLOTS <= slots <= layout.MOST_SLOTS
        and slots & (slots - 1) == 0
        and 0 < table_bytes <= layout.MOST_TABLE_BYTES
        and table_bytes % layout.HEADER_BYTES == 0
    )
    if not sound or geometry.size_bytes != size_bytes:
        raise InvalidParams(f"a ring of {slots} slots and a table of {table_bytes} bytes has not {size_bytes} bytes")
    words = memoryview(data)[: layout.HEADER_BYTES].cast("Q")
    retired = words[layout.RETIRED]
    return Header(
        geometry=geometry,
        ordered=bool(flags & layout.ORDERED),
        ring_id=str(uuid.UUID(bytes=raw_id)),
        created_s=created,
        pid=pid,
        pid_started=started,
        table_used=min(words[layout.TABLE_USED], table_bytes),
        last=None if retired == 0 else min(retired - 1, LARGEST_EXACT),
        durable=min(words[layout.DURABLE], LARGEST_EXACT),
        counted=min(words[layout.COUNTED], LARGEST_EXACT),
        rejected=min(words[layout.REJECTED], LARGEST_EXACT),
    )


class Model(msgspec.Struct, frozen=True):
    """``version`` is None for an error that names none."""

    model_id: ModelId
    version: ModelVersion | None = None


class SessionEntry(msgspec.Struct, frozen=True):
    """``joined``: another process started the session."""

    params: SessionStartParams
    joined: bool


class Producer(msgspec.Struct, frozen=True):
    hello: HelloParams


Entry = Model | SessionEntry | Producer | str


class Table:
    """The strings of a ring, as far as they were read. An entry that is wrong is remembered as None."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._entries: dict[int, Entry | None] = {}

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Bytes of the table, from where the last ones ended."""
        self._data += data

    def entry(self, number: int) -> Entry | None:
        """The entry of that number; None for one that is not there or not sound."""
        if number not in self._entries:
            try:
                self._entries[number] = self._decode(number * 8)
            except (ValueError, UnicodeError, msgspec.MsgspecError, IndexError):
                # What is not there yet may come; what is there does not change.
                if number * 8 >= len(self._data):
                    return None
                self._entries[number] = None
        return self._entries[number]

    def last_session(self) -> SessionEntry | None:
        """The session that was entered last."""
        found, at = None, 8
        while at + layout.ENTRY.size <= len(self._data):
            entry = self.entry(at // 8)
            found = entry if isinstance(entry, SessionEntry) else found
            at += (layout.ENTRY.size + layout.ENTRY.unpack_from(self._data, at)[0] + 7) // 8 * 8
        return found

    def model(self, number: int) -> Model | None:
        found = self.entry(number)
        return found if isinstance(found, Model) else None

    def _decode(self, at: int) -> Entry:
        """Raises ValueError, or a msgspec error."""
        data = self._data
        if at < 8 or at + layout.ENTRY.size > len(data):
            raise ValueError("no such entry")
        size, kind, count, flags = layout.ENTRY.unpack_from(data, at)
        at += layout.ENTRY.size
        end = at + size
        if end > len(data):
            raise ValueError("an entry past the end of the table")
        strings = []
        for _ in range(count):
            if at + layout.LENGTH.size > end:
                raise ValueError("a string past the end of its entry")
            (length,) = layout.LENGTH.unpack_from(data, at)
            at += layout.LENGTH.size
            if at + length > end:
                raise ValueError("a string past the end of its entry")
            strings.append(data[at : at + length].decode())
            at += length
        return _entry(kind, strings, flags)


def _entry(kind: int, strings: list[str], flags: int) -> Entry:
    if kind == layout.MODEL and 1 <= len(strings) <= 2:
        return msgspec.convert(dict(zip(("model_id", "version"), strings, strict=False)), Model)
    if kind == layout.ERROR_TEXT and len(strings) == 1:
        return strings[0]
    if kind == layout.SESSION and len(strings) >= 2 and len(strings) % 2 == 0:
        labels = dict(zip(strings[2::2], strings[3::2], strict=True))
        params = {"session_id": strings[0], "started_at_ms": int(strings[1]), "labels": labels}
        return SessionEntry(msgspec.convert(params, SessionStartParams), bool(flags & layout.JOINED))
    if kind == layout.PRODUCER and len(strings) == 5:
        names = ("client_id", "app", "app_version", "sdk_version", "boot_id")
        return Producer(msgspec.convert(dict(zip(names, strings, strict=True)), HelloParams))
    raise ValueError("an entry of an unknown kind")


class Started(NamedTuple):
    """A call that started: its model, and when (Unix seconds on the producer's clock)."""

    model: Model
    at_s: float


class SessionEvent(NamedTuple):
    """A session starts, ends, or is left by this process: one of the kinds of slots."""

    kind: int
    entry: SessionEntry
    at_ms: int


class Run(msgspec.Struct):
    """Slots between two events about sessions, as `Session.count` takes them.

    ``others`` are errors and cancelled calls with their position. ``started``: calls that started, by their id;
    ``finished``: the ids of those that ended. ``rejected``: slots that are no sound record. ``dropped``: how many
    records the producer says it dropped.
    """

    length: int
    calls: list[Calls] = []
    others: list[tuple[int, ErrorRecord | CancelledRecord]] = []
    started: dict[int, Started] = {}
    finished: list[int] = []
    rejected: int = 0
    dropped: int = 0

    @property
    def latest_ms(self) -> int:
        """The newest time of a record, or of a call that starts; 0 when there is none."""
        times = [each.latest_ms for each in self.calls] + [other.timestamp_ms or 0 for _, other in self.others]
        return max([*times, *(int(each.at_s * 1000) for each in self.started.values())], default=0)

    @property
    def records(self) -> int:
        return sum(len(each.latencies_ms) for each in self.calls) + len(self.others)


#: What a read comes to, in order: how many slots each part takes.
Part = tuple[int, Run | SessionEvent]


def present(numbers: Sequence[int], first: int) -> int:
    """How many slots in a row hold the numbers from `first` on."""
    wanted = list(range(first, first + len(numbers)))
    if numbers == wanted:
        return len(wanted)
    return next(at for at, (found, want) in enumerate(zip(numbers, wanted, strict=True)) if found != want)


def numbers_in(data: bytes) -> list[int]:
    """The numbers of the slots in `data`, in the order of the file."""
    return memoryview(data).cast("Q")[layout.NUMBER :: layout.WORDS].tolist()


def read(
    data: bytes,
    table: Table,
    *,
    in_progress: bool = True,
    corrected: Callable[[int], int] | None = None,
    most: int = layout.MOST_SLOTS,
) -> Iterator[Part]:
    """What the slots in `data` say, in their order: events, and runs of at most so many slots and few errors.

    ``in_progress``: whether the ends of calls that started earlier matter. ``corrected``: a time in ms as a clock that
    is right would have shown it.
    """
    columns = _Columns(data, table, corrected)
    descriptors = columns.descriptors
    kinds = {each: each >> layout.KIND_SHIFT & _KIND for each in set(descriptors)}
    in_progress = in_progress or layout.STARTED in kinds.values()
    ends = {each for each, kind in kinds.items() if kind in _SESSION_KINDS or kind == layout.ERROR}
    start = errors = 0
    for at, descriptor in enumerate(descriptors) if ends or len(descriptors) > most else ():
        event = descriptor in ends and kinds[descriptor] != layout.ERROR
        errors += descriptor in ends and not event
        if at > start and (event or at - start >= most or errors > _MOST_ERRORS):
            yield at - start, columns.run(start, at, in_progress=in_progress)
            start, errors = at, 0
        if event:
            yield 1, columns.event(at, descriptor)
            start = at + 1
    if start < len(descriptors):
        yield len(descriptors) - start, columns.run(start, len(descriptors), in_progress=in_progress)


class _Columns:
    def __init__(self, data: bytes, table: Table, corrected: Callable[[int], int] | None) -> None:
        view = memoryview(data)
        self.floats, self.words, self.halves = view.cast("d"), view.cast("Q"), view.cast("I")
        self.descriptors: list[int] = self.words[layout.DESCRIPTOR :: layout.WORDS].tolist()
        self.table = table
        self.corrected = corrected

    def event(self, at: int, descriptor: int) -> Run | SessionEvent:
        kind = descriptor >> layout.KIND_SHIFT & _KIND
        if kind == layout.DROPPED:
            return Run(1, dropped=min(self.words[at * layout.WORDS + layout.STATS], LARGEST_EXACT))
        entry = self.table.entry(descriptor & 0xFFFFFFFF)
        at_s = self.floats[at * layout.WORDS + layout.TIME]
        if not isinstance(entry, SessionEntry) or not 0 <= at_s <= _LATEST_S:
            return Run(1, rejected=1)
        return SessionEvent(kind, entry, self._ms(at_s))

    def run(self, start: int, end: int, *, in_progress: bool) -> Run:
        out = Run(end - start)
        descriptors = self.descriptors[start:end]
        distinct = set(descriptors)
        if len(distinct) == 1:
            self._group(out, descriptors[0], range(start, end), start, in_progress=in_progress)
            return out
        places: dict[int, list[int]] = {each: [] for each in distinct}
        for at, descriptor in enumerate(descriptors, start):
            places[descriptor].append(at)
        for descriptor, found in places.items():
            self._group(out, descriptor, found, start, in_progress=in_progress)
        out.calls.sort(key=lambda each: each.first)
        out.others.sort(key=lambda each: each[0])
        return out

    def _column(self, view: memoryview[Any], word: int, at: range | list[int], width: int = 1) -> list[Any]:
        """A word of some slots; a range is one strided copy."""
        stride = layout.WORDS * width
        if isinstance(at, range):
            column: list[Any] = view[at.start * stride + word : at.stop * stride : stride].tolist()
            return column
        return [view[each * stride + word] for each in at]

    def _group(self, out: Run, descriptor: int, at: range | list[int], start: int, *, in_progress: bool) -> None:
        kind = descriptor >> layout.KIND_SHIFT & _KIND
        if kind == layout.VOID:
            return
        at = self._timely(out, at)
        if not at:
            return
        if kind == layout.ERROR:
            self._errors(out, descriptor, at, start)
        else:
            model = self.table.model(descriptor & 0xFFFFFFFF)
            if model is None or model.version is None:
                out.rejected += len(at) * (kind in layout.RECORDS)
                return
            if kind == layout.STARTED:
                for each in at:
                    words = each * layout.WORDS
                    out.started[self.words[words + layout.CALL]] = Started(model, self.floats[words + layout.TIME])
            elif kind in {layout.INFERENCE, layout.MORE_STATS}:
                self._calls(out, descriptor, model, at, start)
            elif kind == layout.CANCELLED:
                self._cancelled(out, model, at, start)
            else:
                out.rejected += len(at)
        if in_progress and kind in layout.RECORDS:
            out.finished += [int(call) for call in self._column(self.words, layout.CALL, at) if call]

    def _timely(self, out: Run, at: range | list[int]) -> range | list[int]:
        """Those with a time that may be."""
        times = self._column(self.floats, layout.TIME, at)
        if isfinite(sum(times)) and min(times) >= 0 and max(times) <= _LATEST_S:
            return at
        kept = [each for each, time in zip(at, times, strict=True) if 0 <= time <= _LATEST_S]
        out.rejected += len(times) - len(kept)
        return kept

    def _calls(self, out: Run, descriptor: int, model: Model, at: range | list[int], start: int) -> None:
        hardware, target = descriptor >> layout.HARDWARE_SHIFT & 15, descriptor >> layout.TARGET_SHIFT & 15
        counts = descriptor >> layout.KIND_SHIFT & _KIND == layout.INFERENCE
        latencies: list[float] = []
        if counts:
            latencies = self._column(self.floats, layout.LATENCY, at)
            if not (isfinite(sum(latencies)) and min(latencies) >= 0 and max(latencies) <= LARGEST_EXACT):
                at = [each for each, value in zip(at, latencies, strict=True) if 0 <= value <= LARGEST_EXACT]
                out.rejected += len(latencies) - len(at)
                if not at:
                    return
                latencies = self._column(self.floats, layout.LATENCY, at)
        out.calls.append(
            Calls(
                model_id=model.model_id,
                version=model.version or "",
                hardware_used=_HARDWARE[hardware] if hardware < len(_HARDWARE) else None,
                execution_target=_TARGETS[target] if target < len(_TARGETS) else None,
                latencies_ms=latencies,
                latest_ms=self._latest(at),
                first=at[0] - start,
                last=at[-1] - start,
                stats=self._stats(descriptor, at) if descriptor >> layout.STATS_SHIFT & _KIND else {},
            )
        )

    def _latest(self, at: range | list[int]) -> int:
        times = self._column(self.floats, layout.TIME, at)
        if self.corrected is None:
            return int(max(times) * 1000)
        return max(self._ms(time) for time in times)

    def _stats(self, descriptor: int, at: range | list[int]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        bits = descriptor >> layout.STATS_SHIFT & _KIND
        word = layout.STATS
        if bits & layout.TOKENS:
            for half, name in enumerate(("input_tokens", "output_tokens")):
                if bits & layout.STAT_BITS[name]:
                    found[name] = self._column(self.halves, 2 * word + half, at, 2)
            word += 1
        for name, bit in layout.STAT_BITS.items():
            if not bits & bit or bit & layout.TOKENS:
                continue
            if word >= layout.STATS + layout.STAT_WORDS:
                break  # it goes on in a slot of its own
            values = self._column(self.floats, word, at)
            if not (isfinite(sum(values)) and min(values) >= 0 and max(values) <= LARGEST_EXACT):
                values = [value for value in values if 0 <= value <= LARGEST_EXACT]
            if values:
                found[name] = [round(value) for value in values] if name == "memory_peak_mb" else values
            word += 1
        return found

    def _errors(self, out: Run, descriptor: int, at: range | list[int], start: int) -> None:
        text = self.table.entry(descriptor & 0xFFFFFFFF)
        category = descriptor >> layout.CATEGORY_SHIFT
        if not isinstance(text, str) or category >= len(_CATEGORIES):
            out.rejected += len(at)
            return
        for each in at:
            words = each * layout.WORDS
            named = self.words[words + layout.STATS]
            model = self.table.model(named) if named else None
            if named and model is None:
                out.rejected += 1
                continue
            record = ErrorRecord(
                text,
                model.model_id if model is not None else None,
                model.version if model is not None else None,
                _CATEGORIES[category],  # type: ignore[arg-type] # the names of the protocol, in the order of the ring
                self._ms(self.floats[words + layout.TIME]),
            )
            out.others.append((each - start, record))

    def _cancelled(self, out: Run, model: Model, at: range | list[int], start: int) -> None:
        for each in at:
            words = each * layout.WORDS
            latency_ms = self.floats[words + layout.LATENCY]
            if not 0 <= latency_ms <= LARGEST_EXACT:
                out.rejected += 1
                continue
            at_ms = self._ms(self.floats[words + layout.TIME])
            record = CancelledRecord(model.model_id, model.version or "", latency_ms, at_ms)
            out.others.append((each - start, record))

    def _ms(self, at_s: float) -> int:
        at_ms = int(at_s * 1000)
        return at_ms if self.corrected is None else self.corrected(at_ms)


def calls_in(data: bytes, table: Table) -> tuple[dict[int, Started], set[int]]:
    """The calls that started in slots that were counted before, by their id, and the ids of those that ended."""
    view = memoryview(data)
    floats, words = view.cast("d"), view.cast("Q")
    ids = words[layout.CALL :: layout.WORDS].tolist()
    started: dict[int, Started] = {}
    finished: set[int] = set()
    for at, (descriptor, call) in enumerate(zip(words[layout.DESCRIPTOR :: layout.WORDS].tolist(), ids, strict=True)):
        kind = descriptor >> layout.KIND_SHIFT & _KIND
        if call and kind in layout.RECORDS:
            finished.add(call)
        elif kind == layout.STARTED and (model := table.model(descriptor & 0xFFFFFFFF)) is not None:
            started[call] = Started(model, floats[at * layout.WORDS + layout.TIME])
    return started, finished


def records_in(data: bytes) -> int:
    """How many slots are records, by their kind."""
    descriptors = memoryview(data).cast("Q")[layout.DESCRIPTOR :: layout.WORDS].tolist()
    return sum(each >> layout.KIND_SHIFT & _KIND in layout.RECORDS for each in descriptors)


def records(data: bytes, table: Table) -> Iterator[Record]:
    """The slots that are records, one by one, for subscribers; without stats that go on in a slot of their own."""
    for at in range(len(data) // layout.SLOT_BYTES):
        one = data[at * layout.SLOT_BYTES : (at + 1) * layout.SLOT_BYTES]
        for _length, part in read(one, table):
            if not isinstance(part, Run):
                continue
            for _position, other in part.others:
                yield other
            for calls in part.calls:
                for latency_ms in calls.latencies_ms:
                    yield _inference(calls, latency_ms)


def _inference(calls: Calls, latency_ms: float) -> InferenceRecord:
    given: dict[str, Any] = {name: values[0] for name, values in calls.stats.items()}
    if calls.hardware_used is not None:
        given["hardware_used"] = calls.hardware_used
    if calls.execution_target is not None:
        given["execution_target"] = calls.execution_target
    stats = msgspec.convert(given, InferenceStats) if given else None
    return InferenceRecord(calls.model_id, calls.version, latency_ms, calls.latest_ms, stats)
