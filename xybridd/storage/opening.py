"""Opening the database whatever state it is in: sound, damaged, or in the midst of being salvaged.

A file that SQLite finds damaged is read into a new one beside it (``.new``); only when that is complete and on disk is
the damaged one moved aside, whole, with its ``-wal`` and ``-shm``, and the new one put in its place. Whatever moment
that is cut off at, the next start goes on from there. The table ``salvage`` says what happened.

Damage is looked for after an unclean end, which shows by a ``-wal`` that was left: a clean close removes it. So does
the closing of a file that was found damaged; that it was is remembered beside it (``.suspect``) until it is made good.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from xybridd.core.ledger import COUNTED, RECEIVED
from xybridd.errors import StartError
from xybridd.storage import log_check, outbox, rows
from xybridd.storage.database import TABLES, is_damage, open_sound, suspicion
from xybridd.storage.remains import SCRATCH, Remains

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_PARTS = ("", "-wal", "-shm")


def prepare_folder(folder: Path) -> None:
    """Make the data folder, or tighten it again: 0700, every file in it 0600. Raises StartError, also when planted."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(folder)
        # By descriptor: what was looked at is what is changed.
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if (owner := os.fstat(opened).st_uid) != os.geteuid():
                raise _planted(folder, f"belongs to another user (uid {owner})")
            os.fchmod(opened, 0o700)
        finally:
            os.close(opened)
        for path in folder.iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)
    except OSError as error:
        raise StartError(
            f"cannot use the data folder {folder}: {error.strerror or error}; choose another with XYBRIDD_DATA_DIR"
        ) from error


def _check_ours(folder: Path) -> None:
    """A link is its maker's word for where the data goes; in a folder for all, anybody may put one in our place."""
    link, above = folder.lstat(), folder.parent.stat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in {0, os.geteuid()}:
        raise _planted(folder, f"is a link that another user made (uid {link.st_uid})")
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise _planted(folder, f"can be replaced by anybody; run: chmod o-w {folder.parent}")


def _planted(folder: Path, why: str) -> StartError:
    return StartError(f"the data folder {folder} {why}; nothing was kept there: choose another with XYBRIDD_DATA_DIR")


def open_database(path: Path, now_ms: int) -> sqlite3.Connection:
    """Open, check, migrate; salvage when damaged.

    Raises StartError when the file was written by a newer version (it is left untouched) or cannot be opened at all.
    """
    try:
        _finish_salvage(path)
        logged = has_bytes(beside(path, "-wal"))
        if logged and not has_bytes(path):
            # No crash leaves this: a file is on disk before its log. SQLite would delete the log and begin anew.
            return salvage(path, "its log is there, and nothing else of it", now_ms)
        unclean = logged or suspicion(path).exists()
        try:
            commits = log_check.commits_in(beside(path, "-wal")) if logged else []
            connection = open_sound(path, check=unclean)
            if unclean:
                _see_damaged_log(connection, path, now_ms, commits)
                _see_silent_damage(connection, path, now_ms)
            _trust(path)
            return connection
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return salvage(path, str(error), now_ms)
    except (sqlite3.Error, OSError) as error:
        raise StartError(f"cannot open the database {path}: {error}") from error


def _trust(path: Path) -> None:
    with suppress(OSError):
        suspicion(path).unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


# Salvage


def salvage(path: Path, reason: str, now_ms: int, *, balanced: bool = True) -> sqlite3.Connection:
    """Read what can be read of the damaged file into a new one, which takes its place. Raises sqlite3.Error.

    ``balanced``: also make the ledger agree; not when somebody holds newer sessions, and a newer ledger, in memory.
    """
    log.error("the database %s is damaged: %s", path, reason)
    fresh, aside = beside(path, ".new"), _unused(beside(path, f".damaged-{now_ms}"))
    _remove(fresh)
    with closing(open_sound(fresh, check=False)) as connection, Remains(path) as remains:
        saved, damaged = 0, []
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            count, whole = remains.copy_rows(connection, table) if has_bytes(path) else (0, False)
            saved += count
            if not whole:
                damaged.append(table)
        if balanced:
            balance(connection)
        outbox.balance(connection)
        connection.execute(
            "INSERT INTO salvage (at_ms, set_aside, reason, rows_saved, tables_damaged) VALUES (?, ?, ?, ?, ?)",
            (now_ms, aside.name, reason, saved, " ".join(damaged)),
        )
        connection.execute("COMMIT")
    _put_in_place(path, fresh, aside)
    _trust(path)
    log.warning("salvaged %d rows into a new database; the damaged file is kept as %s", saved, aside)
    return open_sound(path, check=False)


def _put_in_place(path: Path, fresh: Path, aside: Path) -> None:
    """The database itself goes first: as long as it is there, a salvage that was cut off is begun anew."""
    for part in _PARTS:
        with suppress(FileNotFoundError):
            beside(path, part).rename(beside(aside, part))
    # An old log that came back after a power loss would be taken for the new file's.
    _sync_folder(path.parent)
    fresh.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish_salvage(path: Path) -> None:
    """Go on with a salvage that was cut off."""
    fresh = beside(path, ".new")
    beside(path, SCRATCH).unlink(missing_ok=True)
    if path.exists():
        _remove(fresh)
    elif fresh.exists():
        try:
            with closing(sqlite3.connect(fresh)) as connection:
                name = connection.execute("SELECT set_aside FROM salvage ORDER BY id DESC LIMIT 1").fetchone()[0]
        except (sqlite3.DatabaseError, TypeError) as error:
            if isinstance(error, sqlite3.Error) and not (
                is_damage(error) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR
            ):
                raise
            # Damaged itself; then what can be read of it is all that there is.
            log.error("what was salvaged into %s is damaged too: %s", fresh, error)  # noqa: TRY400 - no fault of ours
            fresh.rename(path)
        else:
            _put_in_place(path, fresh, path.with_name(name))


def _remove(path: Path) -> None:
    for part in _PARTS:
        beside(path, part).unlink(missing_ok=True)


def _unused(path: Path) -> Path:
    """A name that no earlier damaged file has: a board without a clock is often at the same moment of 1970."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _see_silent_damage(connection: sqlite3.Connection, path: Path, now_ms: int) -> None:
    """A flipped bit within a number SQLite cannot see. The ledger can: each commit leaves it in agreement."""
    if rows.ledger_agrees(connection):
        return
    reason = "the ledger does not agree with the sessions: a number was damaged, and which one nobody can tell"
    log.error("the database %s is damaged: %s", path, reason)
    connection.execute("BEGIN IMMEDIATE")
    rows.drop_impossible(connection)
    balance(connection)
    _tell(connection, now_ms, reason)
    connection.execute("COMMIT")


def _see_damaged_log(connection: sqlite3.Connection, path: Path, now_ms: int, commits: list[int] | None) -> None:
    """SQLite has passed over what it could not read of it, and with that whatever came after."""
    read = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    if log_check.lost(commits, read):
        reason = "its log was damaged: the commits behind the damage are gone, and nobody can tell how many records"
        log.error("the database %s is damaged: %s", path, reason)
        _tell(connection, now_ms, reason)


def _tell(connection: sqlite3.Connection, now_ms: int, reason: str) -> None:
    connection.execute(
        "INSERT INTO salvage (at_ms, set_aside, reason, rows_saved, tables_damaged) VALUES (?, '', ?, 0, '')",
        (now_ms, reason),
    )


def balance(connection: sqlite3.Connection) -> None:
    """Make the ledger agree with what was saved: what it counted and is nowhere now was removed by the damage."""
    rows.delete_orphans(connection)
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
    rows.recount_received(connection)
