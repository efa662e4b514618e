"""The outbox in SQL: what is made, leased, settled, and counted, each in the caller's transaction.

`xybridd.core.outbox` has the states and the edges between them; every statement here that changes a state changes it
along one of them. What is counted is counted in the same transaction.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.delivery import TAKES, Item, SinkName
from xybridd.core.outbox import UNSENT, Event, Row, State, Tally, batch_key, sources
from xybridd.storage import minutes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from xybridd.core.changes import Changes

_EXPORT = ("kind", "session_id", "revision", "made_at_ms", "device_id", "platform", "app", "app_version")
_ROW = "id, kind, session_id, revision, made_at_ms, item"
_IN_UNSENT = "state IN ('queued', 'leased', 'waiting')"

_PUT_EXPORT = (
    f"INSERT INTO export ({', '.join(_EXPORT)}, size_bytes, body) VALUES ({', '.join('?' * (len(_EXPORT) + 2))})"
)
_PUT_ROW = (
    "INSERT INTO outbox (sink, kind, session_id, revision, made_at_ms, item, state) VALUES (?, ?, ?, ?, ?, ?, 'queued')"
)

#: What of its row is read for a minute or a sample; the session says whose it is.
_MINUTES = (
    "SELECT s.device_id, s.hardware, s.app, s.app_version, m.body FROM minute m JOIN session s USING (session_id)"
    " WHERE m.id = ? AND m.session_id = ?"
)


class Batch(msgspec.Struct, frozen=True):
    """``again``: it was sent before, and what came of that may not be known."""

    key: str
    rows: list[Row]
    items: list[Item]
    again: bool


class DeadLetter(msgspec.Struct, frozen=True):
    """``export_id`` names it for ``upload.dead.*``."""

    export_id: int
    sink: str
    kind: str
    session_id: str
    revision: int
    made_at_ms: int
    reason: str | None


# Made


def put(connection: sqlite3.Connection, changes: Changes, minute_ids: Sequence[int], sample_ids: Sequence[int]) -> None:
    """A row for each sink that takes what was made; a newer revision takes the place of one not sent yet."""
    for item in changes.exports:
        add(connection, item, changes.sinks)
    takers = [sink for sink in changes.sinks if "minute" in TAKES[sink]]
    for sink in takers:
        for minute, number in zip(changes.minutes, minute_ids, strict=True):
            connection.execute(_PUT_ROW, (sink, "minute", minute.session_id, 0, minute.ended_at_ms, number))
        for sample, number in zip(changes.samples, sample_ids, strict=True):
            connection.execute(_PUT_ROW, (sink, "sample", "", 0, sample.at_ms, number))
        _count(connection, sink, "made", len(minute_ids) + len(sample_ids))


def add(connection: sqlite3.Connection, item: Item, sinks: Iterable[SinkName]) -> None:
    """Queue one export for these sinks, those that take its kind."""
    takers = [sink for sink in sinks if item.kind in TAKES[sink]]
    if not takers:
        return
    row = (*(getattr(item, column) for column in _EXPORT), len(item.body), zlib.compress(item.body))
    export_id = connection.execute(_PUT_EXPORT, row).lastrowid
    for sink in takers:
        if item.kind == "session":
            _supersede(connection, sink, item)
        connection.execute(_PUT_ROW, (sink, item.kind, item.session_id, item.revision, item.made_at_ms, export_id))
        _count(connection, sink, "made", 1)


def _supersede(connection: sqlite3.Connection, sink: SinkName, item: Item) -> None:
    """Older revisions that were never in a batch; those in one may have arrived, and stay what they are."""
    older = connection.execute(
        "SELECT id FROM outbox WHERE session_id = ? AND sink = ? AND kind = 'session' AND state = 'queued'"
        " AND revision < ?",
        (item.session_id, sink, item.revision),
    ).fetchall()
    remove(connection, [row[0] for row in older], "supersede")


def known(connection: sqlite3.Connection, item: Item, sink: SinkName) -> bool:
    """Whether this sink has, or is to get, this revision of the session or a newer one."""
    found = connection.execute(
        "SELECT 1 FROM outbox WHERE session_id = ? AND sink = ? AND kind = ? AND revision >= ? AND state != 'dead'",
        (item.session_id, sink, item.kind, item.revision),
    )
    return found.fetchone() is not None


def take_in(connection: sqlite3.Connection, items: Sequence[Item], sinks: Sequence[SinkName]) -> int:
    """Queue exports of another device, each for the sinks that do not know it; how many were new to one at least."""
    new = 0
    for item in items:
        wanting = [sink for sink in sinks if item.kind in TAKES[sink] and not known(connection, item, sink)]
        add(connection, item, wanting)
        new += bool(wanting)
    return new


# Sent


def release(connection: sqlite3.Connection, sink: str | None = None) -> None:
    """Every lease has expired, or those of one sink: whoever took it is gone."""
    connection.execute(
        f"UPDATE outbox SET state = 'waiting' WHERE {_IN_UNSENT} AND state = 'leased' AND coalesce(sink = ?, 1)",
        (sink,),
    )


def has_unsent(connection: sqlite3.Connection, sink: SinkName) -> bool:
    found = connection.execute(f"SELECT 1 FROM outbox WHERE sink = ? AND {_IN_UNSENT} LIMIT 1", (sink,))
    return found.fetchone() is not None


def lease(
    connection: sqlite3.Connection,
    sink: SinkName,
    device_id: str,
    most_items: int,
    most_bytes: int,
    aside: Sequence[str] = (),
) -> Batch | None:
    """Take the next batch, to send it now. A row whose body damage took is evicted on the way.

    ``aside``: the keys of batches that are to let others by.
    """
    batch, lost = next_batch(connection, sink, device_id, most_items, most_bytes, aside)
    while batch is None and lost:
        remove(connection, [row.row_id for row in lost], "evict")
        batch, lost = next_batch(connection, sink, device_id, most_items, most_bytes, aside)
    remove(connection, [row.row_id for row in lost], "evict")
    if batch is not None:
        connection.executemany(
            "UPDATE outbox SET state = 'leased', batch = ? WHERE id = ?",
            [(batch.key, row.row_id) for row in batch.rows],
        )
    return batch


def next_batch(
    connection: sqlite3.Connection,
    sink: SinkName,
    device_id: str,
    most_items: int,
    most_bytes: int,
    aside: Sequence[str] = (),
) -> tuple[Batch | None, list[Row]]:
    """What would go next: the oldest row with the rest of its batch, else as many new ones as fit in one request.

    Beside it the rows that have no body any more.
    """
    first = connection.execute(
        f"SELECT batch FROM outbox WHERE sink = ? AND {_IN_UNSENT} AND state != 'leased'"
        f" AND coalesce(batch, '') NOT IN ({', '.join('?' * len(aside))}) ORDER BY id LIMIT 1",
        (sink, *aside),
    ).fetchone()
    key = None if first is None else first[0]
    found = connection.execute(
        f"SELECT {_ROW} FROM outbox WHERE sink = ? AND {_IN_UNSENT} AND state = ? AND batch IS ? ORDER BY id LIMIT ?",
        (sink, "queued" if key is None else "waiting", key, most_items if key is None else -1),
    )
    rows, items, lost, size_bytes = list[Row](), list[Item](), list[Row](), 0
    for row in [Row(*each) for each in found]:
        item = _item(connection, row, device_id)
        if item is None:
            lost.append(row)
            continue
        size_bytes += len(item.body)
        if key is None and items and size_bytes > most_bytes:
            break
        rows.append(row)
        items.append(item)
    if not rows:
        return None, lost
    return Batch(key or batch_key(device_id, sink, rows), rows, items, again=key is not None), lost


def _item(connection: sqlite3.Connection, row: Row, device_id: str) -> Item | None:
    if row.kind in {"session", "deletion"}:
        found = connection.execute(
            f"SELECT {', '.join(_EXPORT)}, body FROM export WHERE id = ?",
            (row.item,),
        ).fetchone()
        try:
            return (
                None
                if found is None
                else Item(**dict(zip(_EXPORT, found, strict=False)), body=zlib.decompress(found[-1]))
            )
        except zlib.error:
            return None
    if row.kind == "minute":
        minute = connection.execute(_MINUTES, (row.item, row.session_id)).fetchone()
        if minute is None or not minutes.is_minute(minute[-1]):
            return None
        owner, hardware, app, app_version, body = minute
        return Item("minute", row.session_id, 0, row.made_at_ms, owner, _platform(hardware), app, app_version, body)
    sample = connection.execute("SELECT body FROM sample WHERE id = ?", (row.item,)).fetchone()
    if sample is None or not minutes.is_sample(sample[0]):
        return None
    return Item("sample", "", 0, row.made_at_ms, device_id, "", "", "", sample[0])


class _Platform(msgspec.Struct):
    platform: str = "unknown"


def _platform(hardware: str | None) -> str:
    try:
        return msgspec.json.decode(hardware or "{}", type=_Platform).platform.lower()
    except (msgspec.MsgspecError, RecursionError):
        return "unknown"


# Settled


def delivered(connection: sqlite3.Connection, sink: SinkName, batch: Batch) -> None:
    """The sink has it. Of a session's rows the newest one stays, as a mark."""
    for row in batch.rows:
        if row.kind == "session":
            connection.execute(
                "DELETE FROM outbox WHERE session_id = ? AND sink = ? AND kind = 'session' AND state = 'delivered'"
                " AND revision < ?",
                (row.session_id, sink, row.revision),
            )
            connection.execute("UPDATE outbox SET state = 'delivered', batch = NULL WHERE id = ?", (row.row_id,))
        else:
            connection.execute("DELETE FROM outbox WHERE id = ?", (row.row_id,))
        _drop_body(connection, row.kind, row.session_id, row.item)
    _count(connection, sink, "delivered", len(batch.rows))


