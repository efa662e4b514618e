"""A store in a folder, changes to write, and files in the state that a crash or a bad disk leaves."""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING

from tests.core.given import NOW_MS, call, error, session
from xybridd.core.changes import Changes
from xybridd.core.ledger import COUNTED, RECEIVED
from xybridd.storage import rows
from xybridd.storage.database import migrations
from xybridd.storage.opening import open_database
from xybridd.storage.store import DATABASE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from xybridd.core.changes import SessionHead

#: Records in each session of `filled`: nine inferences of three models, and one error.
RECORDS_EACH = 10


@asynccontextmanager
async def opened(folder: Path, now_ms: int = NOW_MS) -> AsyncIterator[Store]:
    store = Store(folder, asyncio.get_running_loop())
    store.lock()
    try:
        await store.open(now_ms)
        yield store
    finally:
        await store.close()


def connection_of(store: Store) -> sqlite3.Connection:
    assert store._connection is not None
    return store._connection


def changes_of(number: int, *, ended_at_ms: int | None = None, message: str = "boom") -> Changes:
    """A session with `RECORDS_EACH` records, as a commit would write it."""
    changes = Changes()
    made = session(session_id=f"s{number}", started_at_ms=NOW_MS + number, labels={"number": str(number)})
    made.apply([*[call(model) for model in "abc" for _ in range(3)], error(message, "a", "1")], NOW_MS)
    if ended_at_ms is not None:
        made.end("ended", ended_at_ms)
    made.take_changes(changes)
    return changes


def fill(path: Path, sessions: int) -> None:
    """A database with this many sessions, every third still open, whose ledger balances."""
    with closing(open_database(path, NOW_MS)) as connection:
        connection.execute("BEGIN")
        for number in range(sessions):
            rows.put(connection, changes_of(number, ended_at_ms=None if number % 3 == 0 else NOW_MS + 10**6 + number))
        total = sessions * RECORDS_EACH
        rows.put(connection, Changes(ledger={COUNTED: total, RECEIVED: total + 3, "duplicates": 3}))
        connection.execute("COMMIT")


def leave_unclean(path: Path, into: Path) -> None:
    """Copy a database as a killed daemon leaves it: with a write-ahead log that holds one small commit."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        # A value that stays as it is would not be written at all. These two keep the ledger in balance.
        connection.execute("UPDATE ledger SET amount = amount + 1 WHERE name IN ('received', 'duplicates')")
        assert path.with_name(path.name + "-wal").stat().st_size > 0
        for suffix in ("", "-wal"):
            shutil.copy(path.with_name(path.name + suffix), into / (DATABASE_NAME + suffix))


def ledger_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Records that were counted, and those in sessions with those removed: the two are equal."""
    ledger = rows.get_ledger(connection)
    removed = sum(amount for name, amount in ledger.items() if name.startswith("removed."))
    return ledger.get(COUNTED, 0), rows.records_in_sessions(connection) + removed


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    found = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
    # ALTER TABLE puts its commas where a person would not: space around them says nothing.
    return [tuple(re.sub(r"\s*([(),])\s*", r"\1", " ".join(text.split())) for text in row) for row in found]


def heads(store_sessions: list[rows.StoredSession]) -> list[SessionHead]:
    return [stored.head for stored in store_sessions]


def newest_version() -> int:
    return migrations()[-1][0]


@contextmanager
def no_growing_files(limit_bytes: int) -> Iterator[None]:
    """What a full disk does to every write past this place in a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
