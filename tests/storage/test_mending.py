from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tests.storage.given import changes_of
from xybridd.core.changes import Changes, ClockImage
from xybridd.core.timeline import Stretch
from xybridd.storage import mending, rows
from xybridd.storage.opening import open_database

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_790_000_000_000


def test_what_was_written_of_a_boot_is_read_again(tmp_path: Path) -> None:
    stretches = [Stretch(0, 0, 60_000, wrong=True, by_ms=NOW_MS), Stretch(NOW_MS, 60_000, 61_000, wrong=False)]
    image = ClockImage("boot", stretches, [], NOW_MS)
    with closing(open_database(tmp_path / "d", NOW_MS)) as connection:
        for _ in range(2):  # the same again changes nothing
            mending.mend(connection, Changes(clock=image))
        timeline, waits = mending.timeline_of(connection, "boot")
        assert timeline.stretches == stretches
        assert not waits
        assert mending.timeline_of(connection, "another")[0].stretches == []


def test_a_boot_that_saw_no_right_clock_waits_for_one(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "d", NOW_MS)) as connection:
        mending.mend(connection, Changes(clock=ClockImage("first", [Stretch(0, 0, 1, wrong=True)], [], None)))
        assert mending.timeline_of(connection, "second")[1]
        mending.mend(connection, Changes(clock=ClockImage("second", [Stretch(NOW_MS, 0, 1, wrong=False)], [], NOW_MS)))
        assert not mending.timeline_of(connection, "third")[1]
        assert connection.execute("SELECT known_ms FROM clock WHERE boot_id = 'first'").fetchone() == (NOW_MS,)


def test_a_flipped_bit_keeps_nobody_from_starting(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "d", NOW_MS)) as connection:
        rows.put(connection, changes_of(1))
        mending.mend(connection, Changes(clock=ClockImage("boot", [Stretch(0, 0, 1, wrong=True)], [], None)))
    with closing(sqlite3.connect(tmp_path / "d")) as raw:
        # What a STRICT table refuses is put there as damage does it.
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '') WHERE name IN ('clock', 'session')")
        raw.commit()
    with closing(sqlite3.connect(tmp_path / "d")) as raw:
        raw.execute("UPDATE clock SET offset_ms = 'x'")
        raw.execute("UPDATE session SET started_at_ms = 'x'")
        raw.commit()
        timeline, _ = mending.timeline_of(raw, "boot")
    assert timeline.stretches == []
    assert timeline.look(NOW_MS, 1000) is False
