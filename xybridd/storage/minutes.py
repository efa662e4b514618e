"""Minutes and samples as rows, and how they grow coarser with age.

The sums of a session's minutes are the session, so merging keeps them: what is older than two days stands an hour a
row. A minute that still waits to be sent is left as it is, since it was counted as one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd.core.minute import HOUR_MS, AppMinute, Minute, MinuteFilter, Sample, minute_from

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from xybridd.core.changes import Changes

log = logging.getLogger(__name__)

_PUT_MINUTE = (
    "INSERT INTO minute (session_id, started_at_ms, ended_at_ms, calls, errors, body) VALUES (?, ?, ?, ?, ?, ?)"
)
_PUT_SAMPLE = "INSERT INTO sample (at_ms, body) VALUES (?, ?)"

#: Of a minute ``m``: nobody waits for it any more.
_SENT = "NOT EXISTS (SELECT 1 FROM outbox o WHERE o.session_id = m.session_id AND o.kind = 'minute' AND o.item = m.id)"

_encode = msgspec.msgpack.encode
_sample = msgspec.msgpack.Decoder(Sample)


def put(connection: sqlite3.Connection, changes: Changes) -> tuple[list[int], list[int]]:
    """The ids of the minutes and of the samples."""
    return [_put_minute(connection, minute) for minute in changes.minutes], [
        int(connection.execute(_PUT_SAMPLE, (sample.at_ms, _encode(sample))).lastrowid or 0)
        for sample in changes.samples
    ]


def _put_minute(connection: sqlite3.Connection, minute: Minute) -> int:
    row = (minute.session_id, minute.started_at_ms, minute.ended_at_ms, minute.calls, minute.error_count)
    return int(connection.execute(_PUT_MINUTE, (*row, _encode(minute))).lastrowid or 0)


def move(connection: sqlite3.Connection, number: int, body: bytes, corrected: Callable[[int], int]) -> None:
    """Its times were written by a wrong clock."""
    for minute in _decoded([(body,)]):
        minute.started_at_ms, minute.ended_at_ms = corrected(minute.started_at_ms), corrected(minute.ended_at_ms)
        connection.execute(
            "UPDATE minute SET started_at_ms = ?, ended_at_ms = ?, body = ? WHERE id = ?",
            (minute.started_at_ms, minute.ended_at_ms, _encode(minute), number),
        )


def move_sample(connection: sqlite3.Connection, number: int, body: bytes, boot_id: str, by_ms: int) -> None:
    """Likewise, if it is of this boot."""
    if not is_sample(body):
        return
    sample = _sample.decode(body)
    if sample.boot_id == boot_id:
        moved = msgspec.structs.replace(sample, at_ms=sample.at_ms + by_ms)
        connection.execute("UPDATE sample SET at_ms = ?, body = ? WHERE id = ?", (moved.at_ms, _encode(moved), number))


def _decoded(rows: Iterable[tuple[Any, ...]]) -> Iterable[Minute]:
    for (body,) in rows:
        try:
            yield minute_from(body)
        except ValueError as error:
            log.warning("a minute cannot be read and is passed over: %s", error)


def is_minute(body: bytes) -> bool:
    """Whether it can be read."""
    return _reads(minute_from, body)


def is_sample(body: bytes) -> bool:
    return _reads(_sample.decode, body)


def _reads(read: Callable[[bytes], object], body: bytes) -> bool:
    try:
        read(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def of_session(connection: sqlite3.Connection, session_id: str) -> list[Minute]:
    """In the order in which they were closed."""
    rows = connection.execute("SELECT body FROM minute WHERE session_id = ? ORDER BY id", (session_id,))
    return list(_decoded(rows))


class MinutePage(NamedTuple):
    """``next`` is the `after` of the page that follows; None when this is the last one."""

    minutes: list[AppMinute]
    next: tuple[int, int] | None


def page(connection: sqlite3.Connection, wanted: MinuteFilter) -> MinutePage:
    """In the order in which they began."""
    where, args = ["(m.started_at_ms, m.id) > (?, ?)"], list[Any](wanted.after)
    where.append("m.started_at_ms >= ? AND m.started_at_ms < ?")
    args += [wanted.since_ms, wanted.until_ms]
    for column in ("uid", "app", "session_id"):
        if (value := getattr(wanted, column)) is not None:
            where.append(f"s.{column} = ?")
            args.append(value)
    rows = connection.execute(
        "SELECT m.started_at_ms, m.id, s.app, s.app_version, m.body FROM minute m JOIN session s USING (session_id)"
        f" WHERE {' AND '.join(where)} ORDER BY m.started_at_ms, m.id LIMIT ?",
        (*args, wanted.limit),
    ).fetchall()
    found = [
        AppMinute(app, app_version, minute)
        for _, _, app, app_version, body in rows
        for minute in _decoded([(body,)])
    ]  # fmt: skip
    return MinutePage(found, (rows[-1][0], rows[-1][1]) if len(rows) == wanted.limit else None)


def closed_of(connection: sqlite3.Connection, session_id: str, started_ms: int) -> Minute | None:
    """The sum of a session's minutes, when that is less than the session: its last one was never closed."""
    calls, errors = connection.execute(
        "SELECT (SELECT coalesce(sum(call_count), 0) FROM model WHERE session_id = ?1),"
        " (SELECT coalesce(sum(count), 0) FROM error WHERE session_id = ?1)",
        (session_id,),
    ).fetchone()
    closed_calls, closed_errors = connection.execute(
        "SELECT coalesce(sum(calls), 0), coalesce(sum(errors), 0) FROM minute WHERE session_id = ?", (session_id,)
    ).fetchone()
    if closed_calls > calls or closed_errors > errors:
        return None
    cancelled = connection.execute("SELECT sum(cancelled) FROM model WHERE session_id = ?", (session_id,)).fetchone()[0]
    if (closed_calls, closed_errors) == (calls, errors) and not cancelled:
        return None
    total = Minute(session_id, started_ms, started_ms)
    for minute in of_session(connection, session_id):
        total.merge(minute)
    if (closed_calls, closed_errors) == (calls, errors) and sum(each.cancelled for each in total.models) == cancelled:
        return None
    return total


