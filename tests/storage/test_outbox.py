"""The outbox in SQL: that it goes along the edges of its table, whatever comes, and loses and doubles nothing."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.core.given import NOW_MS, head
from tests.storage.given import changes_of
from xybridd.core.changes import Changes
from xybridd.core.delivery import TAKES, Item, SinkName
from xybridd.core.minute import Minute, Sample
from xybridd.core.outbox import EDGES, KEPT, UNSENT, Event, State, Tally
from xybridd.storage import outbox, retention, rows
from xybridd.storage.opening import open_database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from xybridd.core.outbox import Row

SINKS: tuple[SinkName, ...] = get_args(SinkName)
DEVICE = "device"


def item(session_id: str, revision: int = 1, *, device: str = DEVICE, kind: Any = "session") -> Item:
    body = b"" if kind == "deletion" else b'{"of":"%b","revision":%d}' % (session_id.encode(), revision)
    return Item(kind, session_id, revision, NOW_MS + revision, device, "linux", "app", "1", body)


def minute(session_id: str, number: int) -> Minute:
    return Minute(session_id, NOW_MS + number * 60_000, NOW_MS + (number + 1) * 60_000)


def sample(number: int) -> Sample:
    return Sample(NOW_MS + number, number, "boot")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "db", NOW_MS)) as opened:
        yield opened


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


@dataclass
class Known:
    """A row as it should be."""

    sink: SinkName
    kind: str
    session_id: str
    revision: int
    state: State
    batch: str | None = None


@dataclass
class Sent:
    """A batch as it was when it was sent first."""

    rows: list[int]
    bodies: dict[int, bytes]
    let_go: set[int] = field(default_factory=set)


class OutboxMachine(RuleBasedStateMachine):
    """Everything that happens to the outbox of a real database, beside a model that knows only the table of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.connection = open_database(Path(self.folder.name) / "db", NOW_MS)
        self.rows: dict[int, Known] = {}
        self.ended: Counter[tuple[str, State]] = Counter()
        self.made: Counter[str] = Counter()
        self.under_way: dict[SinkName, outbox.Batch] = {}
        self.sent: dict[str, Sent] = {}
        self.revisions: Counter[str] = Counter()
        self.clock = 0
        self.happened: set[Event] = set()

    def teardown(self) -> None:
        self.connection.close()
        self.folder.cleanup()

    # What the model does

    def goes(self, event: Event, row_id: int) -> None:
        """Along an edge; where the table has none, that is a mistake of the test's."""
        row = self.rows[row_id]
        row.state = EDGES[row.state, event]
        self.happened.add(event)
        if row.state not in KEPT:
            self.ended[row.sink, row.state] += 1
            if row.batch is not None:
                self.sent[row.batch].let_go.add(row_id)
            del self.rows[row_id]
        elif row.state == State.DELIVERED:
            self.ended[row.sink, row.state] += 1
            row.batch = None
        elif row.state == State.DEAD:
            row.batch = None

    def let_go(self, event: Event, row_ids: list[int]) -> None:
        for row_id in row_ids:
            state = self.rows[row_id].state
            if state == State.DELIVERED:
                del self.rows[row_id]
            elif (state, event) in EDGES:
                self.goes(event, row_id)

    def expect_new(self, event: Event | None = None) -> None:
        """Rows that are new in the database; what they supersede goes."""
        found = self.connection.execute("SELECT id, sink, kind, session_id, revision FROM outbox ORDER BY id")
        for row_id, sink, kind, session_id, revision in found.fetchall():
            if row_id in self.rows:
                continue
            row = Known(sink, kind, session_id, revision, State.QUEUED)
            if event is None:
                self.made[row.sink] += 1
            older = [
                each
                for each, other in self.rows.items()
                if (other.sink, other.kind, other.session_id) == (row.sink, "session", row.session_id)
                and other.state == State.QUEUED
                and other.revision < row.revision
                and row.kind == "session"
                and event is None
            ]
            for each in older:
                self.goes("supersede", each)
            self.rows[row_id] = row

    def of(self, session_id: str) -> list[int]:
        return [row_id for row_id, row in self.rows.items() if row.session_id == session_id and row.kind != "deletion"]

    # What happens

    sessions = st.sampled_from(["a", "b", "c", "d"])

    @rule(session_id=sessions)
    def end_or_snapshot(self, session_id: str) -> None:
        self.revisions[session_id] += 1
        made = item(session_id, self.revisions[session_id])
        with transaction(self.connection):
            rows.put(self.connection, Changes(heads=[head(session_id)], exports=[made], sinks=SINKS))
        self.expect_new()

    @rule(session_id=sessions)
    def close_a_minute(self, session_id: str) -> None:
        self.clock += 1
        closed = Changes(
            heads=[head(session_id)],
            minutes=[minute(session_id, self.clock)],
            samples=[sample(self.clock)],
            sinks=SINKS,
        )
        with transaction(self.connection):
            rows.put(self.connection, closed)
        self.expect_new()

    @rule(number=st.integers(0, 2), revision=st.integers(1, 2))
    def bring_in(self, number: int, revision: int) -> None:
        brought = item(f"elsewhere-{number}", revision, device="other")
        wanting = {
            sink
            for sink in SINKS
            if "session" in TAKES[sink]
            and not any(
                (row.sink, row.session_id) == (sink, brought.session_id)
                and row.revision >= revision
                and row.state != State.DEAD
                for row in self.rows.values()
            )
        }
        with transaction(self.connection):
            assert outbox.take_in(self.connection, [brought], SINKS) == bool(wanting)
        before = set(self.rows)
        self.expect_new()
        assert {self.rows[row_id].sink for row_id in set(self.rows) - before} == wanting

    @precondition(lambda self: len(self.under_way) < len(SINKS))
    @rule(which=st.integers(0, 2), most=st.integers(1, 4), most_bytes=st.sampled_from([1, 60, 2**20]))
    def lease(self, which: int, most: int, most_bytes: int) -> None:
        free = [sink for sink in SINKS if sink not in self.under_way]
        sink = free[which % len(free)]
        previewed, lost = outbox.next_batch(self.connection, sink, DEVICE, most, most_bytes)
        assert not lost
        with transaction(self.connection):
            batch = outbox.lease(self.connection, sink, DEVICE, most, most_bytes)
        assert batch == previewed
        assert (batch is not None) == any(
            row.sink == sink and row.state in {State.QUEUED, State.WAITING} for row in self.rows.values()
        )
        if batch is None:
            return
        self.under_way[sink] = batch
        self.is_the_same_as_ever(batch, most)
        for row in batch.rows:
            self.goes("lease", row.row_id)
            self.rows[row.row_id].batch = batch.key

    def is_the_same_as_ever(self, batch: outbox.Batch, most: int) -> None:
        ids = [row.row_id for row in batch.rows]
        bodies = {row.row_id: each.body for row, each in zip(batch.rows, batch.items, strict=True)}
        assert batch.again == (batch.key in self.sent)
        if not batch.again:
            assert len(ids) <= most
            assert all(self.rows[row_id].state == State.QUEUED for row_id in ids)
            self.sent[batch.key] = Sent(ids, bodies)
            return
        first = self.sent[batch.key]
        assert ids == [row_id for row_id in first.rows if row_id not in first.let_go]
        assert bodies == {row_id: first.bodies[row_id] for row_id in ids}

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 2), how=st.sampled_from(["deliver", "deliver", "fail", "halve", "bury"]))
    def settle(self, which: int, how: str) -> None:
        sink = sorted(self.under_way)[which % len(self.under_way)]
        batch = self.under_way.pop(sink)
        with transaction(self.connection):
            if how == "deliver":
                outbox.delivered(self.connection, sink, batch)
            elif how == "bury":
                outbox.buried(self.connection, batch, "no")
            elif how == "halve" and len(batch.rows) > 1:
                outbox.halved(self.connection, sink, DEVICE, batch)
            else:
                outbox.failed(self.connection, batch)
        for row in batch.rows:
            self.goes({"deliver": "deliver", "bury": "refuse"}.get(how, "fail"), row.row_id)  # type: ignore[arg-type]
            if how == "deliver":
                self.forget_older_marks(sink, row)
        if how == "halve" and len(batch.rows) > 1:
            self.follow_the_halves(batch)

    def forget_older_marks(self, sink: SinkName, row: Row) -> None:
        """What was delivered stays as a mark if it is a session, and of that the newest."""
        older = [
            row_id
            for row_id, known in self.rows.items()
            if (known.sink, known.session_id, known.kind, known.state)
            == (sink, row.session_id, "session", State.DELIVERED)
            and known.revision < row.revision
        ]
        for row_id in older if row.kind == "session" else [row.row_id]:
            del self.rows[row_id]

    def follow_the_halves(self, batch: outbox.Batch) -> None:
        middle = len(batch.rows) // 2
        keys = set()
        for part in (batch.rows[:middle], batch.rows[middle:]):
            ids = [row.row_id for row in part]
            (key,) = {
                self.connection.execute("SELECT batch FROM outbox WHERE id = ?", (row_id,)).fetchone()[0]
                for row_id in ids
            }
            assert key != batch.key
            keys.add(key)
            bodies = {row.row_id: each.body for row, each in zip(batch.rows, batch.items, strict=True)}
            self.sent[key] = Sent(ids, {row_id: bodies[row_id] for row_id in ids})
            for row_id in ids:
                self.rows[row_id].batch = key
        assert len(keys) == 2

    @rule()
    def crash(self) -> None:
        """Whoever had leased something is gone; the next one opens the database."""
        self.connection.close()
        self.connection = open_database(Path(self.folder.name) / "db", NOW_MS)
        with transaction(self.connection):
            outbox.release(self.connection)
        for batch in self.under_way.values():
            for row in batch.rows:
                self.goes("crash", row.row_id)
        self.under_way.clear()

    @rule(session_id=sessions)
    def evict(self, session_id: str) -> None:
        """For its age or for space; what is being sent stays what it is."""
        going = self.of(session_id)
        leased_minutes = [
            row_id for row_id in going if self.rows[row_id].state == State.LEASED and self.rows[row_id].kind == "minute"
        ]
        if leased_minutes:
            return  # its minutes are the bodies: see the test of that below
        with transaction(self.connection):
            rows.put(self.connection, Changes(deleted_sessions=[session_id]))
        self.let_go("evict", going)

    @precondition(lambda self: not self.under_way)
    @rule(session_id=sessions)
    def forget(self, session_id: str) -> None:
        """As `xybridd.services.forgetting` does: the sinks are asked first, and nothing is sent meanwhile."""
        going = self.of(session_id)
        holders = {
            row.sink
            for row_id, row in self.rows.items()
            if row_id in going and row.kind == "session" and row.state in {State.DELIVERED, State.WAITING}
        }
        with transaction(self.connection):
            found = outbox.holders(self.connection, session_id)
            outbox.add(self.connection, item(session_id, 0, kind="deletion"), found)
        assert set(found) == holders
        self.expect_new()
        with transaction(self.connection):
            rows.put(self.connection, Changes(forgotten_sessions=[session_id]))
        self.let_go("forget", going)

    @precondition(lambda self: any(row.state == State.DEAD for row in self.rows.values()))
    @rule(most=st.integers(1, 5))
    def replay(self, most: int) -> None:
        chosen = [letter.export_id for letter in outbox.dead(self.connection)][:most]
        with transaction(self.connection):
            assert outbox.replay(self.connection, chosen) == len(chosen)
            assert outbox.replay(self.connection, chosen) == 0
        for row_id in chosen:
            self.goes("replay", row_id)
            del self.rows[row_id]  # it comes again under another number
        self.expect_new("replay")

    @precondition(lambda self: any(row.state == State.DEAD for row in self.rows.values()))
    @rule()
    def drop_a_dead_letter(self) -> None:
        dead = [letter.export_id for letter in outbox.dead(self.connection)][:1]
        with transaction(self.connection):
            outbox.remove(self.connection, dead, "forget")
        self.let_go("forget", dead)

    @rule()
    def evict_what_hangs_on_nothing(self) -> None:
        with transaction(self.connection):
            chosen = retention.to_evict(self.connection, 1, 1)
            retention.evict(self.connection, chosen)
        assert not chosen.sessions  # those that are here are open
        gone = [
            row_id
            for row_id in self.rows
            if row_id in chosen.rows
            or (self.rows[row_id].kind == "sample" and self.rows[row_id].session_id == "" and not self.there(row_id))
        ]
        assert all(self.rows[row_id].state in {State.QUEUED, State.DEAD} for row_id in gone)
        self.let_go("evict", gone)

    def there(self, row_id: int) -> bool:
        return self.connection.execute("SELECT 1 FROM outbox WHERE id = ?", (row_id,)).fetchone() is not None

    # What holds

    @invariant()
    def the_database_is_what_the_table_says(self) -> None:
        found = self.connection.execute("SELECT id, sink, kind, session_id, revision, state, batch FROM outbox")
        assert {
            row_id: Known(sink, kind, session_id, revision, State(state), batch)
            for row_id, sink, kind, session_id, revision, state, batch in found
        } == self.rows

    @invariant()
    def each_sink_balances(self) -> None:
        tallies = outbox.tallies(self.connection)
        for sink in SINKS:
            tally = tallies.get(sink, Tally())
            assert tally.balances(), msgspec.to_builtins(tally)
            assert tally.made == self.made[sink]
            states = Counter(row.state for row in self.rows.values() if row.sink == sink)
            assert tally.queued == sum(states[state] for state in UNSENT)
            assert tally.dead == states[State.DEAD]
            for state in (State.DELIVERED, State.SUPERSEDED, State.EVICTED, State.FORGOTTEN):
                assert getattr(tally, state.value) == self.ended[sink, state]

    @invariant()
    def each_that_waits_has_a_body_and_no_body_waits_for_nothing(self) -> None:
        wanted = {
            row[0]
            for row in self.connection.execute(
                "SELECT item FROM outbox WHERE kind IN ('session', 'deletion') AND state != 'delivered'"
            )
        }
        assert {row[0] for row in self.connection.execute("SELECT id FROM export")} == wanted

    @invariant()
    def it_knows_whether_there_is_anything_to_send(self) -> None:
        for sink in SINKS:
            unsent = any(row.sink == sink and row.state in UNSENT for row in self.rows.values())
            assert outbox.has_unsent(self.connection, sink) == unsent


