from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.core.given import NOW_MS
from tests.storage.given import RECORDS_EACH, fill, newest_version, opened
from xybridd.storage.database import backups, migrations
from xybridd.storage.opening import open_database
from xybridd.storage.rows import SessionFilter
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from pathlib import Path

#: The schema and rows of version 1, as the first release wrote them: what is here is what came later, taken away.
TO_VERSION_1 = """
    DROP TABLE minute; DROP TABLE sample; DROP TABLE export; DROP TABLE outbox; DROP TABLE tally; DROP TABLE sink;
    DROP TABLE clock;
    ALTER TABLE model DROP COLUMN conditions; ALTER TABLE session DROP COLUMN transitions;
    ALTER TABLE producer DROP COLUMN ring; ALTER TABLE session DROP COLUMN processes;
    ALTER TABLE session DROP COLUMN calls_in_progress; ALTER TABLE model DROP COLUMN cancelled;
    PRAGMA user_version = 1;
"""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / DATABASE_NAME
    fill(path, 6)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(TO_VERSION_1)
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_an_older_database_is_migrated_and_a_copy_kept_until_a_clean_end(older: Path) -> None:
    async def test() -> None:
        async with opened(older.parent) as store:
            assert version_of(older) == newest_version()
            (copy,) = backups(older)
            assert version_of(copy) == 1
            assert copy.stat().st_mode & 0o777 == 0o600
            listed = await store.list_sessions(SessionFilter())
            assert sum(each.total_inferences + each.error_count for each in listed) == 6 * RECORDS_EACH
        assert backups(older) == []
        assert version_of(older) == newest_version()

    asyncio.run(test())


def test_a_copy_outlives_a_process_that_did_not_end_cleanly(older: Path) -> None:
    open_database(older, NOW_MS).close()
    assert len(backups(older)) == 1
    open_database(older, NOW_MS).close()
    assert [version_of(copy) for copy in backups(older)] == [1]


def test_a_copy_that_cannot_be_made_does_not_keep_it_from_starting(
    older: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older.with_name(f"{older.name}.version-1.new").mkdir()  # in the way

    async def test() -> None:
        async with opened(older.parent):
            assert version_of(older) == newest_version()

    asyncio.run(test())
    assert "no copy of the older database could be kept" in caplog.text


def test_a_database_of_today_needs_no_copy(tmp_path: Path) -> None:
    fill(tmp_path / DATABASE_NAME, 2)
    assert backups(tmp_path / DATABASE_NAME) == []
    assert migrations()[-1][0] == newest_version()
