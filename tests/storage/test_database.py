"""Opening the file in whatever state it is."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from functools import partial
from importlib import resources
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.core.given import NOW_MS
from tests.storage.given import (
    RECORDS_EACH,
    fill,
    leave_unclean,
    ledger_of,
    newest_version,
    no_growing_files,
    opened,
    schema_of,
)
from xybridd.errors import CorruptDatabase, StartError, StorageError
from xybridd.storage import retention, rows
from xybridd.storage.database import is_damage, migrate, migrations, open_sound, wrapped
from xybridd.storage.opening import open_database, prepare_folder, salvage
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSIONS = 300
PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a few hundred sessions; tests work on copies of it."""
    path = tmp_path_factory.mktemp("sound") / DATABASE_NAME
    fill(path, SESSIONS)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / DATABASE_NAME


@pytest.fixture(params=["clean", "unclean"])
def copy(request: pytest.FixtureRequest, sound: Path, path: Path) -> Path:
    """A copy, as a daemon that ended leaves it, and as one that was killed does."""
    if request.param == "clean":
        shutil.copy(sound, path)
    else:
        leave_unclean(sound, path.parent)
    return path


def set_aside(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(kept for kept in found if not kept.name.endswith(("-wal", "-shm")))


def everything_is_readable(connection: sqlite3.Connection) -> int:
    """Read all that a daemon reads; how many sessions there are."""
    rows.get_open_sessions(connection)
    rows.get_ledger(connection)
    rows.get_producer(connection, 1, "c")
    rows.get_last_implicit(connection, 1, "app")
    listed = rows.list_sessions(connection, rows.SessionFilter(limit=10_000))
    for summary in listed:
        rows.get_session(connection, summary.session_id)
    retention.expired(connection, 2**60, 10_000)
    retention.to_evict(connection, 2**40, 10_000)
    return len(listed)


def readable(path: Path) -> sqlite3.Connection:
    """Open it; where damage shows only while reading, salvage it then. All of what is there can be read after that."""
    connection = open_database(path, NOW_MS)
    try:
        everything_is_readable(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if not is_damage(error):
            raise
        connection = salvage(path, str(error), NOW_MS + 1)
        everything_is_readable(connection)
    return connection


def salvages(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT set_aside, rows_saved FROM salvage").fetchall()


# The schema


def test_the_schema_file_is_what_the_migrations_build() -> None:
    with closing(sqlite3.connect(":memory:")) as once, closing(sqlite3.connect(":memory:")) as step_by_step:
        once.executescript((resources.files("xybridd.storage") / "schema.sql").read_text("utf-8"))
        migrate(step_by_step)
        assert schema_of(once) == schema_of(step_by_step)
        assert step_by_step.execute("PRAGMA user_version").fetchone() == (newest_version(),)


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_table_is_strict() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        migrate(connection)
        assert [
            sql
            for kind, name, _, sql in schema_of(connection)
            if kind == "table" and not sql.endswith("STRICT") and name != "sqlite_sequence"
        ] == []


def test_migrating_again_changes_nothing(path: Path) -> None:
    for _ in range(2):
        with closing(open_database(path, NOW_MS)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (newest_version(),)
    assert set_aside(path) == []


def test_a_migration_that_fails_leaves_nothing_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*migrations(), (newest_version() + 1, "CREATE TABLE half (id INTEGER); CREATE TABLE half (id INTEGER);")]
    open_database(path, NOW_MS).close()
    monkeypatch.setattr("xybridd.storage.database.migrations", lambda: steps)
    with pytest.raises(StartError, match="half"):
        open_database(path, NOW_MS)
    monkeypatch.undo()
    with closing(open_database(path, NOW_MS)) as connection:
        assert "half" not in {name for _, name, _, _ in schema_of(connection)}


def test_a_write_is_on_disk_when_it_returns(path: Path) -> None:
    with closing(open_database(path, NOW_MS)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_newer_database_is_refused_and_left_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA user_version = {newest_version() + 1}")
        connection.execute("CREATE TABLE future (x)")
    before = path.read_bytes()
    with pytest.raises(StartError, match="newer xybridd"):
        open_database(path, NOW_MS)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("ahead", [1, 8, 993])
def test_a_newer_database_with_the_same_tables_is_left_untouched_too(path: Path, ahead: int) -> None:
    """A migration may change no column: an index, or what stands in one."""
    open_database(path, NOW_MS).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newest_version() + ahead}")
    before = path.read_bytes()
    with pytest.raises(StartError, match="newer xybridd"):
        open_database(path, NOW_MS)
    assert path.read_bytes() == before


def test_a_newer_database_that_has_but_a_table_more_is_left_untouched_too(path: Path) -> None:
    open_database(path, NOW_MS).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"CREATE TABLE future (x); PRAGMA user_version = {newest_version() + 1}")
    before = path.read_bytes()
    with pytest.raises(StartError, match="newer xybridd"):
        open_database(path, NOW_MS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_newer_database_in_another_mode_is_left_untouched_too(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(f"PRAGMA user_version = {newest_version() + 1}")
    before = path.read_bytes()
    with pytest.raises(StartError, match="newer xybridd"):
        open_database(path, NOW_MS)
    assert path.read_bytes() == before


# The folder


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_permissions_are_tightened_again(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir(mode=0o755)
    elsewhere.write_text("")
    elsewhere.chmod(0o644)
    (folder / "link").symlink_to(elsewhere)
    for name in ("xybridd.db", "lock", "device_id"):
        (folder / name).write_text("")
        (folder / name).chmod(0o664)
    prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {found.stat().st_mode & 0o777 for found in folder.iterdir() if not found.is_symlink()} == {0o600}
    assert elsewhere.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="XYBRIDD_DATA_DIR"):
        prepare_folder(tmp_path / "file" / "data")


def test_a_new_database_is_its_owners_alone(path: Path) -> None:
    with closing(open_database(path, NOW_MS)) as connection:
        connection.execute("INSERT INTO ledger (name, amount) VALUES ('x', 1)")
        found = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert found == {f"{DATABASE_NAME}{suffix}": 0o600 for suffix in ("", "-wal", "-shm")}


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_a_clear_error(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(StartError, match=DATABASE_NAME):
        open_database(path, NOW_MS)


# Damage


def test_an_unclean_end_alone_loses_nothing(sound: Path, path: Path) -> None:
    leave_unclean(sound, path.parent)
    with closing(open_database(path, NOW_MS)) as connection:
        assert everything_is_readable(connection) == SESSIONS
        assert salvages(connection) == []
    assert set_aside(path) == []


def test_junk_in_the_header_is_set_aside_whole(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.write(b"junk" * 32)
    before = copy.read_bytes()
    logged = copy.with_name(f"{copy.name}-wal").exists()
    with closing(open_database(copy, NOW_MS)) as connection:
        everything_is_readable(connection)
        ((name, _),) = salvages(connection)
        counted, accounted = ledger_of(connection)
        assert counted == accounted
    kept = copy.with_name(name)
    # SQLite may have moved the log into it, whose newer pages take the place of older ones.
    assert kept.read_bytes()[:1024] == before[:1024]
    assert kept.read_bytes() == before or logged
    assert kept in set_aside(copy)


def test_what_is_no_database_at_all_is_set_aside(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)
    with closing(open_database(path, NOW_MS)) as connection:
        assert everything_is_readable(connection) == 0
        assert len(salvages(connection)) == 1
    assert [kept.read_bytes() for kept in set_aside(path)] == [b"x" * 100_000]


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    path.touch()
    with closing(open_database(path, NOW_MS)) as connection:
        assert salvages(connection) == []


def pages_of(path: Path, step: int) -> Iterator[int]:
    """Every `step`-th page but the first, which is the header's."""
    yield from range(1, path.stat().st_size // PAGE, step)


@pytest.mark.parametrize("end", ["clean", "unclean"])
def test_a_page_that_was_overwritten_costs_what_was_on_it(sound: Path, tmp_path: Path, end: str) -> None:
    kept = []
    for page in pages_of(sound, 3):
        folder = tmp_path / str(page)
        folder.mkdir()
        path = folder / DATABASE_NAME
        if end == "clean":
            shutil.copy(sound, path)
        else:
            leave_unclean(sound, folder)
        with path.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(b"\xa5" * PAGE)
        with closing(readable(path)) as connection:
            kept.append(rows.records_in_sessions(connection))
            if salvages(connection):
                counted, accounted = ledger_of(connection)
                assert counted == accounted, f"page {page}"
                assert len(set_aside(path)) == 1, f"page {page}"
    # A table's first page takes the table with it; any other takes the few rows that were on it.
    assert median(kept) > 0.9 * SESSIONS * RECORDS_EACH > min(kept)


def test_a_file_cut_at_any_page_opens_and_its_ledger_balances(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    whole = sound.read_bytes()
    for page in pages_of(sound, 5):
        path.write_bytes(whole[: page * PAGE])
        with closing(open_database(path, NOW_MS + page)) as connection:
            everything_is_readable(connection)
            counted, accounted = ledger_of(connection)
            assert counted == accounted, f"cut after page {page}"
            assert len(salvages(connection)) == 1, f"cut after page {page}"
        assert path.with_name(f"{path.name}.damaged-{NOW_MS + page}").stat().st_size == page * PAGE


def test_a_cut_within_a_page_opens_too(sound: Path, path: Path) -> None:
    path.write_bytes(sound.read_bytes()[: 30 * PAGE + 100])
    with closing(open_database(path, NOW_MS)) as connection:
        everything_is_readable(connection)
        counted, accounted = ledger_of(connection)
        assert counted == accounted


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_never_keep_it_from_opening(sound: Path, path: Path, seed: int) -> None:
    leave_unclean(sound, path.parent)
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(40):
        place = chance.randrange(100, len(data))
        data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    with closing(readable(path)) as connection:
        if salvages(connection):
            counted, accounted = ledger_of(connection)
            assert counted == accounted


@pytest.mark.parametrize("end", ["clean", "unclean"])
def test_a_text_that_is_no_text_any_more_does_not_hide_the_rest(path: Path, sound: Path, end: str) -> None:
    """One flipped bit in an app's name: SQLite cannot see it, and Python refuses to decode it."""
    shutil.copy(sound, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE session SET app = cast(x'e17070' AS TEXT) WHERE session_id = 's0'")
        connection.execute("UPDATE error SET message = cast(x'e17070' AS TEXT) WHERE session_id = 's3'")
        connection.commit()
    if end == "unclean":
        folder = path.parent / "unclean"
        folder.mkdir()
        leave_unclean(path, folder)
        path = folder / DATABASE_NAME
    with closing(open_database(path, NOW_MS)) as connection:
        assert everything_is_readable(connection) == SESSIONS


def test_damage_twice_keeps_both_files(path: Path) -> None:
    for moment in (1, 2):
        path.write_bytes(b"x" * 100)
        open_database(path, moment).close()
    assert [kept.name for kept in set_aside(path)] == [f"{path.name}.damaged-1", f"{path.name}.damaged-2"]


def test_damage_twice_within_a_millisecond_keeps_both_files(path: Path) -> None:
    """A clock that stands still, as one without a battery does at each boot."""
    for content in (b"x", b"y"):
        path.write_bytes(content * 100)
        open_database(path, NOW_MS).close()
    assert sorted(kept.read_bytes()[:1] for kept in set_aside(path)) == [b"x", b"y"]


def test_a_salvage_without_space_is_done_again_at_the_next_start(sound: Path, path: Path) -> None:
    """The disk is full just when the damage is found: the next start must not find an empty database and be content."""
    whole = sound.read_bytes()
    path.write_bytes(whole[: -2 * PAGE])
    with no_growing_files(60_000), pytest.raises(StartError):
        open_database(path, 1)
    with closing(open_database(path, 2)) as connection:
        assert everything_is_readable(connection) > SESSIONS // 2
        counted, accounted = ledger_of(connection)
        assert counted == accounted == SESSIONS * RECORDS_EACH


class Killed(BaseException):
    """What happens to a process that is killed, as far as a test can do it."""


@pytest.mark.parametrize("found", ["at a start", "in use"])
def test_a_salvage_that_was_cut_off_is_done_at_the_next_start(
    sound: Path, path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Closing the damaged file takes away the log by which an unclean end shows; the damage is still known."""
    leave_unclean(sound, path.parent)
    if found == "in use":
        open_database(path, NOW_MS).close()
    damage_unseen(path)

    def cut_off(*_: object) -> None:
        raise Killed

    async def salvaged_in_use() -> None:
        async with opened(path.parent) as store:
            await store.salvage("a read found it", NOW_MS, balanced=True)

    opens = partial(asyncio.run, salvaged_in_use()) if found == "in use" else partial(open_database, path, NOW_MS)
    with monkeypatch.context() as patch:
        patch.setattr("xybridd.storage.remains.Remains.copy_rows", cut_off)
        with pytest.raises(Killed):
            opens()
    with closing(open_database(path, NOW_MS)) as connection:
        assert len(salvages(connection)) == 1
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted, accounted = ledger_of(connection)
        assert counted == accounted
    assert sorted(each.suffix for each in path.parent.glob("*.suspect")) == []


def damage_unseen(path: Path) -> None:
    """Damage a page so that a check finds it, and who opens the file without one sees nothing."""
    whole = path.read_bytes()
    trial = path.with_name("trial")
    for page in pages_of(path, 1):
        damaged = whole[: page * PAGE] + b"\xa5" * PAGE + whole[(page + 1) * PAGE :]
        trial.write_bytes(damaged)
        with suppress(FileNotFoundError):  # what is in the log comes before what is in the file
            shutil.copy(path.with_name(f"{path.name}-wal"), path.with_name("trial-wal"))
        try:
            open_sound(trial, check=False).close()
        except sqlite3.DatabaseError:
            continue
        with closing(sqlite3.connect(trial)) as connection, suppress(sqlite3.DatabaseError):
            if connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                continue
        path.write_bytes(damaged)
        break
    else:
        pytest.fail("every page is read by who opens the file")
    for left in path.parent.glob("trial*"):
        left.unlink()


def test_earlier_salvages_are_remembered(sound: Path, path: Path) -> None:
    whole = sound.read_bytes()
    path.write_bytes(whole[: len(whole) // PAGE // 2 * PAGE])
    open_database(path, 1).close()
    path.write_bytes(path.read_bytes()[: -2 * PAGE])
    with closing(open_database(path, 2)) as connection:
        assert [name for name, _ in salvages(connection)] == [f"{path.name}.damaged-1", f"{path.name}.damaged-2"]
        counted, accounted = ledger_of(connection)
        assert counted == accounted


# Errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT, CorruptDatabase),
        (sqlite3.SQLITE_CORRUPT_INDEX, CorruptDatabase),
        (sqlite3.SQLITE_NOTADB, CorruptDatabase),
        (sqlite3.SQLITE_FULL, StorageError),
        (sqlite3.SQLITE_IOERR_WRITE, StorageError),
        (sqlite3.SQLITE_READONLY, StorageError),
    ],
)
def test_sqlites_errors_are_ours(code: int, kind: type[StorageError]) -> None:
    error = sqlite3.DatabaseError("said")
    error.sqlite_errorcode = code
    found = wrapped(error)
    assert type(found) is kind
    assert (str(found), found.__cause__) == ("said", error)
    assert is_damage(error) == (kind is CorruptDatabase)


def test_other_errors_stay_as_they_are() -> None:
    error = ValueError("x")
    assert wrapped(error) is error
    assert not is_damage(sqlite3.ProgrammingError("no code"))