def test_whatever_happens_it_goes_along_the_table_and_balances() -> None:
    run_state_machine_as_test(OutboxMachine, settings=settings(max_examples=120, stateful_step_count=40, deadline=None))


def test_every_event_of_the_table_happens() -> None:
    """One walk past all of them, so that none is left to chance."""
    machine = OutboxMachine()
    xybrid = SINKS.index("xybrid")

    def steps() -> Iterator[None]:
        for session_id in ("a", "b", "b", "c", "d"):
            yield machine.end_or_snapshot(session_id)
        yield machine.lease(xybrid, 4, 2**20)
        yield machine.crash()
        yield machine.forget("c")
        for how in ("halve", "bury"):
            yield machine.lease(xybrid, 4, 2**20)
            yield machine.settle(0, how)
        yield machine.replay(5)
        yield machine.lease(xybrid, 4, 2**20)
        yield machine.settle(0, "deliver")
        yield machine.evict("b")

    for _ in steps():
        machine.the_database_is_what_the_table_says()
        machine.each_sink_balances()
        machine.each_that_waits_has_a_body_and_no_body_waits_for_nothing()
        machine.it_knows_whether_there_is_anything_to_send()
    machine.teardown()
    assert machine.happened == set(get_args(Event))


# Each on its own


def queue(connection: sqlite3.Connection, *session_ids: str, sinks: tuple[SinkName, ...] = ("xybrid",)) -> None:
    with transaction(connection):
        for session_id in session_ids:
            outbox.add(connection, item(session_id), sinks)


