"""The power fails at any moment: what was acknowledged is there, once.

``XYBRIDD_POWER_LOSSES`` says how many states of the disk are tried of each life (100, by lot), or ``all`` of them.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.damage.after import judge, opened, put_files
from tests.damage.disk import Operation, Sync, Unlink, Write, states
from tests.damage.lives import CLIENTS
from tests.damage.tracing import files_of, recorded
from tests.storage.given import RECORDS_EACH, fill, leave_unclean
from tests.storage.test_upgrade import TO_VERSION_1
from xybridd.errors import StorageError
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.damage.after import Found

LOSSES = os.environ.get("XYBRIDD_POWER_LOSSES", "100")
WANTED = None if LOSSES == "all" else int(LOSSES)

PAGE = 1024
NAMES = (*CLIENTS, "gone", "late")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 if WANTED is not None and WANTED < 500 else 20_000)]


def survive(
    before: dict[str, bytes], operations: list[Operation], folder: Path, check: Callable[[Found, list[str]], None]
) -> int:
    """Open every state; how many were different."""
    seen: dict[int, Found] = {}
    for where, files, told in states(before, operations, 3, WANTED):
        mark = hash(tuple(sorted(files.items())))
        try:
            if mark not in seen:
                put_files(files, folder)
                seen[mark] = opened(folder, NAMES)
            check(seen[mark], told)
        except BaseException as error:
            error.add_note(f"{where}; told: {told[-3:]}; files: { {name: len(data) for name, data in files.items()} }")
            raise
    return len(seen)


Life = tuple[dict[str, bytes], list[Operation]]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """With a migration, commits, checkpoints, a log begun anew, exports, deliveries, and a session forgotten."""
    data = tmp_path_factory.mktemp("life") / "data"
    data.mkdir()
    fill(data / DATABASE_NAME, 6)
    with closing(sqlite3.connect(data / DATABASE_NAME, isolation_level=None)) as connection:
        connection.executescript(TO_VERSION_1)
    return recorded("tests.damage.lives", data, "whole")


def as_promised(found: Found, told: list[str]) -> None:
    judge(found, told)
    assert found.salvages == 0
    assert found.others == {f"s{number}": RECORDS_EACH for number in range(6)}


def test_what_was_acknowledged_outlives_the_power(life: Life, memory: Path, say: Callable[[str], None]) -> None:
    before, operations = life
    # All of it was seen: the log was begun anew several times, and taken away.
    assert sum(isinstance(each, Write) and each.offset == 0 and len(each.data) == 32 for each in operations) > 3
    assert Unlink(f"{DATABASE_NAME}-wal") in operations
    say(
        f"{survive(before, operations, memory / 'after', as_promised)} different states of {len(operations)} operations opened"
    )


def test_a_sync_too_few_would_be_seen(life: Life, memory: Path) -> None:
    before, operations = life
    lazy: list[Operation] = [each for each in operations if not isinstance(each, Sync)]
    with pytest.raises((AssertionError, StorageError)):
        survive(before, lazy, memory / "after", as_promised)


def spoil(path: Path) -> None:
    """Overwrite every third of the pages that hold rows; not of the schema, without which none is read."""
    content = bytearray(path.read_bytes())
    leaves = [
        page
        for page in range(PAGE, len(content), PAGE)
        if content[page] == 0x0D and b"CREATE " not in content[page : page + PAGE]
    ]
    for page in leaves[::3]:
        content[page : page + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


def test_a_salvage_outlives_the_power(tmp_path: Path, memory: Path, say: Callable[[str], None]) -> None:
    sound, data = tmp_path / "sound", tmp_path / "data"
    sound.mkdir()
    data.mkdir()
    fill(sound / DATABASE_NAME, 40)
    leave_unclean(sound / DATABASE_NAME, data)
    spoil(data / DATABASE_NAME)
    put_files(files_of(data), tmp_path / "at once")
    whole = opened(tmp_path / "at once", NAMES)
    assert whole.salvages == 1
    assert 0 < sum(whole.others.values()) < 40 * RECORDS_EACH

    before, operations = recorded("tests.damage.lives", data, "salvaged")

    def check(found: Found, told: list[str]) -> None:
        judge(found, told)
        assert (found.salvages, found.others) == (1, whole.others)

    say(
        f"{survive(before, operations, memory / 'after', check)} different states of {len(operations)} operations opened"
    )