def failed(connection: sqlite3.Connection, batch: Batch) -> None:
    """It goes again as it is."""
    _set(connection, batch.rows, "fail", None)


def halved(connection: sqlite3.Connection, sink: SinkName, device_id: str, batch: Batch) -> None:
    """The sink refused it as a whole and took nothing: two batches in its place."""
    middle = len(batch.rows) // 2
    for part in (batch.rows[:middle], batch.rows[middle:]):
        _set(connection, part, "fail", None)
        key = batch_key(device_id, sink, part)
        connection.executemany("UPDATE outbox SET batch = ? WHERE id = ?", [(key, row.row_id) for row in part])


def buried(connection: sqlite3.Connection, batch: Batch, reason: str) -> None:
    """The sink will never take it."""
    _set(connection, batch.rows, "refuse", reason)
    connection.executemany("UPDATE outbox SET batch = NULL WHERE id = ?", [(row.row_id,) for row in batch.rows])


def _set(connection: sqlite3.Connection, rows: Sequence[Row], event: Event, reason: str | None) -> None:
    to = {"fail": State.WAITING, "refuse": State.DEAD}[event]
    connection.executemany(
        "UPDATE outbox SET state = ?, reason = ? WHERE id = ? AND state = 'leased'",
        [(to.value, reason, row.row_id) for row in rows],
    )


