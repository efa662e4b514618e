"""What may be let go of, and in which order, when its time is up or the database is over its quota.

A session of which something is still to be sent is not past its time, whatever its age. Over the quota go, until enough
is free, the oldest of each kind first:

1. ended sessions of which nothing waits to be sent (dead letters go with them: nobody will take those),
2. ended sessions of which something waits that was in no batch yet,
3. samples of the device,
4. exports of other devices, which were brought here to be sent on.

Of each kind first those of a user of whom more than half of all sessions are, if there are others.

Where a producer's batches stand is kept for the `PRODUCERS_EACH` of each user that were heard of last: one that comes
again with what it sent before is known. Without a bound, who starts a process a minute, or means harm, would fill the
disk with them.

What is in a batch may have arrived, and is about to go again: it stays. So does what is still open.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import msgspec

from xybridd.storage import outbox
from xybridd.storage.rows import record_count

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

#: Producers remembered of each user, if they take no more than an eighth of the quota: some 1.3 MB.
PRODUCERS_EACH = 10_000

#: One with its share of the index: 125, and longer names of apps.
_PRODUCER_BYTES = 150

#: What a row takes beside its texts and blobs, with its share of the indexes.
_ROW_BYTES = 150

_WAITS = (
    "EXISTS (SELECT 1 FROM outbox o WHERE o.session_id = s.session_id AND o.kind != 'deletion' AND o.state IN ({}))"
)
_UNSENT = _WAITS.format("'queued', 'leased', 'waiting'")
#: Of a boot whose clock was wrong to its end: it is as old as the first right clock that was seen after it.
_OF_UNKNOWN_AGE = (
    "EXISTS (SELECT 1 FROM clock c WHERE c.boot_id = s.boot_id AND c.wrong AND c.by_ms IS NULL"
    " AND (c.known_ms IS NULL OR c.known_ms >= ?1))"
)
_IN_A_BATCH = _WAITS.format("'leased', 'waiting'")

_SESSION_BYTES = f"""
SELECT (SELECT 2 * {_ROW_BYTES} + length(details) + coalesce(length(hardware), 0) + length(transitions)
        FROM session WHERE session_id = ?1)
     + (SELECT coalesce(sum({_ROW_BYTES} + length(latency) + length(stats) + length(conditions)), 0)
        FROM model WHERE session_id = ?1)
     + (SELECT coalesce(sum({_ROW_BYTES} + length(message)), 0) FROM error WHERE session_id = ?1)
     + (SELECT coalesce(sum({_ROW_BYTES} + length(body)), 0) FROM minute WHERE session_id = ?1)
     + (SELECT {_ROW_BYTES} * count(*) FROM outbox WHERE session_id = ?1)
     + (SELECT coalesce(sum({_ROW_BYTES} + length(body)), 0) FROM export
        WHERE id IN (SELECT item FROM outbox WHERE session_id = ?1 AND kind = 'session' AND state != 'delivered'))