def take(connection: sqlite3.Connection, sink: SinkName = "xybrid", most: int = 50) -> outbox.Batch:
    batch = outbox.lease(connection, sink, DEVICE, most, 2**20)
    assert batch is not None
    return batch


def test_the_rest_of_a_batch_keeps_its_key_when_a_row_of_it_is_forgotten(connection: sqlite3.Connection) -> None:
    """It may have arrived whole: under another key the rest would be there twice."""
    queue(connection, "a", "b", "c")
    first = take(connection)
    outbox.failed(connection, first)
    rows.put(connection, Changes(forgotten_sessions=["b"]))
    again = take(connection)
    assert (again.key, again.again) == (first.key, True)
    assert [each.session_id for each in again.items] == ["a", "c"]
    assert outbox.tallies(connection)["xybrid"].balances()


def test_a_wish_to_delete_outlives_what_it_is_about(connection: sqlite3.Connection) -> None:
    queue(connection, "a")
    outbox.delivered(connection, "xybrid", take(connection))
    outbox.add(connection, item("a", 0, kind="deletion"), outbox.holders(connection, "a"))
    rows.put(connection, Changes(forgotten_sessions=["a"]))
    assert [(each.kind, each.session_id) for each in take(connection).items] == [("deletion", "a")]


def test_all_that_was_ever_sent_can_be_asked_back(connection: sqlite3.Connection) -> None:
    """Also when nothing of it is here any more: sessions go after a month, and with them the marks."""
    queue(connection, "a", sinks=("xybrid", "file"))
    assert outbox.holders(connection, None) == []
    outbox.delivered(connection, "xybrid", take(connection))
    rows.put(connection, Changes(deleted_sessions=["a"]))
    assert outbox.holders(connection, "a") == []
    assert outbox.holders(connection, None) == ["xybrid"]


