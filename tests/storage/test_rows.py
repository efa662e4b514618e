from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.given import NOW_MS, call, error, session
from tests.storage.given import RECORDS_EACH, changes_of
from xybridd.core.capabilities import HardwareCapabilities
from xybridd.core.changes import Changes, ProducerImage
from xybridd.core.histogram import Histogram
from xybridd.protocol.records import InferenceStats
from xybridd.storage import retention, rows
from xybridd.storage.database import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for _, sql in migrations():
            made.executescript(sql)
        yield made


def everything(connection: sqlite3.Connection) -> list[list[tuple[Any, ...]]]:
    return [
        connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()  # noqa: S608
        for table in ("session", "model", "error", "producer", "ledger")
    ]


def put_sessions(connection: sqlite3.Connection, *heads: dict[str, Any]) -> None:
    for head in heads:
        changes = Changes()
        ended_at_ms = head.pop("ended", None)
        made = session(call("m", "1", 5), call("m", "1", 6), error("boom", "m", "1"), **head)
        if ended_at_ms is not None:
            made.end("ended", ended_at_ms)
        made.take_changes(changes)
        rows.put(connection, changes)


def test_a_head_comes_back_field_for_field(connection: sqlite3.Connection) -> None:
    made = session(
        app_version="1",
        sdk_version="2",
        client_id="c",
        implicit=True,
        ended_at_ms=NOW_MS + 1,
        end_reason="rollover",
        successor="next",
        revision=3,
        labels={"a": "ü"},
        models_used=["m", "n"],
        hardware=HardwareCapabilities(has_gpu=True),
        details={"gpu": [{"name": None}]},
    )
    changes = Changes()
    made.take_changes(changes)
    rows.put(connection, changes)
    stored = rows.get_session(connection, "s")
    assert stored is not None
    assert stored.head == made.head


def test_writing_again_changes_nothing(connection: sqlite3.Connection) -> None:
    changes = changes_of(1)
    changes.producers = [ProducerImage(1, "c", "app", 7, NOW_MS)]
    changes.ledger = {"received": 10, "counted": 10}
    rows.put(connection, changes)
    before = everything(connection)
    rows.put(connection, changes)
    assert everything(connection) == before
    assert rows.get_producer(connection, 1, "c") == changes.producers[0]
    assert rows.get_producer(connection, 2, "c") is None
    assert rows.get_ledger(connection) == changes.ledger


def test_deleting_takes_all_of_a_session_and_nothing_else(connection: sqlite3.Connection) -> None:
    for number in (1, 2):
        rows.put(connection, changes_of(number))
    rows.put(connection, Changes(deleted_sessions=["s1", "never"]))
    assert rows.get_session(connection, "s1") is None
    assert rows.records_in_sessions(connection) == rows.record_count(connection, "s2") == RECORDS_EACH
    assert rows.record_count(connection, "s1") == 0


def test_a_session_that_is_not_there_is_none(connection: sqlite3.Connection) -> None:
    assert rows.get_session(connection, "s") is None
    assert rows.get_last_implicit(connection, 1000, "app") is None


def test_open_sessions_are_those_that_have_not_ended(connection: sqlite3.Connection) -> None:
    put_sessions(connection, {"session_id": "a"}, {"session_id": "b", "ended": NOW_MS}, {"session_id": "c"})
    assert [stored.head.session_id for stored in rows.get_open_sessions(connection)] == ["a", "c"]


