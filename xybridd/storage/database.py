"""A connection to the database as the daemon uses it, its schema, and what its errors mean."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from xybridd.errors import CorruptDatabase, StartError, StorageError

log = logging.getLogger(__name__)

TABLES = (
    "session",
    "model",
    "error",
    "producer",
    "ledger",
    "minute",
    "sample",
    "export",
    "outbox",
    "tally",
    "sink",
    "clock",
    "salvage",
)

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def migrations() -> list[tuple[int, str]]:
    """Number and SQL of each migration, in order; the number is the prefix of its file's name."""
    files = sorted(Path(__file__).with_name("migrations").glob("*.sql"))
    return [(int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files]


def is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _DAMAGE


def wrapped(error: BaseException) -> BaseException:
    """SQLite's errors as ours, and the system's: a disk that fails may do so before SQLite comes to it."""
    if isinstance(error, OSError):
        refused = StorageError(str(error))
        refused.__cause__ = error
        return refused
    if not isinstance(error, sqlite3.Error):
        return error
    ours = CorruptDatabase(str(error)) if is_damage(error) else StorageError(str(error))
    ours.__cause__ = error
    return ours


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the file, 0600, never through a link. Raises sqlite3.Error, StartError."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise StartError(f"cannot open the database {path}: {error.strerror or error}") from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    # A flipped bit must not make a whole row unreadable.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        shape(connection)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        overwrite_deleted(connection, also_free_pages=False)
    except BaseException:
        connection.close()
        raise
    return connection


def shape(connection: sqlite3.Connection) -> None:
    """How a new file is laid out; one that has something in it stays as it is."""
    # A commit rewrites a few short rows in as many pages, and each page whole: small pages, a quarter of the wear.
    connection.execute("PRAGMA page_size = 1024")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def overwrite_deleted(connection: sqlite3.Connection, *, also_free_pages: bool) -> None:
    """Zero what is deleted in pages that are written anyway; ``also_free_pages``: in those that become free as well."""
    connection.execute(f"PRAGMA secure_delete = {'ON' if also_free_pages else 'FAST'}")


def open_sound(path: Path, *, check: bool) -> sqlite3.Connection:
    """Open and migrate; raises sqlite3.Error when the file is damaged. ``check``: look at all of it."""
    refuse_newer(path)
    _check_header(path)
    connection = connect(path)
    try:
        if check:
            quick_check(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if _columns(connection) != _schema(min(version, migrations()[-1][0])) or version > migrations()[-1][0]:
            raise _damage(f"the tables are not those of the format that it says it has ({version})")
        _keep_older(connection, path)
        migrate(connection)
        for table in TABLES:
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
    except BaseException as error:
        if isinstance(error, sqlite3.Error) and is_damage(error):
            suspect(path)
        connection.close()
        raise
    return connection


def suspicion(path: Path) -> Path:
    """A file that says that the database was found damaged, and not made good yet."""
    return path.with_name(f"{path.name}.suspect")


def suspect(path: Path) -> None:
    """Before the last connection is closed: that takes away the ``-wal`` by which an unclean end shows."""
    with suppress(OSError):
        suspicion(path).touch(mode=0o600)


def quick_check(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damage(found)


def _tables(connection: sqlite3.Connection) -> set[str]:
    """Those that somebody made, ours or not."""
    names = (row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"))
    return {name for name in names if not name.startswith("sqlite_")}


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """How much there is in each table that is there."""
    there = _tables(connection)
    counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in TABLES if name in there}
    return {name: row[0] for name, row in counts.items()}


#: Bytes of the header that are the same in every database of ours, by place: the magic, how it is written and read,
#: no reserved space, three fractions, the schema's format, UTF-8. https://www.sqlite.org/fileformat.html, 1.3.
_CONSTANT = {
    0: (b"SQLite format 3\0",),
    18: (b"\1\1", b"\2\2"),
    20: (b"\0\x40\x20\x20",),
    44: (b"\0\0\0\0", b"\0\0\0\4"),
    56: (b"\0\0\0\0", b"\0\0\0\1"),
}


def _check_header(path: Path) -> None:
    """Some of its damage SQLite takes for a file that it may not write, or that somebody else has to read."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return  # there is none, or it cannot be read: opening it says so
    for place, values in _CONSTANT.items() if header else ():
        if header[place : place + len(values[0])] not in values:
            raise _damage(f"the header has something at {place} that no database of ours has there")


def _damage(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


@cache
def _schema(version: int) -> dict[str, list[str]]:
    """The columns of each table, as the migrations up to this one make them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, version)
        return _columns(connection)


#: So far ahead of ours a format may be that of a newer version which changed no column.
_VERSIONS_TO_COME = 60


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    found = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in TABLES}
    return {table: columns for table, columns in found.items() if columns}


def _flipped(version: int, newest: int) -> bool:
    """Whether the number of a format is ours with one bit turned, and not that of a version to come."""
    return (version ^ newest).bit_count() == 1 and version - newest > _VERSIONS_TO_COME


def refuse_newer(path: Path) -> None:
    """Raises StartError when a newer version wrote the file, having only read it: it is left as it is."""
    # Without a write-ahead log there is nothing to be read but the file, and no file is to be made beside it.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as connection:
            version, newest = connection.execute("PRAGMA user_version").fetchone()[0], migrations()[-1][0]
            ours = _schema(newest)
            same = _tables(connection) == set(ours) and _columns(connection) == ours
            newer = version > newest and not (same and _flipped(version, newest))
    except sqlite3.Error:
        return  # there is none, or it is damaged: that shows when it is opened to be used
    if newer:
        raise StartError(
            f"the database {path} was written by a newer xybridd (its format is {version}, this one knows {newest}); "
            f"it was left untouched: install that version again, or give this one another XYBRIDD_DATA_DIR"
        )


def backups(path: Path) -> list[Path]:
    """Copies of the database as it was before a migration."""
    return sorted(path.parent.glob(f"{path.name}.version-*[0-9]"))


def _keep_older(connection: sqlite3.Connection, path: Path) -> None:
    """A copy of what is about to be migrated, to go back to; a full disk does not keep us from starting without."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 < version < migrations()[-1][0]:
        return
    copy = path.with_name(f"{path.name}.version-{version}")
    draft = copy.with_name(f"{copy.name}.new")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with closing(sqlite3.connect(draft)) as into:
            connection.backup(into)
        draft.replace(copy)
        log.info("the database is of an older version (%d) and is migrated; a copy is kept as %s", version, copy)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        log.warning("no copy of the older database could be kept: %s", error)


def migrate(connection: sqlite3.Connection, last: int | None = None) -> None:
    """Bring the schema up to date, or to the migration ``last``: one transaction each, forward only."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, sql in migrations():
        if number > version and (last is None or number <= last):
            try:
                connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
