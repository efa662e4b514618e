"""What can still be read of a damaged file.

The rows of a table are read from both ends towards the damage. Where the file's own header or schema are what is
damaged, which is a few pages without which SQLite reads nothing at all, they are read once more from a copy whose first
page is ours: it declares that one table, with its root where every database of ours has it. (Pages move in a database
with ``auto_vacuum``, roots do not: they come first, in the order in which the migrations made the tables.)
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from xybridd.storage.database import migrate, shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

#: How the name of such a copy ends; one that a crash left behind may be deleted.
SCRATCH = ".reading"


class Remains:
    """Of one damaged file; as a context manager, since it may make a copy beside it."""

    def __init__(self, damaged: Path) -> None:
        self._damaged = damaged
        self._spare = damaged.with_name(damaged.name + SCRATCH)
        self._made = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._spare.unlink(missing_ok=True)

    def copy_rows(self, into: sqlite3.Connection, table: str) -> tuple[int, bool]:
        """Copy the rows of a table that can be read: how many, and whether all."""
        saved, whole = _copy(self._damaged, into, table)
        if not whole:
            try:
                self._make_spare()
                _declare(self._spare, table)
                saved += _copy(self._spare, into, table)[0]
            except (OSError, sqlite3.Error, AttributeError) as error:  # an SQLite without `serialize`
                log.warning("the table %s cannot be read without the file's own schema: %s", table, error)
        return saved, whole

    def _make_spare(self) -> None:
        if not self._made:
            os.close(os.open(self._spare, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            shutil.copyfile(self._damaged, self._spare)
            self._made = True


def _copy(damaged: Path, into: sqlite3.Connection, table: str) -> tuple[int, bool]:
    columns = [row[1] for row in into.execute(f"PRAGMA table_info({table})")]
    saved, whole = 0, True
    try:
        with closing(sqlite3.connect(f"{damaged.as_uri()}?mode=ro", uri=True, isolation_level=None)) as source:
            # A file shorter than its header says is refused whole, unless the schema is declared writable.
            source.execute("PRAGMA writable_schema = ON")
            source.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for order in ("ASC", "DESC"):
                complete = True
                # By place, not by name: a flipped bit may have renamed a column, and an older version has fewer.
                for row in _readable(source, f"SELECT * FROM {table} NOT INDEXED ORDER BY rowid {order}"):
                    if row is None:
                        complete = False
                        break
                    names = columns[: len(row)]
                    put = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
                    with suppress(sqlite3.Error, OverflowError):
                        saved += into.execute(put, row[: len(names)]).rowcount
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


def _declare(path: Path, table: str) -> None:
    """Give a file a first page that knows of this table and nothing else."""
    root, columns, last_root = _places()[table]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as donor:
        shape(donor)
        donor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {', '.join(f'c{n}' for n in range(1, columns))})")
        donor.execute("PRAGMA writable_schema = ON")
        donor.execute("UPDATE sqlite_master SET rootpage = ?", (root,))
        size = int(donor.execute("PRAGMA page_size").fetchone()[0])
        page = bytearray(donor.serialize()[:size])
    with path.open("r+b") as file:
        # The places of these numbers are those of https://www.sqlite.org/fileformat.html, 1.3.
        page[28:32] = (path.stat().st_size // size).to_bytes(4, "big")
        page[32:40] = bytes(8)  # no free pages
        page[52:56] = last_root.to_bytes(4, "big")
        file.write(page)


@cache
def _places() -> dict[str, tuple[int, int, int]]:
    """Of each table: its root, how many columns it has, and the last root of all."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        shape(connection)
        migrate(connection)
        last = connection.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()[0]
        tables = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: (root, len(connection.execute(f"PRAGMA table_info({name})").fetchall()), last)
            for name, root in tables
        }
