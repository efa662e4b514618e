"""The face of storage: awaitable methods, each one transaction on the database thread.

A method that raises StorageError changed nothing. `write` takes values that say how rows are to be, not what to add
to them, so writing the same changes again is safe.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from xybridd.errors import CorruptDatabase, StorageError
from xybridd.storage import mending, minutes, outbox, retention, rows
from xybridd.storage.database import (
    backups,
    count_rows,
    is_damage,
    overwrite_deleted,
    quick_check,
    suspect,
    wrapped,
)
from xybridd.storage.lock import FileLock
from xybridd.storage.opening import open_database, prepare_folder, salvage
from xybridd.worker import Worker

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xybridd.core.changes import Changes, ProducerImage
    from xybridd.core.minute import Minute, MinuteFilter, Sample
    from xybridd.core.timeline import Timeline
    from xybridd.storage.minutes import MinutePage

T = TypeVar("T")

DATABASE_NAME = "xybridd.db"
LOCK_NAME = "lock"


class StorageUse(msgspec.Struct, frozen=True):
    """What the database takes. ``used_bytes`` leaves out pages that are free to be used again."""

    size_bytes: int
    used_bytes: int
    sessions: int
    salvages: list[dict[str, Any]]


class Store:
    """Open it, use it, close it, once."""

    def __init__(self, folder: Path, loop: AbstractEventLoop) -> None:
        self.path = folder / DATABASE_NAME
        self._folder = folder
        self._thread = Worker(loop, "xybridd-database", wrapped)
        self._lock = FileLock(folder / LOCK_NAME, f"the data folder {folder}")
        self._connection: sqlite3.Connection | None = None
        #: Of the database, after the last commit: what it takes on the disk.
        self.size_bytes = 0
        #: What a read found damaged; the next write says so, and whoever writes has the file salvaged.
        self._damage: str | None = None

    @property
    def damaged(self) -> bool:
        """Whether a read found damage that was not mended yet."""
        return self._damage is not None

    def lock(self) -> None:
        """Make the folder and take its lock; raises StartError when another daemon has it."""
        prepare_folder(self._folder)
        self._lock.acquire()

    async def open(self, now_ms: int) -> None:
        """Raises StartError; salvages a damaged file."""
        self._thread.start()

        def job() -> None:
            self._connection = open_database(self.path, now_ms)
            try:
                outbox.release(self._connection)
            except sqlite3.DatabaseError as error:  # after a clean end damage shows only where somebody reads
                if not is_damage(error):
                    raise
                self._salvage(str(error), now_ms, balanced=True)

        await self._thread.run(job)

    async def salvage(self, reason: str, now_ms: int, *, balanced: bool) -> None:
        """The file turned out to be damaged while in use: set it aside and go on with a new one.

        ``balanced``: nobody holds anything newer in memory, so the ledger is made to agree at once.
        """
        await self._thread.run(lambda: self._salvage(reason, now_ms, balanced=balanced))

    def _salvage(self, reason: str, now_ms: int, *, balanced: bool) -> None:
        suspect(self.path)
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._connection = None
        self._connection = salvage(self.path, reason, now_ms, balanced=balanced)
        self._damage = None

    async def account(self) -> int:
        """After damage: let go of what belongs to no session; how many counted records are nowhere now."""

        def job() -> int:
            connection = self._open_connection()
            rows.delete_orphans(connection)
            return rows.unaccounted(connection)

        return await self._thread.run(job)

    async def close(self) -> None:
        """Moves the write-ahead log into the file: what a clean end looks like."""

        def job() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                for copy in backups(self.path):  # this version has run and ended as it should
                    with suppress(OSError):
                        copy.unlink(missing_ok=True)

        await self._thread.run(job)
        self._thread.stop()
        self._lock.release()

    async def write(self, changes: Changes) -> None:
        """One transaction, on disk when this returns. Raises CorruptDatabase also when a read found damage before."""

        def job() -> None:
            with self._transaction(scrub=bool(changes.forgotten_sessions)) as connection:
                mending.mend(connection, changes)
                rows.put(connection, changes)
            if changes.deleted_sessions or changes.forgotten_sessions:
                self._give_back()
            self.size_bytes = _size_bytes(self._open_connection())

        await self._thread.run(job)

    async def ping(self) -> None:
        """Returns when the database thread has come to it: it lives."""
        await self._thread.run(lambda: None)

    async def check(self) -> dict[str, int]:
        """Look at all of it, and count the rows. Raises CorruptDatabase; the next write then salvages it."""

        def job(connection: sqlite3.Connection) -> dict[str, int]:
            quick_check(connection)
            return count_rows(connection)

        return await self._read(job)

    async def transact(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Anything else in one transaction of its own, on disk when this returns."""

        def work() -> T:
            with self._transaction() as connection:
                return job(connection)

        return await self._thread.run(work)

    async def query(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Anything else that only reads."""
        return await self._read(job)

    async def forget_rest(self) -> None:
        """What is kept beside sessions and is nobody's: samples, exports of other devices, damaged files set aside."""

        def job() -> None:
            with self._transaction(scrub=True) as connection:
                unsent = connection.execute("SELECT id FROM outbox WHERE kind != 'deletion'").fetchall()
                outbox.remove(connection, [row[0] for row in unsent], "forget")
                connection.execute("DELETE FROM sample")
            for aside in (*self._folder.glob(f"{DATABASE_NAME}.damaged-*"), *backups(self.path)):
                aside.unlink(missing_ok=True)

        await self._thread.run(job)

    async def scrub(self) -> None:
        """Nothing of what was deleted is left in the file or its log: free pages are cut off, the log is emptied."""

        def job() -> None:
            connection = self._open_connection()
            connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

        with suppress(StorageError):
            await self._thread.run(job)

    async def coarsen(self, before_ms: int, gone_ms: int) -> None:
        """Minutes that ended before `before_ms` become hours, samples likewise; those before `gone_ms` go."""

        def job() -> int:
            with self._transaction() as connection:
                retention.tidy(connection, gone_ms)
                fewer = minutes.coarsen(connection, before_ms)
                return fewer + minutes.thin_samples(connection, before_ms, gone_ms)

        if await self._thread.run(job):
            await self._thread.run(self._give_back)

    @contextmanager
    def _transaction(self, *, scrub: bool = False) -> Iterator[sqlite3.Connection]:
        """On the database thread: all of it, on disk when it ends, or nothing. ``scrub``: overwrite what is deleted."""
        if self._damage is not None:
            raise CorruptDatabase(self._damage)
        connection = self._open_connection()
        if scrub:
            overwrite_deleted(connection, also_free_pages=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            if scrub:
                overwrite_deleted(connection, also_free_pages=False)

    def _give_back(self) -> None:
        """Free pages become space on the disk; what was to be written is, so that this may fail."""
        with suppress(sqlite3.Error):
            self._open_connection().executescript("PRAGMA incremental_vacuum")

    async def open_sessions(self) -> list[rows.StoredSession]:
        return await self._read(rows.get_open_sessions)

    async def session(self, session_id: str) -> rows.StoredSession | None:
        return await self._read(lambda connection: rows.get_session(connection, session_id))

    async def session_ids(self) -> list[str]:
        return await self._read(rows.session_ids)

    async def last_implicit(self, uid: int, app: str) -> str | None:
        return await self._read(lambda connection: rows.get_last_implicit(connection, uid, app))

    async def producer(self, uid: int, client_id: str) -> ProducerImage | None:
        return await self._read(lambda connection: rows.get_producer(connection, uid, client_id))

    async def minutes(self, session_id: str) -> list[Minute]:
        """A session's, in the order in which they were closed."""
        return await self._read(lambda connection: minutes.of_session(connection, session_id))

    async def minute_page(self, wanted: MinuteFilter) -> MinutePage:
        """Of everybody's sessions, or of some, in the order in which they began."""
        return await self._read(lambda connection: minutes.page(connection, wanted))

    async def samples(self, since_ms: int, limit: int) -> list[Sample]:
        """The latest, oldest first."""
        return await self._read(lambda connection: minutes.samples(connection, since_ms, limit))

    async def timeline(self, boot_id: str) -> tuple[Timeline, bool]:
        """What the wall clock did in this boot; and whether an earlier one still waits for a clock that is right."""
        return await self._read(lambda connection: mending.timeline_of(connection, boot_id))

    async def ledger(self) -> dict[str, int]:
        return await self._read(rows.get_ledger)

    async def list_sessions(self, wanted: rows.SessionFilter) -> list[rows.SessionSummary]:
        return await self._read(lambda connection: rows.list_sessions(connection, wanted))

    async def expired(self, before_ms: int, limit: int = 500) -> dict[str, int]:
        """Sessions that ended before `before_ms` and were sent, oldest first: how many records are in each."""
        return await self._read(lambda connection: retention.expired(connection, before_ms, limit))

    async def forget_producers(self, connected: list[str], quota_bytes: int, limit: int = 10_000) -> int:
        """Of each user those past its share, at most `limit` at once; how many went. Those ``connected`` stay."""

        def job() -> int:
            with self._transaction() as connection:
                return retention.forget_producers(connection, connected, quota_bytes, limit)

        return await self._thread.run(job)

    async def used_bytes(self) -> int:
        return await self._read(_used_bytes)

    async def to_evict(self, size_bytes: int, limit: int = 500) -> retention.LettingGo:
        """What to let go of so that about so much is free, at most so many at once."""
        return await self._read(lambda connection: retention.to_evict(connection, size_bytes, limit))

    async def evict(self, chosen: retention.LettingGo) -> None:
        """All of it but the sessions."""
        await self.transact(lambda connection: retention.evict(connection, chosen))
        await self._thread.run(self._give_back)

    async def use(self) -> StorageUse:
        def job(connection: sqlite3.Connection) -> StorageUse:
            salvages = connection.execute(
                "SELECT at_ms, set_aside, reason, rows_saved, tables_damaged FROM salvage ORDER BY id"
            )
            names = ("at_ms", "set_aside", "reason", "rows_saved", "tables_damaged")
            return StorageUse(
                size_bytes=_size_bytes(connection),
                used_bytes=_used_bytes(connection),
                sessions=connection.execute("SELECT count(*) FROM session").fetchone()[0],
                salvages=[dict(zip(names, row, strict=True)) for row in salvages],
            )

        return await self._read(job)

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.run(lambda: query(self._open_connection()))
        except CorruptDatabase as error:
            self._damage = str(error)
            raise

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StorageError("the database is not open")
        return self._connection


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _size_bytes(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "page_count") * _pragma(connection, "page_size")


def _used_bytes(connection: sqlite3.Connection) -> int:
    return _size_bytes(connection) - _pragma(connection, "freelist_count") * _pragma(connection, "page_size")