"""

#: Rows of the outbox that hang on no session of this device.
_OTHERS = "kind = 'session' AND NOT EXISTS (SELECT 1 FROM session s WHERE s.session_id = o.session_id)"

_OTHERS_ROWS = (
    f"SELECT o.id, {_ROW_BYTES} + coalesce(length(e.body), 0) FROM outbox o LEFT JOIN export e ON e.id = o.item"
    f" WHERE o.state IN ('queued', 'dead') AND o.{_OTHERS} ORDER BY o.id"
)
_SAMPLES = (
    f"SELECT id, {_ROW_BYTES} + length(body) FROM sample WHERE id NOT IN (SELECT item FROM outbox"
    " WHERE session_id = '' AND kind = 'sample' AND state IN ('leased', 'waiting')) ORDER BY id"
)


class LettingGo(msgspec.Struct, frozen=True):
    """``sessions``: how many records are in each. ``rows`` of the outbox and ``samples`` by their ids."""

    sessions: dict[str, int] = {}
    rows: list[int] = []
    samples: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.sessions or self.rows or self.samples)


def expired(connection: sqlite3.Connection, before_ms: int, limit: int) -> dict[str, int]:
    """Sessions that ended before and of which nothing is to be sent any more, oldest first: records in each."""
    found = connection.execute(
        f"SELECT session_id FROM session s WHERE ended_at_ms < ?1 AND NOT {_UNSENT} AND NOT {_OF_UNKNOWN_AGE}"
        " ORDER BY ended_at_ms LIMIT ?2",
        (before_ms, limit),
    ).fetchall()
    return {session_id: record_count(connection, session_id) for (session_id,) in found}


def to_evict(connection: sqlite3.Connection, size_bytes: int, limit: int) -> LettingGo:
    """What goes first to free about so much, at most so many of a kind at once."""
    chosen, left = _enough(_sessions(connection), size_bytes, limit)
    sessions = {session_id: record_count(connection, session_id) for session_id in chosen}
    if left <= 0 or len(chosen) >= limit:
        return LettingGo(sessions)
    samples, left = _enough(connection.execute(_SAMPLES), left, limit)
    rows, _ = _enough(connection.execute(_OTHERS_ROWS), left, limit)
    return LettingGo(sessions, rows, samples)


def _enough(found: Iterable[tuple[T, int]], size_bytes: int, limit: int) -> tuple[list[T], int]:
    """As many of these as are that large together, and how much is missing then."""
    chosen = list[T]()
    for each, size in found:
        if size_bytes <= 0 or len(chosen) >= limit:
            break
        chosen.append(each)
        size_bytes -= size
    return chosen, size_bytes


def _flooding(connection: sqlite3.Connection) -> int | None:
    """The user of whom most sessions are, if it is not the only one: it must not push out those of others."""
    counts = connection.execute("SELECT uid, count(*) FROM session GROUP BY uid ORDER BY 2 DESC").fetchall()
    total = sum(count for _, count in counts)
    return counts[0][0] if len(counts) > 1 and 2 * counts[0][1] > total else None


def _sessions(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    flooding = _flooding(connection)
    for which in (f"NOT {_UNSENT}", f"{_UNSENT} AND NOT {_IN_A_BATCH}"):
        ended = connection.execute(
            f"SELECT session_id FROM session s WHERE ended_at_ms IS NOT NULL AND {which}"
            " ORDER BY uid IS NOT ?, ended_at_ms",
            (flooding,),
        )
        for (session_id,) in ended.fetchall():
            yield session_id, connection.execute(_SESSION_BYTES, (session_id,)).fetchone()[0]


def evict(connection: sqlite3.Connection, chosen: LettingGo) -> None:
    """All of it but the sessions, which their owner lets go of."""
    outbox.remove(connection, chosen.rows, "evict")
    _drop_samples(connection, chosen.samples)


def _drop_samples(connection: sqlite3.Connection, samples: list[int]) -> None:
    for number in samples:
        waiting = connection.execute(
            "SELECT id FROM outbox WHERE session_id = '' AND kind = 'sample' AND item = ?", (number,)
        ).fetchall()
        outbox.remove(connection, [row[0] for row in waiting], "evict")
        connection.execute(
            "DELETE FROM sample WHERE id = ?1 AND NOT EXISTS"
            " (SELECT 1 FROM outbox WHERE session_id = '' AND kind = 'sample' AND item = ?1)",
            (number,),
        )


def tidy(connection: sqlite3.Connection, before_ms: int) -> None:
    """Marks and dead letters of no session of this device: with none to go with, they go when they are as old."""
    old = connection.execute(
        f"SELECT id FROM outbox o WHERE made_at_ms < ? AND state IN ('delivered', 'dead')"
        f" AND (o.{_OTHERS} OR kind IN ('deletion', 'sample'))",
        (before_ms,),
    ).fetchall()
    outbox.remove(connection, [row[0] for row in old], "evict")


_MANY_PRODUCERS = "SELECT uid FROM producer GROUP BY uid HAVING count(*) > ?"
#: When the last one of a user was heard of that stays. The sign keeps SQLite from going by the index of names, and from
#: there to each row, which takes five times as long as reading all of them.
_STAYS_SINCE = "SELECT heard_at_ms FROM producer WHERE +uid = ? ORDER BY heard_at_ms DESC LIMIT 1 OFFSET ?"
_FORGET_PRODUCERS = """
DELETE FROM producer WHERE id IN (
    SELECT id FROM producer
    WHERE +uid = ?1 AND heard_at_ms < ?2 AND client_id NOT IN (SELECT value FROM json_each(?3)) LIMIT ?4
)
"""


def forget_producers(connection: sqlite3.Connection, connected: list[str], quota_bytes: int, limit: int) -> int:
    """Of each user those heard of longest ago, past what it may have and at most `limit` at once; how many went.

    ``connected``: the client ids of those that stay in any case.
    """
    most_each = min(PRODUCERS_EACH, quota_bytes // 8 // _PRODUCER_BYTES)
    stay = json.dumps(connected)
    gone = 0
    for (uid,) in connection.execute(_MANY_PRODUCERS, (most_each,)).fetchall():
        ((since_ms,),) = connection.execute(_STAYS_SINCE, (uid, most_each - 1))
        gone += connection.execute(_FORGET_PRODUCERS, (uid, since_ms, stay, limit)).rowcount
    return gone
