"""Values of `xybridd.core.changes` as SQL statements, and rows as values again.

Reading is tolerant: after a flipped bit that SQLite cannot see, a column that does not decode falls back to its
empty value, and the rest of the session is still there.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from xybridd.core.capabilities import HardwareCapabilities
from xybridd.core.category import ErrorCategory
from xybridd.core.changes import Changes, ErrorImage, ModelImage, ProducerImage, SessionHead
from xybridd.core.conditions import Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.ledger import COUNTED, RECEIVED, received_of
from xybridd.core.minute import Minute
from xybridd.core.stats import LARGEST_COUNTER, StatsTotals
from xybridd.storage import minutes, outbox

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from xybridd.core.outbox import Event

log = logging.getLogger(__name__)

T = TypeVar("T")

_HEAD = (
    "session_id", "device_id", "uid", "app", "started_at_ms", "started_mono_ms", "boot_id", "app_version",
    "sdk_version", "client_id", "implicit", "ended_at_ms", "end_reason", "successor", "revision", "labels",
    "models_used", "hardware", "details", "transitions", "processes", "calls_in_progress",
)  # fmt: skip
#: Columns that hold JSON, the type of it, and what stands for one that cannot be read.
_JSON_COLUMNS: tuple[tuple[str, Any, Any], ...] = (
    ("labels", dict[str, str], {}),
    ("models_used", list[str], []),
    ("details", dict[str, Any], {}),
    ("transitions", list[dict[str, Any]], []),
    ("processes", dict[str, int], {}),
    ("calls_in_progress", list[dict[str, Any]], []),
    ("hardware", HardwareCapabilities, None),
)
_MODEL = ModelImage.__struct_fields__
_ERROR = ErrorImage.__struct_fields__
_PRODUCER = ProducerImage.__struct_fields__


def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    names = ", ".join(columns)
    places = ", ".join("?" * len(columns))
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return f"INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"


_PUT_HEAD = _upsert("session", _HEAD, ("session_id",))
_PUT_MODEL = _upsert("model", _MODEL, ("session_id", "position"))
_PUT_ERROR = _upsert("error", _ERROR, ("session_id", "position"))
_PUT_PRODUCER = _upsert("producer", _PRODUCER, ("uid", "client_id"))
_PUT_LEDGER = _upsert("ledger", ("name", "amount"), ("name",))

_GET_HEAD = f"SELECT {', '.join(_HEAD)} FROM session"
_GET_MODELS = f"SELECT {', '.join(_MODEL)} FROM model WHERE session_id = ? ORDER BY position"
_GET_ERRORS = f"SELECT {', '.join(_ERROR)} FROM error WHERE session_id = ? ORDER BY position"
_GET_PRODUCER = f"SELECT {', '.join(_PRODUCER)} FROM producer WHERE uid = ? AND client_id = ?"


class StoredSession(msgspec.Struct, frozen=True):
    head: SessionHead
    models: list[ModelImage]
    errors: list[ErrorImage]
    #: The sum of its minutes, when that is not all that is in it.
    closed: Minute | None = None


def put(connection: sqlite3.Connection, changes: Changes) -> None:
    """Write the changes; the caller holds the transaction."""
    run = connection.executemany
    for session_id in changes.deleted_sessions:
        _delete(connection, session_id, "evict")
    for session_id in changes.forgotten_sessions:
        _delete(connection, session_id, "forget")
    run(_PUT_HEAD, map(_head_row, changes.heads))
    run(_PUT_MODEL, map(msgspec.structs.astuple, changes.models))
    run(_PUT_ERROR, map(msgspec.structs.astuple, changes.errors))
    run(_PUT_PRODUCER, map(msgspec.structs.astuple, changes.producers))
    run(_PUT_LEDGER, changes.ledger.items())
    outbox.put(connection, changes, *minutes.put(connection, changes))


def _delete(connection: sqlite3.Connection, session_id: str, event: Event) -> None:
    """A session with all that hangs on it; what of it waits to be sent ends by this event."""
    outbox.remove(connection, outbox.of_session(connection, session_id), event)
    for table in ("model", "error", "minute", "session"):
        connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))


def _head_row(head: SessionHead) -> tuple[Any, ...]:
    encode = msgspec.json.encode
    return (
        head.session_id, head.device_id, head.uid, head.app, head.started_at_ms, head.started_mono_ms, head.boot_id,
        head.app_version, head.sdk_version, head.client_id, head.implicit, head.ended_at_ms, head.end_reason,
        head.successor, head.revision, encode(head.labels).decode(), encode(head.models_used).decode(),
        None if head.hardware is None else encode(head.hardware).decode(), encode(head.details).decode(),
        encode(head.transitions).decode(), encode(head.processes).decode(), encode(head.calls_in_progress).decode(),
    )  # fmt: skip


def _or_empty(decode: Callable[[], T], empty: T, what: str, session_id: str) -> T:
    try:
        return decode()
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("session %s: %s cannot be read and counts as empty: %s", session_id, what, error)
        return empty


def _sound(kind: type, columns: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    """The row by column. One bit turns a number into a text: a value of the wrong kind counts as none of it."""
    values = dict(zip(columns, row, strict=True))
    for column, wanted in _kinds(kind).items():
        value = values.get(column)
        if value is not None and wanted in {int, str, bytes} and not isinstance(value, wanted):
            log.warning("%s %s cannot be read and counts as empty", kind.__name__, column)
            values[column] = wanted()
    return values


@cache
def _kinds(kind: type) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _head(row: tuple[Any, ...]) -> SessionHead:
    values = _sound(SessionHead, _HEAD, row)
    session_id = values["session_id"]
    values["implicit"] = bool(values["implicit"])
    for column, kind, empty in _JSON_COLUMNS:
        if values[column] is not None:
            decode = partial(msgspec.json.decode, values[column], type=kind)
            values[column] = _or_empty(decode, empty, column, session_id)
    return SessionHead(**values)


def _model(row: tuple[Any, ...]) -> ModelImage:
    image = ModelImage(**_sound(ModelImage, _MODEL, row))
    latency = _or_empty(
        lambda: Histogram.from_bytes(image.latency).to_bytes(),
        Histogram().to_bytes(),
        "latency",
        image.session_id,
    )
    stats = _or_empty(lambda: StatsTotals.from_bytes(image.stats).to_bytes(), b"", "stats", image.session_id)
    conditions = _or_empty(
        lambda: Conditions.from_bytes(image.conditions).to_bytes(), b"", "conditions", image.session_id
    )
    return msgspec.structs.replace(image, latency=latency, stats=stats, conditions=conditions)


def _error(row: tuple[Any, ...]) -> ErrorImage:
    image = ErrorImage(**_sound(ErrorImage, _ERROR, row))
    category = _or_empty(lambda: ErrorCategory(image.category), ErrorCategory.UNKNOWN, "category", image.session_id)
    return msgspec.structs.replace(image, category=category.value)


def get_session(connection: sqlite3.Connection, session_id: str) -> StoredSession | None:
    row = connection.execute(f"{_GET_HEAD} WHERE session_id = ?", (session_id,)).fetchone()
    return None if row is None else _with_entries(connection, _head(row))


def get_open_sessions(connection: sqlite3.Connection) -> list[StoredSession]:
    rows = connection.execute(f"{_GET_HEAD} WHERE ended_at_ms IS NULL ORDER BY id").fetchall()
    found = [_with_entries(connection, _head(row)) for row in rows]
    for number, each in enumerate(found):
        closed = minutes.closed_of(connection, each.head.session_id, each.head.started_at_ms)
        found[number] = msgspec.structs.replace(each, closed=closed)
    return found


def session_ids(connection: sqlite3.Connection) -> list[str]:
    return [str(row[0]) for row in connection.execute("SELECT session_id FROM session ORDER BY id")]


def get_last_implicit(connection: sqlite3.Connection, uid: int, app: str) -> str | None:
    row = connection.execute(
        "SELECT session_id FROM session WHERE uid = ? AND app = ? AND implicit ORDER BY id DESC LIMIT 1",
        (uid, app),
    ).fetchone()
    return None if row is None else str(row[0])


def _with_entries(connection: sqlite3.Connection, head: SessionHead) -> StoredSession:
    key = (head.session_id,)
    return StoredSession(
        head,
        [_model(row) for row in connection.execute(_GET_MODELS, key)],
        [_error(row) for row in connection.execute(_GET_ERRORS, key)],
    )


def get_producer(connection: sqlite3.Connection, uid: int, client_id: str) -> ProducerImage | None:
    row = connection.execute(_GET_PRODUCER, (uid, client_id)).fetchone()
    return None if row is None else ProducerImage(**_sound(ProducerImage, _PRODUCER, row))


def get_ledger(connection: sqlite3.Connection) -> dict[str, int]:
    return {str(name): _whole(amount) for name, amount in connection.execute("SELECT name, amount FROM ledger")}


def records_in_sessions(connection: sqlite3.Connection) -> int:
    # Summed here, since SQLite's own sum fails past 2**63.
    known = "WHERE session_id IN (SELECT session_id FROM session)"
    counts = connection.execute(
        f"SELECT call_count FROM model {known} UNION ALL SELECT cancelled FROM model {known} "
        f"UNION ALL SELECT count FROM error {known}"
    )
    return sum(_whole(row[0]) for row in counts)


def ledger_agrees(connection: sqlite3.Connection) -> bool:
    """Both equations of the records, on disk. A counter that has reached its end proves nothing."""
    ledger = get_ledger(connection)
    if max(ledger.values(), default=0) >= LARGEST_COUNTER:
        return True
    return not unaccounted(connection) and ledger.get(RECEIVED, 0) == received_of(ledger)


def recount_received(connection: sqlite3.Connection) -> None:
    """After damage: what was received is what became of it."""
    ledger = get_ledger(connection)
    if ledger.get(RECEIVED, 0) != (received := min(received_of(ledger), LARGEST_COUNTER)):
        connection.execute(_PUT_LEDGER, (RECEIVED, received))


def drop_impossible(connection: sqlite3.Connection) -> None:
    """After damage: no count is below zero."""
    connection.execute("UPDATE model SET call_count = 0 WHERE call_count < 0")
    connection.execute("UPDATE error SET count = 0 WHERE count < 0")
    connection.execute("UPDATE ledger SET amount = 0 WHERE amount < 0")


def delete_orphans(connection: sqlite3.Connection) -> None:
    """Models, errors and minutes of sessions whose own row damage took."""
    for table in ("model", "error", "minute"):
        connection.execute(f"DELETE FROM {table} WHERE session_id NOT IN (SELECT session_id FROM session)")


def unaccounted(connection: sqlite3.Connection) -> int:
    """How many records the ledger counted that are in no session and were not removed; after damage, what it took.

    Negative when the ledger itself lost something.
    """
    ledger = get_ledger(connection)
    removed = sum(amount for name, amount in ledger.items() if name.startswith("removed."))
    return ledger.get(COUNTED, 0) - removed - records_in_sessions(connection)


class SessionSummary(msgspec.Struct, frozen=True):
    """A line of ``session.list``.

    ``pids``: the processes that hold it open, none when it lost its app; None when no process has to. ``processes`` and
    ``calls_in_progress`` are as in `SessionHead`.
    """

    session_id: str
    app: str
    started_at: int
    ended_at: int | None
    end_reason: str | None
    revision: int
    total_inferences: int
    total_latency_ms: int
    avg_latency_ms: int
    error_count: int
    models_used: list[str]
    labels: dict[str, str]
    pids: list[int] | None = None
    processes: dict[str, int] = {}
    calls_in_progress: list[dict[str, Any]] = []


class SessionFilter(msgspec.Struct, frozen=True):
    """Which sessions to list; ``uid`` None means everybody's."""

    uid: int | None = None
    active: bool | None = None
    app: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 100


