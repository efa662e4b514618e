"""Attacks on a copy of a database that is known to the last record: kills in a migration, and in a salvage.

A copy, since a salvage loses what was in the damaged pages, and going back a version loses what came later.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tests.daemon.scenes import database, new_id
from tests.storage.test_upgrade import TO_VERSION_1
from tests.support import inference, ledger_balances
from tests.torture import tracing
from tests.torture.arena import TracedDaemon
from tests.torture.journal import Sums, records_of
from tests.torture.judge import complaints, stored, sums_of
from tests.torture.on_process import dies_opening, next_call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.torture.arena import Arena

SPECIMEN_SESSIONS = 12


def specimen(arena: Arena) -> tuple[Path, dict[str, Sums]]:
    """A data folder whose daemon was killed, made once; and what is in it."""
    home = arena.folder / "specimen"
    wanted: dict[str, Sums] = {}
    fresh = not home.exists()
    home.mkdir(exist_ok=True)
    daemon = TracedDaemon(home)
    if fresh:
        daemon.start()
    for number in range(SPECIMEN_SESSIONS):
        session_id = f"00000000-0000-4000-8000-{number:012}"
        wanted[session_id] = Sums()
        for seq in range(1, 4):
            wanted[session_id].add(records_of(number, seq))
        if fresh:
            with daemon.wire() as wire:
                wire.hello("specimen", client_id=new_id())
                wire.call("session.start", session_id=session_id)
                for seq in range(1, 4):
                    wire.call("record.batch", seq=seq, records=records_of(number, seq), flush=True)
                wire.call("session.end")
    if fresh:
        daemon.kill()
    return daemon.data, wanted


def copy_of(arena: Arena, name: str) -> tuple[TracedDaemon, dict[str, Sums]]:
    data, wanted = specimen(arena)
    daemon = TracedDaemon(arena.new_folder(name))
    shutil.copytree(data, daemon.data)
    return daemon, wanted


def kill_in_migration(arena: Arena) -> None:
    """A database of the first version; however often it dies on the way to today's, all is there then."""
    daemon, wanted = copy_of(arena, "migration")
    with closing(sqlite3.connect(database(daemon), isolation_level=None)) as connection:
        connection.executescript(TO_VERSION_1)
    die_and_open(arena, daemon, "migration")
    found = inspected(arena, daemon, "migration")
    for session_id, each in wanted.items():
        if found.get(session_id) != each:
            arena.violations.append(f"after a kill in a migration session {session_id} is {found.get(session_id)}")
    arena.figures["migrations_killed"] += 1


def kill_in_salvage(arena: Arena) -> None:
    """Pages of the file are overwritten; what a salvage that is cut off saves is what one saves that is not."""
    daemon, wanted = copy_of(arena, "salvage")
    scribble(arena, database(daemon))
    twin = TracedDaemon(arena.new_folder("twin"))
    shutil.copytree(daemon.data, twin.data)
    die_and_open(arena, daemon, "salvage")
    found = inspected(arena, daemon, "salvage")
    for session_id, each in found.items():
        whole = wanted.get(session_id, Sums())
        if each.calls - whole.calls or each.errors - whole.errors:
            arena.violations.append(f"a salvage made records up: {session_id} {each}")
    twin.start()
    if inspected(arena, twin, "uncut salvage") != found:
        arena.violations.append("a salvage that was cut off saved other records than one that was not")
    arena.figures["salvages_killed"] += 1


def scribble(arena: Arena, path: Path) -> None:
    """Some pages behind the first are overwritten. The log is put into the file before, and left unclean behind."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for change in (1, -1):
            connection.execute("UPDATE ledger SET amount = amount + ?", (change,))
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        log = path.with_name(path.name + "-wal").read_bytes()
    pages = path.stat().st_size // page
    with path.open("r+b") as file:
        for _ in range(arena.chance.randint(1, 6)):
            file.seek(arena.chance.randrange(2, pages) * page)
            file.write(b"\xa5" * page)
    path.with_name(path.name + "-wal").write_bytes(log)


def die_and_open(arena: Arena, daemon: TracedDaemon, where: str) -> None:
    """Twice in a row at a call of chance, then it opens in peace."""
    for _ in range(2):
        call, number = next_call(arena, tracing.OPENING_CALLS, where)
        arena.figures["syscalls_swept" if dies_opening(daemon, arena, call, number) else "syscalls_not_reached"] += 1
    daemon.start()


def inspected(arena: Arena, daemon: TracedDaemon, where: str) -> dict[str, Sums]:
    """What its file holds at last; a fresh record passes, the ledger agrees, both by its word and in the file."""
    try:
        with daemon.wire() as wire:
            wire.hello("fresh", client_id=new_id())
            session_id = wire.call("record.batch", seq=1, records=[inference()], flush=True)["session_id"]
            if wire.call("session.get", session_id=session_id)["total_inferences"] != 1:
                arena.violations.append(f"{where}: a fresh record is not there")
            known = [each["session_id"] for each in wire.call("session.list", limit=1000)["sessions"]]
            by_wire = {each: sums_of(wire.call("session.get", session_id=each)) for each in known}
            ledger = wire.call("daemon.status")["ledger"]
        code = daemon.stop()
    finally:
        daemon.end()
    with closing(sqlite3.connect(f"{database(daemon).as_uri()}?mode=ro", uri=True)) as connection:
        found = stored(connection)
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
    records = sum(each.records for each in found.values())
    problems = {
        "the ledger does not balance": not ledger_balances(ledger),
        "what is counted is not what is there": ledger["counted"] != records + sum(ledger["removed"].values()),
        "the wire and the file differ": by_wire != found,
        f"it ended with {code}": code != 0,
        f"the file is not sound: {sound}": sound != "ok",
    }
    arena.violations += [f"{where}: {problem} ({ledger})" for problem, holds in problems.items() if holds]
    arena.violations += [f"{where}: {complaint}" for complaint in complaints(daemon.log)]
    shutil.rmtree(daemon.folder)
    del found[session_id]
    return found
