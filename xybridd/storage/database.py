"""Opening the database file, whatever state it is in, and the one thread that touches it.

A file that SQLite finds damaged is moved aside whole, with its ``-wal`` and ``-shm``; what can be read of it is
copied into a new one, and the table ``salvage`` says what happened. Damage is looked for after an unclean end, which
shows by a ``-wal`` that was left: a clean close removes it.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from contextlib import closing, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from xybridd.core.ledger import COUNTED, RECEIVED
from xybridd.errors import CorruptDatabase, StartError, StorageError
from xybridd.storage import rows

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

T = TypeVar("T")

TABLES = ("session", "model", "error", "producer", "ledger", "salvage")

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def migrations() -> list[tuple[int, str]]:
    """Number and SQL of each migration, in order; the number is the prefix of its file's name."""
    folder = resources.files("xybridd.storage") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.split("_")[0]), (folder / name).read_text("utf-8")) for name in files]


def is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _DAMAGE


def wrapped(error: BaseException) -> BaseException:
    """SQLite's errors as ours, the others as they are."""
    if not isinstance(error, sqlite3.Error):
        return error
    ours = CorruptDatabase(str(error)) if is_damage(error) else StorageError(str(error))
    ours.__cause__ = error
    return ours


def prepare_folder(folder: Path) -> None:
    """Make the data folder, or tighten it again: 0700, every file in it 0600."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for path in folder.iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)
    except OSError as error:
        raise StartError(
            f"cannot use the data folder {folder}: {error.strerror or error}; choose another with XYBRIDD_DATA_DIR"
        ) from error


def open_database(path: Path, now_ms: int) -> sqlite3.Connection:
    """Open, check, migrate; salvage when damaged.

    Raises StartError when the file was written by a newer version (it is left untouched) or cannot be opened at all.
    """
    unclean = _has_bytes(_beside(path, "-wal"))
    try:
        try:
            return _open_sound(path, check=unclean)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            log.error("the database %s is damaged: %s", path, error)  # noqa: TRY400
            return salvage(path, str(error), now_ms)
    except sqlite3.Error as error:
        raise StartError(f"cannot open the database {path}: {error}") from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _open_sound(path: Path, *, check: bool) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        if check:
            quick_check(connection)
        migrate(connection, path)
        for table in TABLES:
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()  # noqa: S608
    except BaseException:
        connection.close()
        raise
    return connection


def quick_check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, one transaction a migration, forward only."""
    steps = migrations()
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    newest = steps[-1][0]
    if version > newest:
        raise StartError(
            f"the database {path} was written by a newer xybridd (its format is {version}, this one knows {newest}); "
            f"it was left untouched: install that version again, or give this one another XYBRIDD_DATA_DIR"
        )
    for number, sql in steps:
        if number > version:
            try:
                connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


# Salvage


def salvage(path: Path, reason: str, now_ms: int, *, balanced: bool = True) -> sqlite3.Connection:
    """Move the damaged file aside and copy what can be read of it into a new one.

    ``balanced``: also make the ledger agree; not when somebody holds newer sessions, and a newer ledger, in memory.
    """
    aside = _beside(path, f".damaged-{now_ms}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(aside, suffix))
    connection = _open_sound(path, check=False)
    saved, damaged = 0, []
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        count, whole = _copy_rows(aside, connection, table)
        saved += count
        if not whole:
            damaged.append(table)
    if balanced:
        balance(connection)
    connection.execute(
        "INSERT INTO salvage (at_ms, set_aside, reason, rows_saved, tables_damaged) VALUES (?, ?, ?, ?, ?)",
        (now_ms, aside.name, reason, saved, " ".join(damaged)),
    )
    connection.execute("COMMIT")
    log.warning("salvaged %d rows into a new database; the damaged file is kept as %s", saved, aside)
    return connection


def balance(connection: sqlite3.Connection) -> None:
    """Make the ledger agree with what was saved: what it counted and is nowhere now was removed by the damage."""
    for table in ("model", "error"):
        connection.execute(f"DELETE FROM {table} WHERE session_id NOT IN (SELECT session_id FROM session)")  # noqa: S608
    missing = rows.unaccounted(connection)
    if missing > 0:
        grown = ["removed.damage"]
    else:
        # The ledger itself lost rows: what is in the sessions was received and counted.
        grown, missing = [COUNTED, RECEIVED], -missing
    for name in grown if missing else []:
        connection.execute(
            "INSERT INTO ledger (name, amount) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET amount = amount + excluded.amount",
            (name, missing),
        )


def _copy_rows(damaged: Path, into: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy the rows of a table that can be read, from both ends towards the damage: how many, and whether all."""
    columns = [row[1] for row in into.execute(f"PRAGMA table_info({table})")]
    names = ", ".join(columns)
    put = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    saved, whole = 0, True
    try:
        with closing(sqlite3.connect(f"{damaged.as_uri()}?mode=ro", uri=True, isolation_level=None)) as source:
            # A file shorter than its header says is refused whole, unless the schema is declared writable.
            source.execute("PRAGMA writable_schema = ON")
            source.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for order in ("ASC", "DESC"):
                complete = True
                for row in _readable(source, f"SELECT {names} FROM {table} NOT INDEXED ORDER BY id {order}"):  # noqa: S608
                    if row is None:
                        complete = False
                        break
                    with suppress(sqlite3.Error, OverflowError):
                        saved += into.execute(put, row).rowcount
                if complete:
                    break
                whole = False
    except sqlite3.Error:
        whole = False
    return saved, whole


def _readable(source: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...] | None]:
    """Rows until the damage; None for the damage itself."""
    try:
        yield from source.execute(sql)
    except sqlite3.Error:
        yield None


# The thread


class DatabaseThread:
    """Runs functions on the connection, one after the other, on a thread of its own.

    A daemon thread: a disk that hangs must not keep the process from ending.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="xybridd-database", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self, job: Callable[[], T]) -> Future[T]:
        """The job's result; SQLite's errors come as StorageError."""
        answer: Future[T] = self._loop.create_future()
        self._jobs.put((job, answer))
        return answer

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, answer = item
            result: Any
            error: BaseException | None
            try:
                result, error = job(), None
            except BaseException as caught:  # noqa: BLE001 - it is handed to whoever waits
                result, error = None, wrapped(caught)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_answer, answer, result, error)


def _answer(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
