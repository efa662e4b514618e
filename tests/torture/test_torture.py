"""The torture campaign, short: every attack once. ``make torture MINUTES=`` is the long one.

``XYBRIDD_TORTURE_S`` is how long it goes on for (0: each attack once), ``XYBRIDD_TORTURE_SEED`` the seed of an earlier
run. Needs strace for what is done to calls of the system; where that is not permitted, the summary says so.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import database
from tests.support import RECEIVER_KEY, until
from tests.torture import tracing
from tests.torture.arena import Arena
from tests.torture.campaign import Plan, run
from tests.torture.journal import Journal, Standing, Sums, Wanted, id_of, records_of
from tests.torture.judge import Arrived, Verdict, by_file, by_wire, measured, wanted_of
from xybridd.core import names
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = float(os.environ.get("XYBRIDD_TORTURE_S", "0"))


@pytest.mark.campaign
@pytest.mark.timeout(400 + 2 * SECONDS)
def test_whatever_is_done_to_it_what_was_acknowledged_is_there_once(say: Callable[[str], None]) -> None:
    seed = int(os.environ.get("XYBRIDD_TORTURE_SEED", random.randrange(2**32)))
    summary = run(Plan(SECONDS, seed, lambda _: None, each_once=True))
    say("\n".join(summary.lines()))
    assert summary.passed, summary.violations
    assert summary.records > 0
    assert summary.delivered > 0
    if not tracing.permitted():
        # Whether an error was injected as well is up to chance: which calls, when, and whether they came.
        assert summary.figures["syscalls_swept"] > 0


# The judge sees what it is there to see


@pytest.fixture(scope="module")
def recorded() -> Iterator[Arena]:
    """A producer's journal, and a daemon that has what stands in it; stopped."""
    home = Path(tempfile.mkdtemp(prefix="xyb-"))
    with Receiver(key=RECEIVER_KEY) as receiver, Receiver() as collector:
        arena = Arena.build(home, 7, receiver, collector)
        try:
            arena.daemon.start()
            worker = arena.hire("raw")
            until(lambda: len(Standing.read(worker.journal).kept) > 20, "batches to be acknowledged")
            worker.call_home()
            assert worker.home()["violations"] == []
            arena.fresh_record()
            arena.daemon.stop()
            yield arena
        finally:
            arena.end()
            shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def judged(recorded: Arena) -> Iterator[Arena]:
    """Whatever is done to its file is undone."""
    whole = database(recorded.daemon).read_bytes()
    yield recorded
    recorded.daemon.end()
    for part in ("-wal", "-shm"):
        database(recorded.daemon).with_name(f"xybridd.db{part}").unlink(missing_ok=True)
    database(recorded.daemon).write_bytes(whole)


def verdict_on(arena: Arena) -> Verdict:
    verdict = Verdict()
    by_file(arena, wanted_of(arena), verdict)
    return verdict


def change(arena: Arena, sql: str) -> None:
    with closing(sqlite3.connect(database(arena.daemon))) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.mark.parametrize(
    ("sql", "missing", "spurious"),
    [
        ("UPDATE ledger SET amount = amount", 0, 0),
        ("UPDATE model SET call_count = call_count - 1 WHERE id = (SELECT min(id) FROM model)", 1, 0),
        ("UPDATE error SET count = count + 2 WHERE id = (SELECT max(id) FROM error)", 0, 2),
        ("DELETE FROM session WHERE app = 'noise-fresh'", 1, 0),
        ("UPDATE session SET app = 'nobody' WHERE app = 'noise-fresh'", 1, 1),
    ],
)
def test_a_record_too_few_or_too_many_in_the_file_is_found(
    judged: Arena, sql: str, missing: int, spurious: int
) -> None:
    if sql.startswith("DELETE"):
        change(
            judged, "DELETE FROM model WHERE session_id = (SELECT session_id FROM session WHERE app = 'noise-fresh')"
        )
    change(judged, sql)
    verdict = verdict_on(judged)
    assert (verdict.missing, verdict.spurious) == (missing, spurious), verdict.violations
    assert bool(verdict.violations) == bool(missing or spurious)


