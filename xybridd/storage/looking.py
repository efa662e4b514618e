"""Is a database that no daemon has open sound? Answered without touching it.

Opening a file with a write-ahead log writes beside it, even to read: where there is one, a copy is looked at.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec

from xybridd.errors import StartError
from xybridd.storage.database import count_rows, quick_check, refuse_newer
from xybridd.storage.opening import beside, has_bytes
from xybridd.storage.store import DATABASE_NAME, LOCK_NAME

__all__ = ["DATABASE_NAME", "LOCK_NAME", "Look", "look"]


class Look(msgspec.Struct, frozen=True):
    """``unclean``: its daemon did not close it; the log of that time is still beside it."""

    complaint: str | None
    unclean: bool = False
    used_bytes: int | None = None
    salvages: list[dict[str, object]] = []
    #: Rows of each table: how much there is, nothing of what it says.
    rows: dict[str, int] = {}


def look(path: Path) -> Look:
    """Raises OSError where it cannot be read or copied."""
    if not has_bytes(beside(path, "-wal")):
        path.open("rb").close()
        return _look(path, "mode=ro&immutable=1", unclean=False)
    with tempfile.TemporaryDirectory(prefix="xybridd-look-") as folder:
        copy = Path(folder) / path.name
        for part in ("", "-wal"):
            shutil.copyfile(beside(path, part), beside(copy, part))
        return _look(copy, "mode=rw", unclean=True)


def _look(path: Path, how: str, *, unclean: bool) -> Look:
    try:
        refuse_newer(path)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as connection:
            quick_check(connection)
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            return Look(None, unclean, (pages - free) * size, _salvages(connection), count_rows(connection))
    except (sqlite3.Error, StartError) as error:
        return Look(str(error), unclean)


def _salvages(connection: sqlite3.Connection) -> list[dict[str, object]]:
    names = ("at_ms", "set_aside", "reason", "rows_saved")
    found = connection.execute(f"SELECT {', '.join(names)} FROM salvage ORDER BY id")
    return [dict(zip(names, row, strict=True)) for row in found]