# Let go


_ENDS: dict[Event, str] = {"supersede": "superseded", "evict": "evicted", "forget": "forgotten"}


def remove(connection: sqlite3.Connection, row_ids: Sequence[int], event: Event) -> int:
    """Take rows out and count how they ended; delivered marks go uncounted. How many were counted.

    What is being sent at this moment stays. The rest of a batch that lost a row is sent under the batch's key.
    """
    counted = 0
    endings = {state.value for state in sources(event)}
    for row_id in row_ids:
        found = connection.execute(
            "SELECT sink, state, kind, session_id, item FROM outbox WHERE id = ?", (row_id,)
        ).fetchone()
        if found is None or (found[1] not in endings and found[1] != State.DELIVERED):
            continue
        sink, state, *body = found
        connection.execute("DELETE FROM outbox WHERE id = ?", (row_id,))
        # The body of a mark is gone, and its number may be that of another by now.
        if state != State.DELIVERED:
            _drop_body(connection, *body)
            _count(connection, sink, _ENDS[event], 1)
            counted += 1
    return counted


def of_session(connection: sqlite3.Connection, session_id: str) -> list[int]:
    """What hangs on a session; the wish that it be deleted does not."""
    rows = connection.execute("SELECT id FROM outbox WHERE session_id = ? AND kind != 'deletion'", (session_id,))
    return [row[0] for row in rows]


def holders(connection: sqlite3.Connection, session_id: str | None) -> list[SinkName]:
    """The sinks that have a session, or may have it; None: that have anything, also of sessions that are gone here."""
    if session_id is None:
        rows = connection.execute(
            "SELECT sink FROM tally WHERE name = 'delivered' AND amount > 0"
            f" UNION SELECT sink FROM outbox WHERE {_IN_UNSENT} AND state != 'queued'"
        )
    else:
        rows = connection.execute(
            "SELECT DISTINCT sink FROM outbox WHERE session_id = ? AND kind = 'session'"
            " AND state IN ('delivered', 'waiting', 'leased')",
            (session_id,),
        )
    return [sink for (sink,) in rows.fetchall() if "deletion" in TAKES[sink]]