def test_the_last_implicit_one_is_of_that_user_and_app(connection: sqlite3.Connection) -> None:
    put_sessions(
        connection,
        {"session_id": "a", "implicit": True},
        {"session_id": "b", "implicit": True, "ended": NOW_MS},
        {"session_id": "c"},
        {"session_id": "d", "implicit": True, "uid": 7},
        {"session_id": "e", "implicit": True, "app": "else"},
    )
    assert rows.get_last_implicit(connection, 1000, "app") == "b"
    assert rows.get_last_implicit(connection, 7, "app") == "d"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (rows.SessionFilter(), "edcba"),
        (rows.SessionFilter(uid=7), "c"),
        (rows.SessionFilter(active=True), "eca"),
        (rows.SessionFilter(active=False), "db"),
        (rows.SessionFilter(app="else"), "d"),
        (rows.SessionFilter(since_ms=NOW_MS + 60), "edca"),
        (rows.SessionFilter(limit=2), "ed"),
        (rows.SessionFilter(uid=1000, active=False, app="app"), "b"),
    ],
)
def test_listing(connection: sqlite3.Connection, wanted: rows.SessionFilter, found: str) -> None:
    put_sessions(
        connection,
        {"session_id": "c", "started_at_ms": NOW_MS + 3, "uid": 7},
        {"session_id": "a", "started_at_ms": NOW_MS + 1},
        {"session_id": "b", "started_at_ms": NOW_MS + 2, "ended": NOW_MS + 50},
        {"session_id": "d", "started_at_ms": NOW_MS + 4, "app": "else", "ended": NOW_MS + 70},
        {"session_id": "e", "started_at_ms": NOW_MS + 5},
    )
    listed = rows.list_sessions(connection, wanted)
    assert "".join(summary.session_id for summary in listed) == found
    for summary in listed:
        assert (summary.total_inferences, summary.total_latency_ms, summary.avg_latency_ms) == (2, 11, 5)
        assert (summary.error_count, summary.models_used) == (1, ["m"])


def test_expired_are_those_that_ended_first(connection: sqlite3.Connection) -> None:
    put_sessions(
        connection,
        {"session_id": "a", "ended": NOW_MS + 30},
        {"session_id": "b", "ended": NOW_MS + 10},
        {"session_id": "c"},
        {"session_id": "d", "ended": NOW_MS + 20},
    )
    assert list(retention.expired(connection, NOW_MS + 30, 10)) == ["b", "d"]
    assert list(retention.expired(connection, NOW_MS + 31, 2)) == ["b", "d"]
    assert list(retention.to_evict(connection, 1, 10).sessions) == ["b"]
    assert list(retention.to_evict(connection, 2**40, 10).sessions) == ["b", "d", "a"]
    assert list(retention.to_evict(connection, 2**40, 2).sessions) == ["b", "d"]
    assert not retention.to_evict(connection, 0, 10)


# What a flipped bit leaves


@pytest.mark.parametrize(
    ("change", "part", "left"),
    [
        ("UPDATE session SET labels = '{'", "labels", {}),
        ("UPDATE session SET models_used = '[1]'", "models_used", []),
        ("UPDATE session SET details = 'x'", "details", {}),
        ("UPDATE session SET hardware = '{\"battery_level\": 300}'", "hardware", None),
    ],
)
def test_a_column_that_cannot_be_read_counts_as_empty(
    connection: sqlite3.Connection, change: str, part: str, left: Any
) -> None:
    put_sessions(
        connection, {"labels": {"a": "b"}, "details": {"a": 1}, "hardware": HardwareCapabilities(battery_level=50)}
    )
    connection.execute(change)
    stored = rows.get_session(connection, "s")
    assert stored is not None
    assert getattr(stored.head, part) == left
    assert stored.models[0].call_count == 2
    assert len(rows.list_sessions(connection, rows.SessionFilter())) == 1


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xc1", b"\x96" * 20])
def test_a_histogram_that_cannot_be_read_costs_its_own(connection: sqlite3.Connection, junk: bytes) -> None:
    changes = Changes()
    session(call(stats=InferenceStats(input_tokens=3))).take_changes(changes)
    rows.put(connection, changes)
    connection.execute("UPDATE model SET latency = ?, stats = ?", (junk, junk))
    stored = rows.get_session(connection, "s")
    assert stored is not None
    (model,) = stored.models
    assert (model.call_count, model.total_latency_ms) == (1, 10)
    assert Histogram.from_bytes(model.latency).count == 0
    assert model.stats == b""


def test_a_category_that_is_none_is_unknown(connection: sqlite3.Connection) -> None:
    put_sessions(connection, {})
    connection.execute("UPDATE error SET category = 'Nonsense'")
    stored = rows.get_session(connection, "s")
    assert stored is not None
    assert [found.category for found in stored.errors] == ["Unknown"]


def test_a_user_that_floods_the_disk_pushes_out_its_own(connection: sqlite3.Connection) -> None:
    for number, uid in enumerate([1, 2, 2, 2, 1]):
        changes = Changes()
        made = session(session_id=f"s{number}", uid=uid)
        made.end("ended", NOW_MS + number)
        made.take_changes(changes)
        rows.put(connection, changes)
    assert list(retention.to_evict(connection, 2**40, 10).sessions) == ["s1", "s2", "s3", "s0", "s4"]