def list_sessions(connection: sqlite3.Connection, wanted: SessionFilter) -> list[SessionSummary]:
    """Newest first.

    ``since_ms`` keeps sessions that were still open then, or started later, ``until_ms`` those that had started by
    then, so that a long list can be read in parts.
    """
    where, args = ["1"], list[Any]()
    if wanted.uid is not None:
        where.append("uid = ?")
        args.append(wanted.uid)
    if wanted.active is not None:
        where.append("ended_at_ms IS NULL" if wanted.active else "ended_at_ms IS NOT NULL")
    if wanted.app is not None:
        where.append("app = ?")
        args.append(wanted.app)
    if wanted.since_ms is not None:
        where.append("(ended_at_ms IS NULL OR ended_at_ms >= ?)")
        args.append(wanted.since_ms)
    if wanted.until_ms is not None:
        where.append("started_at_ms <= ?")
        args.append(wanted.until_ms)
    rows = connection.execute(
        f"{_GET_HEAD} WHERE {' AND '.join(where)} ORDER BY started_at_ms DESC, id DESC LIMIT ?",
        (*args, wanted.limit),
    ).fetchall()
    return [_summary(connection, _head(row)) for row in rows]


def _summary(connection: sqlite3.Connection, head: SessionHead) -> SessionSummary:
    models = connection.execute(
        "SELECT call_count, total_latency_ms FROM model WHERE session_id = ?", (head.session_id,)
    ).fetchall()
    # Summed here, since SQLite's own sum fails past 2**63.
    calls = min(sum(_whole(row[0]) for row in models), LARGEST_COUNTER)
    latency = min(sum(_whole(row[1]) for row in models), LARGEST_COUNTER)
    errors = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM error WHERE session_id = ?", (head.session_id,)
    ).fetchone()[0]
    return SessionSummary(
        session_id=head.session_id,
        app=head.app,
        started_at=head.started_at_ms,
        ended_at=head.ended_at_ms,
        end_reason=head.end_reason,
        revision=head.revision,
        total_inferences=calls,
        total_latency_ms=latency,
        avg_latency_ms=latency // calls if calls else 0,
        error_count=errors,
        models_used=head.models_used,
        labels=head.labels,
        processes=head.processes,
        calls_in_progress=head.calls_in_progress,
    )


def record_count(connection: sqlite3.Connection, session_id: str) -> int:
    calls = connection.execute(
        "SELECT coalesce(sum(call_count + cancelled), 0) FROM model WHERE session_id = ?", (session_id,)
    ).fetchone()[0]
    errors = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM error WHERE session_id = ?", (session_id,)
    ).fetchone()[0]
    return int(calls + errors)
