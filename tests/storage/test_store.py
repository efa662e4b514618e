from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.core.given import NOW_MS
from tests.storage.given import (
    RECORDS_EACH,
    changes_of,
    connection_of,
    fill,
    heads,
    ledger_of,
    no_growing_files,
    opened,
)
from xybridd.core.changes import Changes
from xybridd.core.ledger import COUNTED, RECEIVED
from xybridd.errors import CorruptDatabase, StartError, StorageError
from xybridd.storage.store import DATABASE_NAME, LOCK_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIG = "x" * 9000


@contextmanager
def no_more_pages(store: Store) -> Iterator[None]:
    """SQLITE_FULL for whatever needs a new page."""
    connection = connection_of(store)
    (used,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {used}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1073741823")


async def ids(store: Store) -> list[str]:
    return [head.session_id for head in heads(await store.open_sessions())]


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
            await store.write(Changes(ledger={COUNTED: RECORDS_EACH, RECEIVED: RECORDS_EACH}))
        async with opened(tmp_path) as store:
            assert await ids(store) == ["s1"]
            assert await store.ledger() == {COUNTED: RECORDS_EACH, RECEIVED: RECORDS_EACH}
            assert await store.session("s2") is None

    asyncio.run(run())


def test_a_clean_end_leaves_no_log(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))

    asyncio.run(run())
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([DATABASE_NAME, LOCK_NAME])


def test_a_second_store_is_kept_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
            with pytest.raises(StartError, match="in use"):
                Store(tmp_path, asyncio.get_running_loop()).lock()
            assert await ids(store) == ["s1"]

    asyncio.run(run())


def test_what_the_system_refuses_is_the_disks_failure_and_not_ours(tmp_path: Path) -> None:
    """Code of Python's own that is fetched in the midst of a job, say, from a disk that fails."""

    def job(_: sqlite3.Connection) -> None:
        raise OSError(5, "Input/output error", "hashlib.py")

    async def run() -> None:
        async with opened(tmp_path) as store:
            for asked in (store.transact, store.query):
                with pytest.raises(StorageError, match="Input/output error"):
                    await asked(job)
            await store.write(changes_of(1))
            assert await ids(store) == ["s1"]

    asyncio.run(run())


def loosen(folder: Path) -> None:
    folder.chmod(0o755)
    for found in folder.iterdir():
        found.chmod(0o644)


def modes(folder: Path) -> tuple[int, set[int]]:
    return folder.stat().st_mode & 0o777, {found.stat().st_mode & 0o777 for found in folder.iterdir()}


def largest_file(folder: Path) -> int:
    return max(found.stat().st_size for found in folder.iterdir())