def test_what_is_being_sent_stays_what_it_is(connection: sqlite3.Connection) -> None:
    queue(connection, "a", "b")
    batch = take(connection)
    rows.put(connection, Changes(deleted_sessions=["a"]))
    outbox.failed(connection, batch)
    assert [each.body for each in take(connection).items] == [each.body for each in batch.items]


def test_a_minute_whose_session_went_while_it_was_sent_is_evicted_when_it_failed(
    connection: sqlite3.Connection,
) -> None:
    for number, session_id in enumerate(("s1", "s2")):
        rows.put(connection, changes_of(number + 1, ended_at_ms=NOW_MS))
        rows.put(connection, Changes(minutes=[minute(session_id, 1)], sinks=("otlp",)))
    batch = take(connection, "otlp")
    rows.put(connection, Changes(deleted_sessions=["s1"]))
    outbox.failed(connection, batch)
    again = take(connection, "otlp")
    assert (again.key, [each.session_id for each in again.items]) == (batch.key, ["s2"])
    tally = outbox.tallies(connection)["otlp"]
    assert (tally.evicted, tally.queued) == (1, 1)
    assert tally.balances()


def test_one_body_serves_all_sinks_and_goes_with_the_last(connection: sqlite3.Connection) -> None:
    queue(connection, "a", sinks=("xybrid", "file"))

    def bodies() -> int:
        return int(connection.execute("SELECT count(*) FROM export").fetchone()[0])

    assert bodies() == 1
    outbox.delivered(connection, "xybrid", take(connection))
    assert bodies() == 1
    outbox.delivered(connection, "file", take(connection, "file"))
    assert bodies() == 0
    assert outbox.tallies(connection)["file"].delivered == 1


