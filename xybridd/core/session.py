"""The aggregate: what was recorded in one session, by model and by error.

Counting follows the reference to the letter: averages are integer quotients, a model's key is ``id@version``, equal
messages of one category are one error. Where it leaves something to chance:

- The list of models is in the order of first use.
- An error that names a model and a version counts on exactly that entry, and makes it if it is new. Without a
  version it counts on the entry of that model called last; if there is none, only the summary has it.
- A cancelled call counts on its model's entry, apart from calls and errors; the reference's fields know nothing of it.
- Past `SessionLimits` counts go to an entry named ``other``, so that the totals stay whole and memory bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from xybridd.core.category import ErrorCategory, categorize, category_named
from xybridd.core.changes import Changes, ErrorImage, ModelImage, SessionHead
from xybridd.core.columns import Calls, Other, columns_of
from xybridd.core.conditions import UNKNOWN, Conditions, Surroundings
from xybridd.core.histogram import Histogram
from xybridd.core.open_minute import OpenMinute
from xybridd.core.redaction import MAX_MESSAGE_BYTES, redact
from xybridd.core.stats import LARGEST_COUNTER, StatsTotals
from xybridd.protocol.records import CancelledRecord, ErrorRecord, Record
from xybridd.protocol.ring import MOST_ERROR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from xybridd.core.minute import Minute

OTHER = "other"

#: Calls in progress that a session lists.
MOST_IN_PROGRESS = 100

#: A device that changes its state more often than that within a session says so no more.
MOST_TRANSITIONS = 500

_NOBODY_KNOWS = Surroundings()

#: From here on a float has no half between two whole numbers.
_NO_HALVES = 2.0**51


class SessionLimits(msgspec.Struct, frozen=True):
    """How many distinct models and errors a session keeps apart."""

    max_models: int = 1000
    max_errors: int = 200


class ModelEntry:
    """One model at one version. ``touched`` orders entries by their last use within the session."""

    __slots__ = (
        "call_count", "cancelled_count", "conditions", "error_count", "last_called_ms", "latency", "model_id",
        "position", "stats", "total_latency_ms", "touched", "version",
    )  # fmt: skip

    def __init__(self, position: int, model_id: str, version: str) -> None:
        self.position = position
        self.model_id = model_id
        self.version = version
        self.call_count = 0
        self.total_latency_ms = 0
        self.error_count = 0
        self.last_called_ms = 0
        self.touched = 0
        self.latency = Histogram()
        self.stats = StatsTotals()
        self.conditions = Conditions()
        self.cancelled_count = 0

    @property
    def avg_latency_ms(self) -> int:
        return self.total_latency_ms // self.call_count if self.call_count else 0

    def count(self, calls: Calls, around: Surroundings) -> int:
        """Count calls; the sum of the whole milliseconds that they added.

        A latency with a fraction adds to the integer totals rounded half up, and to the histogram as it is.
        """
        self.last_called_ms = max(self.last_called_ms, calls.latest_ms)
        self.stats.extend(calls)
        if not calls.latencies_ms:
            return 0
        values = sorted(calls.latencies_ms)
        added = _whole_ms(values)
        self.call_count += len(values)
        self.total_latency_ms = min(self.total_latency_ms + added, LARGEST_COUNTER)
        # The buckets are counted once and added twice.
        batch = Histogram()
        batch.extend_sorted(values)
        self.latency.merge(batch)
        self.conditions.add(around, calls.hardware_used or UNKNOWN, batch)
        return added

    def image(self, session_id: str) -> ModelImage:
        return ModelImage(
            session_id, self.position, self.model_id, self.version, self.call_count, self.total_latency_ms,
            self.error_count, self.last_called_ms, self.touched, self.latency.to_bytes(), self.stats.to_bytes(),
            self.conditions.to_bytes(), self.cancelled_count,
        )  # fmt: skip


def _whole_ms(values: list[float]) -> int:
    """The sum of latencies in ascending order, each rounded half up to a whole millisecond."""
    if (values[-1] - values[0]) * 4 > len(values) or values[-1] >= _NO_HALVES:
        return sum([(whole := int(value)) + (value - whole >= 0.5) for value in values])
    total = at = 0
    while at < len(values):
        whole = int(values[at]) + (values[at] - int(values[at]) >= 0.5)
        end = bisect_left(values, whole + 0.5, at)
        total += whole * (end - at)
        at = end
    return total


class ErrorEntry:
    __slots__ = ("category", "count", "first_seen_ms", "last_seen_ms", "message", "model_id", "position")

    def __init__(self, position: int, category: ErrorCategory, message: str, model_id: str | None, at_ms: int) -> None:
        self.position = position
        self.category = category
        self.message = message
        self.model_id = model_id
        self.count = 0
        self.first_seen_ms = at_ms
        self.last_seen_ms = at_ms

    def image(self, session_id: str) -> ErrorImage:
        return ErrorImage(
            session_id, self.position, self.category.value, self.message, self.count, self.first_seen_ms,
            self.last_seen_ms, self.model_id,
        )  # fmt: skip


def _judge(message: str) -> tuple[ErrorCategory, str]:
    return categorize(message), redact(message)


#: The latest are remembered, of short texts and of those that a ring may hold: they come again and again.
_judge_short = lru_cache(maxsize=512)(_judge)
_judge_long = lru_cache(maxsize=32)(_judge)


def judge_error(message: str) -> tuple[ErrorCategory, str]:
    """The category, taken from the whole message, and the message as it may be kept."""
    if len(message) <= MAX_MESSAGE_BYTES:
        return _judge_short(message)
    return _judge_long(message) if len(message) <= MOST_ERROR_BYTES else _judge(message)


def _next_position(entries: Collection[ModelEntry] | Collection[ErrorEntry]) -> int:
    """One past the last: where a salvaged database lost rows, the positions have gaps."""
    return max((entry.position for entry in entries), default=-1) + 1


class Session:
    """Counts records; says, when asked, what changed since it was asked last."""

    __slots__ = (
        "_by_call", "_changed_errors", "_changed_models", "_errors_by_text", "_exported_records", "_exported_revision",
        "_head_changed", "_limits", "_minute", "_minute_over_ms", "_models_of", "_touched", "error_count", "errors",
        "head", "models", "total_inferences", "total_latency_ms",
    )  # fmt: skip

    def __init__(self, head: SessionHead, limits: SessionLimits) -> None:
        self.head = head
        self._limits = limits
        self.total_inferences = 0
        self.total_latency_ms = 0
        self.error_count = 0
        self.models: dict[str, ModelEntry] = {}
        self.errors: list[ErrorEntry] = []
        # Shortcuts into the two above: by exactly what a call said, by model, by exactly what an error said.
        self._by_call: dict[tuple[str, str], ModelEntry] = {}
        self._models_of: dict[str, list[ModelEntry]] = {}
        self._errors_by_text: dict[tuple[ErrorCategory, str], ErrorEntry] = {}
        self._touched = 0
        self._head_changed = True
        self._changed_models: set[ModelEntry] = set()
        self._changed_errors: set[ErrorEntry] = set()
        self._minute = OpenMinute()
        self._minute_over_ms: int | None = None
        #: What was in it when it was exported last, and which revision that was.
        self._exported_records = 0
        self._exported_revision = head.revision

    @classmethod
    def restored(
        cls,
        head: SessionHead,
        limits: SessionLimits,
        models: Sequence[ModelImage],
        errors: Sequence[ErrorImage],
        closed: Minute | None = None,
    ) -> Session:
        """A session as it was written; the totals are the sums of its entries.

        ``closed`` is the sum of its minutes when that is less than what is in it: its last minute was never closed.
        """
        self = cls(head, limits)
        self._head_changed = False
        for image in models:
            entry = self._add_model(image.model_id, image.version)
            entry.position = image.position
            entry.call_count = image.call_count
            entry.total_latency_ms = image.total_latency_ms
            entry.error_count = image.error_count
            entry.last_called_ms = image.last_called_ms
            entry.touched = image.touched
            entry.latency = Histogram.from_bytes(image.latency)
            entry.stats = StatsTotals.from_bytes(image.stats)
            entry.conditions = Conditions.from_bytes(image.conditions)
            entry.cancelled_count = image.cancelled
            self.total_inferences += image.call_count
            self.total_latency_ms = min(self.total_latency_ms + image.total_latency_ms, LARGEST_COUNTER)
            self._touched = max(self._touched, image.touched)
        for found in errors:
            error = self._add_error(ErrorCategory(found.category), found.message, found.model_id, found.first_seen_ms)
            error.position = found.position
            error.count = found.count
            error.last_seen_ms = found.last_seen_ms
            self.error_count += found.count
        if closed is not None:
            self._minute.reopen(closed, self.models.values(), self.errors)
        self._changed_models.clear()
        self._changed_errors.clear()
        self._exported_records = self.record_count
        return self

    # What is asked of it

    @property
    def session_id(self) -> str:
        return self.head.session_id

    @property
    def active(self) -> bool:
        return self.head.ended_at_ms is None

    @property
    def avg_latency_ms(self) -> int:
        return self.total_latency_ms // self.total_inferences if self.total_inferences else 0

    @property
    def record_count(self) -> int:
        cancelled = sum(entry.cancelled_count for entry in self.models.values())
        return self.total_inferences + self.error_count + cancelled

    def last_heard_at_ms(self) -> int:
        """The newest time that anything in it carries; its start when it is empty."""
        times = [entry.last_called_ms for entry in self.models.values()]
        times += [error.last_seen_ms for error in self.errors]
        return max(times, default=self.head.started_at_ms)

    # What happens to it

    def apply(self, records: Sequence[Record], now_ms: int, around: Surroundings = _NOBODY_KNOWS) -> None:
        """Count the records, in their order. ``now_ms`` is the time of those that carry none."""
        start = 0
        for at, record in enumerate(records):
            # It counts on the model's version that was called last: it must be counted before what comes after it.
            if isinstance(record, ErrorRecord) and record.model_id is not None and record.version is None:
                self._count_all(records[start:at], now_ms, around)
                self._count_all(records[at : at + 1], now_ms, around)
                start = at + 1
        self._count_all(records[start:], now_ms, around)
        self._revise_late()

    def _count_all(self, records: Sequence[Record], now_ms: int, around: Surroundings) -> None:
        if records:
            self._count_columns(*columns_of(records, now_ms), len(records), now_ms, around)

    def count(
        self,
        calls: Sequence[Calls],
        others: Sequence[Other],
        length: int,
        now_ms: int,
        around: Surroundings = _NOBODY_KNOWS,
    ) -> None:
        """Count columns of calls, and what else was among `length` records, each at its position."""
        self._count_columns(calls, others, length, now_ms, around)
        self._revise_late()

    def _count_columns(
        self, calls: Sequence[Calls], others: Sequence[Other], length: int, now_ms: int, around: Surroundings
    ) -> None:
        before, after = self._touched, 0
        self._minute.begin(now_ms)
        for each in calls:
            while after < len(others) and others[after][0] < each.first:
                self._count_other(*others[after], now_ms)
                after += 1
            entry = self._by_call.get((each.model_id, each.version)) or self._called(each)
            self._minute.touch_model(entry)
            entry.touched = max(entry.touched, before + each.last + 1)
            self.total_inferences += len(each.latencies_ms)
            self.total_latency_ms = min(self.total_latency_ms + entry.count(each, around), LARGEST_COUNTER)
            self._changed_models.add(entry)
        for other in others[after:]:
            self._count_other(*other, now_ms)
        self._touched = before + length

    def _count_other(self, at: int, record: ErrorRecord | CancelledRecord, now_ms: int) -> None:
        if isinstance(record, ErrorRecord):
            self._count_error(record, now_ms, self._touched + at + 1)
        else:
            self._count_cancelled(record, now_ms, self._touched + at + 1)

    def _revise_late(self) -> None:
        """After late records of a session that has ended: the export that was made is out of date."""
        if not self.active:
            self.head.revision += 1
            self._head_changed = True

    def note_process(self, outcome: Literal["ended", "lost"]) -> None:
        """One of the processes that share the session is gone: it said so, or it disappeared."""
        self.head.processes = {**self.head.processes, outcome: self.head.processes.get(outcome, 0) + 1}
        self._head_changed = True
        self.head.revision += not self.active

    def interrupted(self, calls: list[dict[str, Any]]) -> None:
        """Calls that had started when their process disappeared: model_id, version and running_ms of each."""
        known = self.head.calls_in_progress
        self.head.calls_in_progress = [*known, *calls][:MOST_IN_PROGRESS]
        self._head_changed = True

    def change_over(self, at_ms: int, around: Surroundings) -> None:
        """Heat or power is another now."""
        if len(self.head.transitions) < MOST_TRANSITIONS:
            self.head.transitions.append({"at_ms": at_ms, **around._asdict()})
            self._head_changed = True

    def end(self, reason: str, at_ms: int, successor: str | None = None) -> None:
        """Ends it; ``at_ms`` is never before its start. Ending is the first export: revision 1 or the next."""
        self.head.ended_at_ms = max(at_ms, self.head.started_at_ms)
        self.head.end_reason = reason
        self.head.successor = successor
        self.head.revision += 1
        self._head_changed = True

    def snapshot(self) -> bool:
        """Make a new revision, if anything was recorded since the last one; whether it did."""
        if self.record_count == self._exported_records:
            return False
        self.head.revision += 1
        self._head_changed = True
        return True

    def take_revision(self) -> bool:
        """Whether there is a revision that was not exported yet; it counts as exported now."""
        if self.head.revision == self._exported_revision:
            return False
        self._exported_revision, self._exported_records = self.head.revision, self.record_count
        return True

    def close_minute(self, now_ms: int) -> bool:
        """The minute is over; whether there is one to be written with the next changes."""
        self._minute_over_ms = now_ms if self._minute else None
        return self._minute_over_ms is not None

    def open_minute(self) -> Minute | None:
        """What was recorded since the last minute was closed, up to the last record; nothing changes."""
        return self._minute.so_far(self.session_id, None)

    def mend(self, corrected: Callable[[int], int]) -> bool:
        """Correct the times that a wrong clock wrote; whether there were any. What was exported gets a new revision."""
        head = self.head
        times = [head.started_at_ms, head.ended_at_ms, *(each["at_ms"] for each in head.transitions)]
        moved = any(time is not None and corrected(time) != time for time in times)
        head.started_at_ms = corrected(head.started_at_ms)
        head.ended_at_ms = None if head.ended_at_ms is None else corrected(head.ended_at_ms)
        head.transitions = [{**each, "at_ms": corrected(each["at_ms"])} for each in head.transitions]
        for entry in self.models.values():
            if (time := corrected(entry.last_called_ms)) != entry.last_called_ms:
                entry.last_called_ms = time
                self._changed_models.add(entry)
        for error in self.errors:
            times = [corrected(error.first_seen_ms), corrected(error.last_seen_ms)]
            if times != [error.first_seen_ms, error.last_seen_ms]:
                error.first_seen_ms, error.last_seen_ms = min(times), max(times)
                self._changed_errors.add(error)
        self._minute.mend(corrected)
        self._minute_over_ms = None if self._minute_over_ms is None else corrected(self._minute_over_ms)
        moved = moved or bool(self._changed_models or self._changed_errors)
        if moved:
            self._head_changed = True
            head.revision += head.revision > 0
        return moved

    def take_changes(self, into: Changes) -> None:
        """Put what changed since the last time into `into`, as values. An ended session has no open minute."""
        session_id = self.session_id
        if self._minute_over_ms is not None or not self.active:
            if (minute := self._minute.close(session_id, self._minute_over_ms)) is not None:
                into.minutes.append(minute)
            self._minute_over_ms = None
        if self._head_changed:
            into.heads.append(
                msgspec.structs.replace(
                    self.head, models_used=list(self.head.models_used), transitions=list(self.head.transitions)
                )
            )
            self._head_changed = False
        into.models.extend(entry.image(session_id) for entry in self._changed_models)
        into.errors.extend(error.image(session_id) for error in self._changed_errors)
        self._changed_models = set()
        self._changed_errors = set()

    def change_all(self) -> None:
        """Everything is to be written again: the file it stood in is gone."""
        self._head_changed = True
        self._changed_models.update(self.models.values())
        self._changed_errors.update(self.errors)

    # How it counts

    def _called(self, record: Calls) -> ModelEntry:
        """The entry of a call that was not seen before; notes that the model was used."""
        entry = self._entry(record.model_id, record.version)
        kept_apart = f"{record.model_id}@{record.version}" in self.models
        used = record.model_id if kept_apart else OTHER
        if used not in self.head.models_used:
            self.head.models_used.append(used)
            self._head_changed = True
        if kept_apart:
            self._by_call[record.model_id, record.version] = entry
        return entry

    def _entry(self, model_id: str, version: str) -> ModelEntry:
        entry = self.models.get(f"{model_id}@{version}")
        if entry is not None:
            return entry
        if len(self.models) >= self._limits.max_models:
            return self.models.get(f"{OTHER}@") or self._add_model(OTHER, "")
        return self._add_model(model_id, version)

    def _add_model(self, model_id: str, version: str) -> ModelEntry:
        entry = ModelEntry(_next_position(self.models.values()), model_id, version)
        self.models[f"{model_id}@{version}"] = entry
        self._models_of.setdefault(model_id, []).append(entry)
        self._changed_models.add(entry)
        return entry

    def _count_error(self, record: ErrorRecord, now_ms: int, touched: int) -> None:
        category, message = judge_error(record.error)
        if record.category is not None:
            category = category_named(record.category)
        at_ms = now_ms if record.timestamp_ms is None else record.timestamp_ms
        error = self._errors_by_text.get((category, message))
        if error is None:
            error = self._new_error(category, message, record.model_id, at_ms)
        self._minute.touch_error(error)
        error.count += 1
        error.first_seen_ms = min(error.first_seen_ms, at_ms)
        error.last_seen_ms = max(error.last_seen_ms, at_ms)
        self.error_count += 1
        self._changed_errors.add(error)
        if (entry := self._failing(record)) is not None:
            self._minute.touch_model(entry)
            entry.error_count += 1
            entry.last_called_ms = max(entry.last_called_ms, at_ms)
            entry.touched = max(entry.touched, touched)
            self._changed_models.add(entry)

    def _count_cancelled(self, record: CancelledRecord, now_ms: int, touched: int) -> None:
        entry = self._entry(record.model_id, record.version)
        self._minute.touch_model(entry)
        entry.cancelled_count += 1
        entry.last_called_ms = max(entry.last_called_ms, now_ms if record.timestamp_ms is None else record.timestamp_ms)
        entry.touched = max(entry.touched, touched)
        self._changed_models.add(entry)

    def _failing(self, record: ErrorRecord) -> ModelEntry | None:
        if record.model_id is None:
            return None
        if record.version is not None:
            return self._entry(record.model_id, record.version)
        entries = self._models_of.get(record.model_id)
        return max(entries, key=lambda entry: entry.touched) if entries else None

    def _new_error(self, category: ErrorCategory, message: str, model_id: str | None, at_ms: int) -> ErrorEntry:
        if len(self.errors) < self._limits.max_errors:
            return self._add_error(category, message, model_id, at_ms)
        other = self._errors_by_text.get((ErrorCategory.UNKNOWN, OTHER))
        return other or self._add_error(ErrorCategory.UNKNOWN, OTHER, None, at_ms)

    def _add_error(self, category: ErrorCategory, message: str, model_id: str | None, at_ms: int) -> ErrorEntry:
        error = ErrorEntry(_next_position(self.errors), category, message, model_id, at_ms)
        self.errors.append(error)
        self._errors_by_text[category, message] = error
        return error