def _drop_body(connection: sqlite3.Connection, kind: str, session_id: str, item: int) -> None:
    """The frozen body of an export, when no row needs it any more."""
    if kind in {"session", "deletion"}:
        connection.execute(
            "DELETE FROM export WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE session_id = ?2 AND item = ?1"
            " AND kind IN ('session', 'deletion') AND state != 'delivered')",
            (item, session_id),
        )


# Dead letters


def dead(connection: sqlite3.Connection) -> list[DeadLetter]:
    rows = connection.execute(
        "SELECT id, sink, kind, session_id, revision, made_at_ms, reason FROM outbox WHERE state = 'dead' ORDER BY id"
    )
    return [DeadLetter(*row) for row in rows]


def dead_item(connection: sqlite3.Connection, row_id: int, device_id: str) -> tuple[DeadLetter, Item | None] | None:
    letter = next((each for each in dead(connection) if each.export_id == row_id), None)
    if letter is None:
        return None
    row = connection.execute(f"SELECT {_ROW} FROM outbox WHERE id = ?", (row_id,)).fetchone()
    return letter, _item(connection, Row(*row), device_id)


def replay(connection: sqlite3.Connection, row_ids: Sequence[int]) -> int:
    """Dead letters are queued again, each as a row of its own, so that it goes under a new key. How many."""
    done = 0
    for row_id in row_ids:
        found = connection.execute(
            "SELECT sink, kind, session_id, revision, made_at_ms, item FROM outbox WHERE id = ? AND state = 'dead'",
            (row_id,),
        ).fetchone()
        if found is not None:
            connection.execute("DELETE FROM outbox WHERE id = ?", (row_id,))
            connection.execute(_PUT_ROW, found)
            done += 1
    return done


# Counted


def _count(connection: sqlite3.Connection, sink: str, name: str, amount: int) -> None:
    if amount:
        connection.execute(
            "INSERT INTO tally (sink, name, amount) VALUES (?, ?, ?)"
            " ON CONFLICT (sink, name) DO UPDATE SET amount = amount + excluded.amount",
            (sink, name, amount),
        )


def tallies(connection: sqlite3.Connection) -> dict[str, Tally]:
    """Each sink's side of the ledger, for every sink that was ever on."""
    found: dict[str, Tally] = {}
    for sink, name, amount in connection.execute("SELECT sink, name, amount FROM tally"):
        setattr(found.setdefault(sink, Tally()), name, amount)
    for sink, counts in states(connection).items():
        tally = found.setdefault(sink, Tally())
        tally.queued = sum(counts.get(state, 0) for state in UNSENT)
        tally.dead = counts.get(State.DEAD, 0)
    return found


def states(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How many rows of each sink are in which state."""
    found: dict[str, dict[str, int]] = {}
    for sink, state, count in connection.execute("SELECT sink, state, count(*) FROM outbox GROUP BY sink, state"):
        found.setdefault(sink, {})[state] = count
    return found


def balance(connection: sqlite3.Connection) -> None:
    """After damage: rows whose item is gone are evicted, and the tallies are made to agree with what is there."""
    lost = connection.execute(
        "SELECT id FROM outbox o WHERE state != 'delivered' AND CASE"
        " WHEN kind IN ('session', 'deletion') THEN NOT EXISTS (SELECT 1 FROM export e WHERE e.id = o.item)"
        " WHEN kind = 'minute' THEN NOT EXISTS (SELECT 1 FROM minute m WHERE m.id = o.item)"
        " ELSE NOT EXISTS (SELECT 1 FROM sample s WHERE s.id = o.item) END"
    ).fetchall()
    release(connection)
    remove(connection, [row[0] for row in lost], "evict")
    for sink, tally in tallies(connection).items():
        ended = tally.delivered + tally.queued + tally.superseded + tally.dead + tally.evicted + tally.forgotten
        if tally.made > ended:
            _count(connection, sink, "evicted", tally.made - ended)
        else:
            _count(connection, sink, "made", ended - tally.made)


# How sinks did


def sink_states(connection: sqlite3.Connection) -> dict[str, str]:
    """JSON by sink."""
    return {str(name): str(body) for name, body in connection.execute("SELECT name, body FROM sink")}


def put_sink_state(connection: sqlite3.Connection, sink: str, body: bytes) -> None:
    connection.execute(
        "INSERT INTO sink (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
        (sink, body.decode()),
    )