def test_a_mark_that_goes_takes_no_other_body_with_it(connection: sqlite3.Connection) -> None:
    """The number of a body that is gone comes again."""
    queue(connection, "a")
    outbox.delivered(connection, "xybrid", take(connection))
    queue(connection, "b")
    rows.put(connection, Changes(deleted_sessions=["a"]))
    assert [each.session_id for each in take(connection).items] == ["b"]


def test_after_damage_what_lost_its_body_is_evicted_and_the_rest_goes_on(connection: sqlite3.Connection) -> None:
    queue(connection, "a", "b", "c", "d")
    first = take(connection, most=2)
    connection.execute("DELETE FROM export WHERE session_id IN ('a', 'c')")
    connection.execute("DELETE FROM outbox WHERE session_id = 'd'")
    outbox.balance(connection)
    tally = outbox.tallies(connection)["xybrid"]
    assert (tally.made, tally.queued, tally.evicted) == (4, 1, 3)
    assert tally.balances()
    again = take(connection)
    assert (again.key, [each.session_id for each in again.items]) == (first.key, ["b"])


def test_a_body_that_damage_took_is_passed_over_and_counted(connection: sqlite3.Connection) -> None:
    queue(connection, "a", "b", "c")
    connection.execute("UPDATE export SET body = x'00' WHERE session_id = 'b'")
    connection.execute("DELETE FROM export WHERE session_id = 'a'")
    assert [each.session_id for each in take(connection).items] == ["c"]
    connection.execute("DELETE FROM export")
    outbox.release(connection)
    assert outbox.lease(connection, "xybrid", DEVICE, 50, 2**20) is None
    tally = outbox.tallies(connection)["xybrid"]
    assert (tally.queued, tally.evicted) == (0, 3)


def plans(connection: sqlite3.Connection, act: Any) -> list[str]:
    """How SQLite goes about each statement that is carried out meanwhile."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    try:
        act()
    finally:
        connection.set_trace_callback(None)
    found = []
    for statement in statements:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            found += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert found
    return found


def test_what_is_asked_often_looks_at_few_rows(connection: sqlite3.Connection) -> None:
    """A queue of ten thousand must not make each request look at all of it."""
    queue(connection, *(f"s{number}" for number in range(300)))
    batch = take(connection, most=3)
    outbox.failed(connection, batch)
    acts: list[Any] = [
        lambda: outbox.has_unsent(connection, "xybrid"),
        lambda: outbox.next_batch(connection, "xybrid", DEVICE, 50, 2**20),
        lambda: outbox.add(connection, item("s7", 2), ("xybrid",)),
        lambda: outbox.remove(connection, outbox.of_session(connection, "s8"), "evict"),
        lambda: outbox.known(connection, item("s9"), "xybrid"),
        lambda: outbox.holders(connection, "s9"),
        lambda: outbox.delivered(connection, "xybrid", take(connection)),
    ]
    for act in acts:
        for step in plans(connection, act):
            assert not step.startswith("SCAN"), step
