"""A small disk that is full, or that may not be written to, while something is wrong with what is on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.core.given import NOW_MS, call
from tests.services.given import bench, run
from tests.storage.given import RECORDS_EACH, fill, leave_unclean, ledger_of
from xybridd.errors import StartError, StorageUnavailable
from xybridd.storage.opening import open_database
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")

SESSIONS = 60


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def filled_up(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_records_fill_a_small_disk_and_none_is_lost_when_there_is_space_again(small: Path) -> None:
    async def test() -> None:
        async with bench(small / "data") as b:
            link, session_id = await b.bound()
            await b.batch(link, 1)
            ballast = filled_up(small)
            # Each of new models, so that pages are needed.
            tickets, seq = [], 1
            with contextlib.suppress(StorageUnavailable):
                while True:
                    seq += 1
                    records = [call(f"{seq}-{number}" + "x" * 200) for number in range(50)]
                    _, _, ticket = await b.recorder.batch(link, seq, records, session_id=None, flush=True, dropped=0)
                    assert ticket is not None
                    tickets.append(ticket)
                    await b.store.ping()
            assert b.recorder.committer.failure is not None
            ballast.unlink()
            for ticket in tickets:
                await ticket
            assert await b.calls(session_id) == 1 + 50 * len(tickets)
            await b.balances()
            # The refused one comes again, with the number that it had.
            await b.batch(link, seq)
            await b.balances()
        async with bench(small / "data") as b:
            assert await b.calls(session_id) == 2 + 50 * len(tickets)

    run(test())


def test_a_salvage_on_a_full_disk_is_done_when_there_is_space(small: Path, tmp_path: Path) -> None:
    fill(tmp_path / DATABASE_NAME, SESSIONS)
    leave_unclean(tmp_path / DATABASE_NAME, small)
    path = small / DATABASE_NAME
    content = path.read_bytes()
    path.write_bytes(content[:-2048])
    ballast = filled_up(small)
    with pytest.raises(StartError, match="cannot open the database"):
        open_database(path, NOW_MS)
    assert path.stat().st_size == len(content) - 2048  # as it was
    ballast.unlink()
    with closing(open_database(path, NOW_MS)) as connection:
        counted, accounted = ledger_of(connection)
        assert counted == accounted == SESSIONS * RECORDS_EACH
        assert connection.execute("SELECT count(*) FROM session").fetchone()[0] > SESSIONS // 2


@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_that_may_only_be_read_is_a_clear_error_until_it_may_be_written(
    small: Path, tmp_path: Path, *, damaged: bool
) -> None:
    fill(tmp_path / DATABASE_NAME, SESSIONS)
    leave_unclean(tmp_path / DATABASE_NAME, small)
    path = small / DATABASE_NAME
    if damaged:
        path.write_bytes(b"junk" * 8 + path.read_bytes()[32:])
    before = {each.name: each.read_bytes() for each in small.iterdir()}
    mount("-o", "remount,ro", str(small))
    with pytest.raises(StartError, match=DATABASE_NAME):
        open_database(path, NOW_MS)
    assert {name: (small / name).read_bytes() for name in before} == before
    mount("-o", "remount,rw", str(small))
    with closing(open_database(path, NOW_MS)) as connection:
        assert ledger_of(connection) == (SESSIONS * RECORDS_EACH, SESSIONS * RECORDS_EACH)
        assert connection.execute("SELECT count(*) FROM salvage").fetchone() == (int(damaged),)
