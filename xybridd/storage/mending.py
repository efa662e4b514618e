"""What a wrong clock wrote is corrected on disk, with the trace of it, in the caller's transaction.

Corrected are the sessions of this boot with all that hangs on them, its samples, and what is queued. A batch that was
sent, or may have been, stays as it is, and so do the minutes and samples in it. A session of which there was an export
gets a new revision. Whatever was corrected lies outside of the times that are to be corrected: again changes nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xybridd.core.changes import Changes
from xybridd.core.delivery import TAKES
from xybridd.core.export import export_item
from xybridd.core.session import Session, SessionLimits
from xybridd.core.timeline import Stretch, Timeline
from xybridd.storage import minutes, rows

if TYPE_CHECKING:
    import sqlite3

    from xybridd.core.changes import ClockImage
    from xybridd.core.timeline import Correction

log = logging.getLogger(__name__)

#: Stretches that are kept: a board that boots in 1970 each morning leaves one or two a day.
_MOST_KEPT = 1000

_IN_BATCH = "SELECT item FROM outbox WHERE batch IS NOT NULL AND kind IN"


def timeline_of(connection: sqlite3.Connection, boot_id: str) -> tuple[Timeline, bool]:
    """What is known of this boot; and whether an earlier one still waits for a clock that is right."""
    found = connection.execute(
        "SELECT offset_ms, from_ms, until_ms, wrong, by_ms FROM clock WHERE boot_id = ? ORDER BY id", (boot_id,)
    )
    # One bit turns a number into a text: a stretch that cannot be read is one that nobody saw.
    stretches = [
        Stretch(offset_ms, from_ms, until_ms, bool(wrong), by_ms)
        for offset_ms, from_ms, until_ms, wrong, by_ms in found
        if all(isinstance(each, int) for each in (offset_ms, from_ms, until_ms, by_ms or 0))
    ]
    newest = connection.execute(
        "SELECT started_at_ms FROM session WHERE boot_id != ? ORDER BY started_at_ms DESC LIMIT 1", (boot_id,)
    ).fetchone()
    waits = connection.execute("SELECT 1 FROM clock WHERE wrong AND known_ms IS NULL LIMIT 1").fetchone()
    newest_ms = newest[0] if newest and isinstance(newest[0], int) else 0
    return Timeline(boot_id, stretches, newest_ms), waits is not None


def mend(connection: sqlite3.Connection, changes: Changes) -> None:
    """Before the rest of the changes is written: what those hold is corrected already."""
    image = changes.clock
    if image is None:
        return
    _trace(connection, image)
    if not image.corrections:
        return
    for correction in image.corrections:
        _mend_queued(connection, correction)
    _mend_minutes(connection, image)
    _mend_samples(connection, image)
    _mend_sessions(connection, image, changes)


def _trace(connection: sqlite3.Connection, image: ClockImage) -> None:
    connection.execute("DELETE FROM clock WHERE boot_id = ?", (image.boot_id,))
    connection.executemany(
        "INSERT INTO clock (boot_id, offset_ms, from_ms, until_ms, wrong, by_ms) VALUES (?, ?, ?, ?, ?, ?)",
        [(image.boot_id, *stretch) for stretch in image.stretches],
    )
    connection.execute("UPDATE clock SET known_ms = ?1 WHERE known_ms IS NULL AND ?1 IS NOT NULL", (image.now_ms,))
    connection.execute(
        "DELETE FROM clock WHERE id NOT IN (SELECT id FROM clock ORDER BY id DESC LIMIT ?)", (_MOST_KEPT,)
    )


def _corrected(image: ClockImage, time_ms: int) -> int:
    for correction in image.corrections:
        if (moved := correction.of(time_ms)) != time_ms:
            return moved
    return time_ms


def _mend_queued(connection: sqlite3.Connection, correction: Correction) -> None:
    """A time says nothing of whose boot it was: at worst a request of an earlier one gets a late time."""
    for table, column, where in (
        ("export", "made_at_ms", f"id NOT IN ({_IN_BATCH} ('session', 'deletion'))"),
        ("outbox", "made_at_ms", "batch IS NULL"),
        ("producer", "heard_at_ms", "1"),
    ):
        connection.execute(
            f"UPDATE {table} SET {column} = {column} + ? WHERE {column} BETWEEN ? AND ? AND {where}",
            (correction.by_ms, correction.from_ms, correction.until_ms),
        )


def _mend_minutes(connection: sqlite3.Connection, image: ClockImage) -> None:
    for correction in image.corrections:
        found = connection.execute(
            "SELECT m.id, m.body FROM minute m JOIN session s USING (session_id) WHERE s.boot_id = ?1"
            " AND (m.started_at_ms BETWEEN ?2 AND ?3 OR m.ended_at_ms BETWEEN ?2 AND ?3)"
            f" AND m.id NOT IN ({_IN_BATCH} ('minute'))",
            (image.boot_id, correction.from_ms, correction.until_ms),
        )
        for number, body in found.fetchall():
            minutes.move(connection, number, body, lambda time_ms: _corrected(image, time_ms))


def _mend_samples(connection: sqlite3.Connection, image: ClockImage) -> None:
    for correction in image.corrections:
        found = connection.execute(
            f"SELECT id, body FROM sample WHERE at_ms BETWEEN ? AND ? AND id NOT IN ({_IN_BATCH} ('sample'))",
            (correction.from_ms, correction.until_ms),
        )
        for number, body in found.fetchall():
            minutes.move_sample(connection, number, body, image.boot_id, correction.by_ms)


def _mend_sessions(connection: sqlite3.Connection, image: ClockImage, changes: Changes) -> None:
    """Those that are not in memory; of the others the changes hold all."""
    exporting = any("session" in TAKES[sink] for sink in changes.sinks)
    in_memory = {head.session_id for head in changes.heads}
    found = connection.execute("SELECT session_id FROM session WHERE boot_id = ? ORDER BY id", (image.boot_id,))
    for (session_id,) in found.fetchall():
        stored = None if session_id in in_memory else rows.get_session(connection, session_id)
        if stored is None:
            continue
        session = Session.restored(stored.head, SessionLimits(), stored.models, stored.errors)
        if not session.mend(lambda time_ms: _corrected(image, time_ms)):
            continue
        more = Changes(sinks=changes.sinks)
        if session.take_revision() and exporting and image.now_ms is not None:
            more.exports.append(export_item(session, image.ledger, image.now_ms))
        session.take_changes(more)
        rows.put(connection, more)