def test_a_record_that_no_journal_knows_is_found_by_the_wire(judged: Arena) -> None:
    wanted = wanted_of(judged)
    judged.daemon.start()
    verdict = Verdict()
    by_wire(judged, wanted, verdict)
    assert verdict.violations == []
    session_id = next(session_id for session_id, each in wanted.items() if each.most.records)
    wanted[session_id].most.calls["whisper"] -= 1
    wanted[session_id].least.errors["boom"] += 3
    by_wire(judged, wanted, verdict)
    assert (verdict.missing, verdict.spurious) == (3, 1)


def exported(session_id: str, revision: int, calls: int) -> dict[str, Any]:
    """The parts of an export that are compared."""
    model = {"model_id": "whisper", "call_count": calls, "total_latency_ms": 10 * calls}
    return {
        "session": {"session_id": session_id},
        "metrics": {"by_model": [model]},
        "errors": [],
        "extensions": {"app": "raw", "revision": revision},
    }


@pytest.mark.parametrize(
    ("calls", "missing", "spurious"),
    [([2, 3], 0, 0), ([3, 2], 1, 0), ([2, 4], 0, 1), ([], 3, 0)],
)
def test_it_is_the_newest_export_that_must_be_right(calls: list[int], missing: int, spurious: int) -> None:
    whole = Sums(Counter(whisper=3), Counter(whisper=30))
    wanted = {"s": Wanted(whole, whole, ended=True)}
    exports = [exported("s", revision, each) for revision, each in enumerate(calls, start=1)]
    verdict = Arrived("here", exports, wanted).judge(wanted, Verdict())
    assert (verdict.missing, verdict.spurious) == (missing, spurious)


def test_an_export_that_arrived_twice_is_found() -> None:
    verdict = Arrived("here", [exported("s", 1, 3)] * 3, {}).judge({}, Verdict())
    assert (verdict.missing, verdict.spurious) == (0, 2)


def points(app: str, calls: int, errors: int) -> dict[str, Any]:
    """The parts of a batch of metrics that are compared."""
    duration = {
        "attributes": [{"key": names.REQUEST_MODEL, "value": {"stringValue": "whisper"}}],
        "count": str(calls),
        "sum": 0.01 * calls,
    }
    metrics = [
        {"name": names.OPERATION_DURATION.name, "exponentialHistogram": {"dataPoints": [duration]}},
        {"name": names.ERRORS.name, "sum": {"dataPoints": [{"asInt": str(errors)}]}},
        {"name": names.CALLS.name, "sum": {"dataPoints": [{"asInt": "99"}]}},
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": app}}]}
    return {"metrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}


@pytest.mark.parametrize(("calls", "missing", "spurious"), [(3, 0, 0), (2, 1, 0), (5, 0, 2)])
def test_what_a_collector_has_is_added_up_by_app(calls: int, missing: int, spurious: int) -> None:
    found = measured([points("a", 1, 2), points("b", 7, 0), points("a", calls - 1, 1)])
    verdict = Verdict()
    whole = Sums(Counter(whisper=3), Counter(whisper=30), Counter({"": 3}))
    verdict.compare("here", "a", found["a"], Wanted(whole, whole, ended=True))
    assert (verdict.missing, verdict.spurious) == (missing, spurious)


# The journal


def test_a_journal_says_what_was_sent_and_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "5.raw"
    journal = Journal(path)
    first = id_of(5, "session", 0)
    journal.write(session=first)
    for seq in (1, 2):
        journal.write(sent=seq, session=first)
    journal.write(kept=1)
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"kept": 2')  # killed in the midst of a line
    wanted = Standing.read(path).wanted()[first]
    assert wanted.least.records == len(records_of(5, 1))
    assert wanted.most.records == len(records_of(5, 1)) + len(records_of(5, 2))
    assert not wanted.ended


def test_what_is_in_a_batch_follows_from_its_number() -> None:
    assert records_of(5, 1) == records_of(5, 1)
    assert records_of(5, 1) != records_of(5, 2)
    sums = Sums()
    sums.add(records_of(5, 1))
    assert sums.records == len(records_of(5, 1))