def test_permissions_are_tightened_at_each_open(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
        loosen(tmp_path)
        async with opened(tmp_path) as store:
            await store.write(changes_of(2))
            assert modes(tmp_path) == (0o700, {0o600})

    asyncio.run(run())


def test_writes_are_done_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            written = [store.write(Changes(ledger={COUNTED: number})) for number in range(20)]
            await asyncio.gather(*written)
            assert await store.ledger() == {COUNTED: 19}

    asyncio.run(run())


# A disk that refuses


def test_a_full_database_refuses_and_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
            big = Changes(ledger={COUNTED: 1})
            for number in range(2, 40):
                more = changes_of(number, message=BIG)
                big.heads += more.heads
                big.models += more.models
                big.errors += more.errors
            with no_more_pages(store):
                for _ in range(2):
                    with pytest.raises(StorageError, match="full"):
                        await store.write(big)
                assert await ids(store) == ["s1"]
                assert await store.ledger() == {}
            await store.write(big)
            assert len(await ids(store)) == 39
            assert await store.ledger() == {COUNTED: 1}

    asyncio.run(run())


def test_a_disk_without_space_refuses_and_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
            with no_growing_files(largest_file(tmp_path) + 4096):
                with pytest.raises(StorageError):
                    await store.write(changes_of(2, message=BIG))
                assert await ids(store) == ["s1"]
            await store.write(changes_of(2, message=BIG))
            assert await ids(store) == ["s1", "s2"]

    asyncio.run(run())


def test_a_write_that_another_process_blocks_can_be_done_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            connection_of(store).execute("PRAGMA busy_timeout = 0")
            with closing(sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StorageError, match="locked"):
                    await store.write(changes_of(1))
                other.execute("ROLLBACK")
            await store.write(changes_of(1))
            assert await ids(store) == ["s1"]

    asyncio.run(run())


# Damage while in use


def damage(path: Path) -> None:
    """Overwrite all but the first page."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def test_damage_found_while_in_use_is_told_and_can_be_salvaged(tmp_path: Path) -> None:
    fill(tmp_path / DATABASE_NAME, 50)

    async def run() -> None:
        async with opened(tmp_path) as store:
            damage(store.path)
            connection_of(store).execute("PRAGMA shrink_memory")
            with pytest.raises(CorruptDatabase):
                await store.write(changes_of(99))
            await store.salvage("told by a test", NOW_MS, balanced=True)
            await store.write(changes_of(99))
            assert await ids(store) == ["s99"]
            (salvage,) = (await store.use()).salvages
            assert salvage["reason"] == "told by a test"
            assert (tmp_path / salvage["set_aside"]).exists()

    asyncio.run(run())


def test_a_salvage_that_fails_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / DATABASE_NAME, 20)

    def no_space(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    async def run() -> None:
        async with opened(tmp_path) as store:
            before = await ids(store)
            with monkeypatch.context() as patch:
                patch.setattr("xybridd.storage.store.salvage", no_space)
                with pytest.raises(StorageError):
                    await store.salvage("first", NOW_MS, balanced=True)
            await store.salvage("second", NOW_MS, balanced=True)
            assert await ids(store) == before

    asyncio.run(run())


def test_a_salvage_without_space_loses_nothing(tmp_path: Path) -> None:
    """The file is moved aside before the new one is whole; what was in it must not be forgotten on the way."""
    fill(tmp_path / DATABASE_NAME, 60)

    async def run() -> None:
        async with opened(tmp_path) as store:
            before = await ids(store)
            with no_growing_files(40_000), pytest.raises(StorageError):
                await store.salvage("first", NOW_MS, balanced=True)
            await store.salvage("second", NOW_MS + 1, balanced=True)
            assert await ids(store) == before
            counted, accounted = ledger_of(connection_of(store))
            assert counted == accounted == 60 * RECORDS_EACH

    asyncio.run(run())


# Retention


def test_expired_sessions_come_with_their_records(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            for number in range(5):
                await store.write(changes_of(number, ended_at_ms=NOW_MS + 100 + number))
            await store.write(changes_of(9))
            assert await store.expired(NOW_MS + 103) == dict.fromkeys(["s0", "s1", "s2"], RECORDS_EACH)
            assert await store.expired(NOW_MS + 103, limit=1) == {"s0": RECORDS_EACH}
            assert await store.expired(0) == {}

    asyncio.run(run())


def test_over_quota_lets_go_of_enough_and_of_the_oldest(tmp_path: Path) -> None:
    fill(tmp_path / DATABASE_NAME, 400)

    async def run() -> None:
        async with opened(tmp_path) as store:
            used = await store.used_bytes()
            quota, gone = used * 3 // 4, list[str]()
            while (over := await store.used_bytes() - quota) > 0:
                chosen = await store.to_evict(over)
                assert set(chosen.sessions.values()) == {RECORDS_EACH}
                await store.write(Changes(deleted_sessions=list(chosen.sessions)))
                gone += chosen.sessions
            assert gone == [f"s{number}" for number in range(400) if number % 3][: len(gone)]
            assert quota // 2 < (await store.use()).used_bytes <= quota

    asyncio.run(run())


def test_what_was_deleted_gives_its_space_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            for number in range(200):
                await store.write(changes_of(number, message=f"{number}{BIG}"))
            full = (await store.use()).size_bytes
            await store.write(Changes(deleted_sessions=[f"s{number}" for number in range(200)]))
            use = await store.use()
            assert use.sessions == 0
            assert use.size_bytes < full // 2

    asyncio.run(run())


def test_use_says_where_and_how_much(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            await store.write(changes_of(1))
            use = await store.use()
            assert (use.sessions, use.salvages) == (1, [])
            assert 0 < use.used_bytes <= use.size_bytes

    asyncio.run(run())