def samples(connection: sqlite3.Connection, since_ms: int, limit: int) -> list[Sample]:
    """The latest `limit`, oldest first."""
    rows = connection.execute(
        "SELECT body FROM sample WHERE at_ms >= ? ORDER BY id DESC LIMIT ?", (since_ms, limit)
    ).fetchall()
    found = []
    for (body,) in reversed(rows):
        try:
            found.append(_sample.decode(body))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("a sample cannot be read and is passed over: %s", error)
    return found


def coarsen(connection: sqlite3.Connection, before_ms: int, limit: int = 200) -> int:
    """Merge what is older into hours, at most `limit` hours at once; how many rows fewer there are."""
    hours = connection.execute(
        f"SELECT session_id, started_at_ms / ?1 FROM minute m WHERE ended_at_ms < ?2 AND {_SENT}"
        " GROUP BY 1, 2 HAVING count(*) > 1 LIMIT ?3",
        (HOUR_MS, before_ms, limit),
    ).fetchall()
    gone = 0
    for session_id, hour in hours:
        rows = connection.execute(
            f"SELECT id, body FROM minute m WHERE session_id = ? AND started_at_ms / ? = ? AND ended_at_ms < ?"
            f" AND {_SENT} ORDER BY id",
            (session_id, HOUR_MS, hour, before_ms),
        ).fetchall()
        merged: Minute | None = None
        for minute in _decoded((body,) for _, body in rows):
            if merged is None:
                merged = minute
            else:
                merged.merge(minute)
        connection.executemany("DELETE FROM minute WHERE id = ?", ((row_id,) for row_id, _ in rows))
        if merged is not None:
            _put_minute(connection, merged)
        gone += len(rows) - (merged is not None)
    return gone


def thin_samples(connection: sqlite3.Connection, before_ms: int, gone_ms: int) -> int:
    """Of samples older than `before_ms` keep the first of each hour, of those older than `gone_ms` none."""
    sent = "id NOT IN (SELECT item FROM outbox WHERE session_id = '' AND kind = 'sample')"
    deleted = connection.execute(f"DELETE FROM sample WHERE at_ms < ? AND {sent}", (gone_ms,)).rowcount
    deleted += connection.execute(
        f"DELETE FROM sample WHERE at_ms < ?1 AND {sent} AND id NOT IN"
        " (SELECT min(id) FROM sample WHERE at_ms < ?1 GROUP BY at_ms / ?2)",
        (before_ms, HOUR_MS),
    ).rowcount
    return int(deleted)
