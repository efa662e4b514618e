"""The files are damaged in every way that we can think of: it starts, goes on, and its ledger agrees.

``XYBRIDD_DAMAGES`` says how many are tried (80, by lot), or ``all`` of them.
"""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.core.given import NOW_MS
from tests.damage.after import lived_on, put_files
from tests.damage.spoiled import DB, PAGE, WAL, lived, spoiled
from tests.storage.given import RECORDS_EACH, fill, leave_unclean, ledger_of
from xybridd.storage import rows
from xybridd.storage.opening import open_database
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.damage.after import Found

DAMAGES = os.environ.get("XYBRIDD_DAMAGES", "80")
WANTED = None if DAMAGES == "all" else int(DAMAGES)
NAMES = ("ann", "ben", "cyd")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 if WANTED is not None and WANTED < 500 else 20_000)]


def counts(found: Found) -> tuple[object, ...]:
    return found.batches, found.errors, found.last_seq


def test_it_lives_on_whatever_was_damaged(tmp_path: Path, memory: Path, say: Callable[[str], None]) -> None:
    (tmp_path / "lived").mkdir()
    files = lived(tmp_path / "lived")
    put_files(files, memory / "sound")
    sound = lived_on(memory / "sound", NAMES)
    ways = list(spoiled(files, 2 if WANTED else 4))
    if WANTED is not None:
        ways = random.Random(0).sample(ways, WANTED)
    silent = []
    for what, spoilt in ways:
        put_files(spoilt, memory / "spoilt")
        try:
            found = lived_on(memory / "spoilt", NAMES)
            if found.salvages:
                continue  # it said so, and what is missing stands in the ledger
            if what.startswith((WAL, "no log")):
                # Commits at the end of a log are gone as if they had never been, each whole.
                for name, mask in found.batches.items():
                    assert mask == max(0, (2 << found.last_seq[name]) - 2)
            elif "cell" in what:
                # Within a value SQLite cannot see it.
                silent += [what] if counts(found) != counts(sound) else []
            else:
                assert counts(found) == counts(sound)
        except BaseException as error:
            error.add_note(what)
            raise
    say(f"{len(ways)} kinds of damage lived on from; not seen: {silent}")
    assert len(silent) <= len(ways) // 50


# What was found so, each by itself


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / DATABASE_NAME
    fill(path, 30)
    return path


def everything_is_there(path: Path) -> None:
    with closing(open_database(path, NOW_MS)) as connection:
        assert ledger_of(connection) == (30 * RECORDS_EACH, 30 * RECORDS_EACH)
        assert connection.execute("SELECT count(*) FROM salvage").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM ledger WHERE name LIKE 'removed%'").fetchone() == (0,)


@pytest.mark.parametrize("place", [0, 15, 17, 18, 20, 23, 47, 100])
def test_a_bit_in_the_header_costs_nothing(path: Path, place: int) -> None:
    """Without its header SQLite reads nothing of a file; ours is known."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x80
    path.write_bytes(content)
    everything_is_there(path)


def test_a_lost_schema_costs_nothing(path: Path) -> None:
    content = bytearray(path.read_bytes())
    schema = [page for page in range(PAGE, len(content), PAGE) if b"CREATE TABLE" in content[page : page + PAGE]]
    assert schema
    for page in schema:
        content[page : page + PAGE] = bytes(PAGE)
    path.write_bytes(content)
    everything_is_there(path)


@pytest.mark.parametrize("bit", [1, 2, 6, 14, 30, 31])
def test_a_bit_in_the_number_of_its_format_costs_nothing(path: Path, bit: int) -> None:
    """It is neither taken for a newer one, and left alone for ever, nor migrated a second time."""
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0] ^ 1 << bit
        connection.execute(f"PRAGMA user_version = {version - 2**32 if version >= 2**31 else version}")
    everything_is_there(path)


def test_what_was_salvaged_and_damaged_before_it_was_in_its_place_is_salvaged(path: Path) -> None:
    content = path.read_bytes()
    path.rename(path.with_name(f"{DB}.new"))
    path.with_name(f"{DB}.new").write_bytes(b"x" * 16 + content[16:])
    everything_is_there(path)


@pytest.mark.parametrize("left", ["nothing", "no file"])
def test_a_log_alone_is_kept_and_told(path: Path, left: str, tmp_path: Path) -> None:
    (tmp_path / "after").mkdir()
    leave_unclean(path, tmp_path / "after")
    path = tmp_path / "after" / DATABASE_NAME
    log = path.with_name(WAL).read_bytes()
    path.unlink()
    if left == "nothing":
        path.touch()
    with closing(open_database(path, NOW_MS)) as connection:
        ((aside, reason),) = connection.execute("SELECT set_aside, reason FROM salvage").fetchall()
    assert "log" in reason
    assert path.with_name(f"{aside}-wal").read_bytes() == log


@pytest.mark.parametrize("flipped", ["model SET call_count", "error SET count", "ledger SET amount"])
@pytest.mark.parametrize("by", [64, -128, 2**62])
def test_a_bit_within_a_count_is_seen_by_the_ledger(path: Path, tmp_path: Path, flipped: str, by: int) -> None:
    """SQLite cannot know; what the ledger says and what is in the sessions no longer agree, and that is told."""
    with closing(sqlite3.connect(path)) as connection:
        table, column = flipped.split(" SET ")
        connection.execute(f"UPDATE {table} SET {column} = {column} + ? WHERE id = 1", (by,))  # noqa: S608
        connection.commit()
    (tmp_path / "after").mkdir()
    leave_unclean(path, tmp_path / "after")
    with closing(open_database(tmp_path / "after" / DATABASE_NAME, NOW_MS)) as connection:
        counted, accounted = ledger_of(connection)
        assert counted == accounted
        assert rows.ledger_agrees(connection)
        ((reason,),) = connection.execute("SELECT reason FROM salvage").fetchall()
        assert "ledger does not agree" in reason


@pytest.mark.parametrize("place", [3, 18, 30, 32 + 9, 32 + 24 + 500])
def test_a_damaged_log_is_told(tmp_path: Path, memory: Path, place: int) -> None:
    """Its commits are gone, as if they had never been; that must not look like a crash."""
    (tmp_path / "lived").mkdir()
    files = lived(tmp_path / "lived")
    log = bytearray(files[WAL])
    log[place] ^= 4
    put_files(files | {WAL: bytes(log)}, memory / "after")
    with closing(open_database(memory / "after" / DATABASE_NAME, NOW_MS)) as connection:
        ((reason,),) = connection.execute("SELECT reason FROM salvage").fetchall()
    assert "log was damaged" in reason


def test_rows_that_lost_their_session_to_a_bit_are_told(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE session SET session_id = 'r4' WHERE session_id = 's4'")
        connection.commit()
    (tmp_path / "after").mkdir()
    leave_unclean(path, tmp_path / "after")
    with closing(open_database(tmp_path / "after" / DATABASE_NAME, NOW_MS)) as connection:
        assert rows.get_ledger(connection)["removed.damage"] == RECORDS_EACH
        assert connection.execute("SELECT count(*) FROM salvage").fetchone() == (1,)
