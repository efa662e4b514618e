from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.core import given as some
from tests.core.given import NOW_MS, call, chunks, error, session, shown
from xybridd.core.category import ErrorCategory
from xybridd.core.changes import Changes
from xybridd.core.registry import Producer
from xybridd.core.session import OTHER, Session, SessionLimits
from xybridd.core.stats import LARGEST_COUNTER
from xybridd.protocol.records import ErrorRecord, InferenceRecord
from xybridd.storage import rows
from xybridd.storage.database import migrations

if TYPE_CHECKING:
    from xybridd.protocol.records import Record

SMALL = SessionLimits(max_models=2, max_errors=2)


def entries(of: Session) -> dict[str, tuple[int, int, int]]:
    """Calls, total latency and errors by key."""
    return {key: (entry.call_count, entry.total_latency_ms, entry.error_count) for key, entry in of.models.items()}


def messages(of: Session) -> dict[str, int]:
    return {found.message: found.count for found in of.errors}


def half_up(latency_ms: float) -> int:
    whole = int(latency_ms)
    return whole + (latency_ms - whole >= 0.5)


# What the reference does


def test_averages_are_integer_quotients() -> None:
    made = session(call(latency_ms=1), call(latency_ms=2), call("n", latency_ms=2))
    assert (made.total_latency_ms, made.avg_latency_ms) == (5, 1)
    assert made.models["m@1"].avg_latency_ms == 1


def test_an_empty_session_averages_zero() -> None:
    assert session().avg_latency_ms == 0
    assert session(error("x", "m", "1")).models["m@1"].avg_latency_ms == 0


def test_models_used_lists_ids_once_in_the_order_of_first_use() -> None:
    made = session(call("b", "1"), call("a", "1"), call("b", "2"), error("x", "c", "1"))
    assert made.head.models_used == ["b", "a"]
    assert list(made.models) == ["b@1", "a@1", "b@2", "c@1"]


def test_a_model_that_only_failed_is_used_when_it_is_called() -> None:
    made = session(error("x", "m", "1"), call("m", "1"))
    assert made.head.models_used == ["m"]


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [
        (("a@b", "c"), ("a", "b@c"), ["a@b", "a"]),
        (("a", "b@c"), ("a@b", "c"), ["a", "a@b"]),
        (("other", "@1"), ("other@", "1"), ["other", "other@"]),
        (("other@", "1"), ("other", "@1"), ["other@", "other"]),
    ],
)
def test_equal_keys_are_one_entry_named_as_the_first(
    first: tuple[str, str], second: tuple[str, str], used: list[str]
) -> None:
    made = session(call(*first, 1), call(*second, 2))
    (entry,) = made.models.values()
    assert (entry.model_id, entry.version, entry.call_count, entry.total_latency_ms) == (*first, 2, 3)
    assert made.head.models_used == used


def test_an_error_that_names_the_second_spelling_counts_on_the_shared_entry() -> None:
    made = session(call("a@b", "c"), error("x", "a", "b@c"), error("x", "a"))
    assert entries(made) == {"a@b@c": (1, 10, 1)}


def test_equal_errors_are_one_with_the_first_model() -> None:
    made = session(error("boom", None), error("boom", "m"), error("boom", "n"))
    (found,) = made.errors
    assert (found.count, found.model_id) == (3, None)


def test_category_and_message_tell_errors_apart() -> None:
    made = session(error("boom"), error("boom", category="Network"), error("boom", category="network"), error("doom"))
    assert [(found.category, found.message, found.count) for found in made.errors] == [
        (ErrorCategory.MEMORY, "boom", 1),
        (ErrorCategory.NETWORK, "boom", 2),
        (ErrorCategory.MEMORY, "doom", 1),
    ]


# What it leaves to chance


def test_an_error_with_a_version_makes_its_entry() -> None:
    made = session(call("m", "1"), error("x", "m", "2"), error("x", "m", "1"))
    assert entries(made) == {"m@1": (1, 10, 1), "m@2": (0, 0, 1)}


def test_an_error_without_a_version_goes_to_the_entry_called_last() -> None:
    made = session(call("m", "1"), call("m", "2"), call("m", "1"), error("x", "m"), call("m", "2"), error("x", "m"))
    assert entries(made) == {"m@1": (2, 20, 1), "m@2": (2, 20, 1)}


def test_an_error_of_an_unknown_model_stands_in_the_summary_alone() -> None:
    made = session(call("m"), error("x", "n"))
    assert entries(made) == {"m@1": (1, 10, 0)}
    assert made.error_count == 1


def test_the_entry_called_last_is_known_after_a_restart() -> None:
    before = session(call("m", "1"), call("m", "2"), call("m", "1"))
    after = restored(before)
    after.apply([error("x", "m")], NOW_MS)
    assert entries(after)["m@1"] == (2, 20, 1)


def test_models_past_the_limit_are_counted_as_other() -> None:
    made = session(
        call("a", "1", 1), call("b", "1", 2), call("c", "1", 3), call("d", "2", 4), call("a", "1", 5), limits=SMALL
    )
    assert entries(made) == {"a@1": (2, 6, 0), "b@1": (1, 2, 0), "other@": (2, 7, 0)}
    assert made.head.models_used == ["a", "b", OTHER]
    assert (made.total_inferences, made.total_latency_ms) == (5, 15)


def test_an_error_past_the_models_limit_counts_on_other() -> None:
    made = session(call("a"), call("b"), error("x", "c", "1"), limits=SMALL)
    assert entries(made)["other@"] == (0, 0, 1)


def test_errors_past_the_limit_are_counted_as_other() -> None:
    made = session(*(error(text) for text in ("a", "b", "c", "d", "a", "c")), limits=SMALL)
    assert messages(made) == {"a": 2, "b": 1, OTHER: 3}
    assert made.error_count == 6
    assert made.errors[-1].category is ErrorCategory.UNKNOWN


def test_limits_hold_after_a_restart() -> None:
    before = session(call("a"), call("b"), call("c"), error("x"), error("y"), error("z"), limits=SMALL)
    after = restored(before)
    after.apply([call("d"), error("w")], NOW_MS)
    assert entries(after)["other@"] == (2, 20, 0)
    assert messages(after) == {"x": 1, "y": 1, OTHER: 2}


@pytest.mark.parametrize(
    ("latency_ms", "counted"),
    [
        (0.0, 0),
        (0.49999999999999994, 0),
        (0.5, 1),
        (1.5, 2),
        (2.5, 3),
        (2.4999999999999996, 2),
        (float(2**52 + 1), 2**52 + 1),
        (float(2**53), 2**53),
        (2**51 + 0.5, 2**51 + 1),
    ],
)
def test_a_fraction_is_rounded_half_up(latency_ms: float, counted: int) -> None:
    made = session(call(latency_ms=latency_ms))
    assert made.total_latency_ms == counted
    assert made.models["m@1"].latency.max == latency_ms


def test_sums_stop_at_what_the_database_holds() -> None:
    made = session(*[call(latency_ms=2.0**53)] * 1025)
    assert made.total_latency_ms == LARGEST_COUNTER
    assert made.models["m@1"].total_latency_ms == LARGEST_COUNTER


def test_sums_stop_there_after_a_restart_too() -> None:
    before = session(*[call(model, latency_ms=2.0**53) for model in ("a", "b", "c") for _ in range(1025)])
    after = restored(before)
    assert shown(after) == shown(before)


# Times


def test_a_record_without_a_time_is_of_now() -> None:
    made = session()
    made.apply([call(), error("x"), call(timestamp_ms=NOW_MS - 5), error("x", timestamp_ms=NOW_MS - 5)], NOW_MS)
    assert made.models["m@1"].last_called_ms == NOW_MS
    (found,) = made.errors
    assert (found.first_seen_ms, found.last_seen_ms) == (NOW_MS - 5, NOW_MS)


def test_it_was_heard_last_at_its_newest_record() -> None:
    made = session()
    assert made.last_heard_at_ms() == made.head.started_at_ms
    made.apply([call(timestamp_ms=NOW_MS + 7), error("x", timestamp_ms=NOW_MS + 3)], NOW_MS)
    assert made.last_heard_at_ms() == NOW_MS + 7


def test_it_never_ends_before_it_started() -> None:
    made = session()
    made.end("client_lost", NOW_MS - 1)
    assert made.head.ended_at_ms == NOW_MS
    assert not made.active


def test_a_late_batch_is_a_new_revision() -> None:
    made = session(call())
    assert made.head.revision == 0
    made.end("idle", NOW_MS)
    assert made.head.revision == 1
    made.apply([call()], NOW_MS)
    assert (made.head.revision, made.head.ended_at_ms, made.total_inferences) == (2, NOW_MS, 2)


# Properties


def empty_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for _, sql in migrations():
        connection.executescript(sql)
    return connection


def restored(before: Session) -> Session:
    """Written to a database by its changes and read again."""
    with closing(empty_database()) as connection:
        changes = Changes()
        before.change_all()
        before.take_changes(changes)
        rows.put(connection, changes)
        return read(connection, before._limits)


def read(connection: sqlite3.Connection, limits: SessionLimits) -> Session:
    stored = rows.get_session(connection, "s")
    assert stored is not None
    return Session.restored(stored.head, limits, stored.models, stored.errors)


@given(some.records)
def test_nothing_is_lost_from_the_totals(records: list[Record]) -> None:
    for limits in (SessionLimits(), SMALL, SessionLimits(max_models=1, max_errors=1)):
        made = session(*records, limits=limits)
        calls = [record for record in records if isinstance(record, InferenceRecord)]
        assert made.total_inferences == len(calls) == sum(entry.call_count for entry in made.models.values())
        assert made.error_count == len(records) - len(calls) == sum(found.count for found in made.errors)
        assert made.record_count == len(records)
        assert made.total_latency_ms == sum(half_up(one.latency_ms) for one in calls)
        assert made.total_latency_ms == sum(entry.total_latency_ms for entry in made.models.values())
        assert all(entry.latency.count == entry.call_count for entry in made.models.values())
        assert made.avg_latency_ms == (made.total_latency_ms // len(calls) if calls else 0)
        assert len(made.models) <= limits.max_models + 1
        assert len(made.errors) <= limits.max_errors + 1


@given(some.records)
def test_every_versioned_error_of_a_model_counts_on_its_key(records: list[Record]) -> None:
    made = session(*records)
    said = [one for one in records if isinstance(one, ErrorRecord) and one.model_id and one.version is not None]
    for key, entry in made.models.items():
        assert entry.error_count >= sum(f"{one.model_id}@{one.version}" == key for one in said)


@given(some.records, some.cuts)
def test_batches_cut_anywhere_are_one(records: list[Record], cuts: list[int]) -> None:
    parts = session()
    for part in chunks(records, cuts):
        parts.apply(part, NOW_MS)
    assert shown(parts) == shown(session(*records))


@settings(max_examples=60)
@given(some.records, some.cuts)
def test_what_is_written_is_the_same_session_again(records: list[Record], cuts: list[int]) -> None:
    live = session(limits=SMALL)
    with closing(empty_database()) as connection:
        for part in [[], *chunks(records, cuts)]:
            live.apply(part, NOW_MS)
            changes = Changes()
            live.take_changes(changes)
            rows.put(connection, changes)
            rows.put(connection, changes)  # a commit that failed half way is written again
        live.end("idle", NOW_MS)
        changes = Changes()
        live.take_changes(changes)
        rows.put(connection, changes)
        again = read(connection, SMALL)
    assert shown(again) == shown(live)
    assert again.record_count == live.record_count


@settings(max_examples=60)
@given(some.records, some.records)
def test_a_session_goes_on_after_a_restart(before: list[Record], later: list[Record]) -> None:
    through = session(*before, *later)
    resumed = restored(session(*before))
    resumed.apply(later, NOW_MS)
    assert shown(resumed) == shown(through)


@given(some.records, some.cuts)
def test_repeated_batches_count_once(records: list[Record], cuts: list[int]) -> None:
    producer, made = Producer(1, "p", "app"), session()
    batches = list(enumerate(chunks(records, cuts), start=1))
    for seq, part in [*batches, *batches, *reversed(batches)]:
        if producer.gap_before(seq) is not None:
            made.apply(part, NOW_MS)
            producer.apply(seq, NOW_MS)
    assert shown(made) == shown(session(*records))


def test_nothing_is_written_twice_without_need() -> None:
    made, first, second, third = session(call("a"), call("b")), Changes(), Changes(), Changes()
    made.take_changes(first)
    made.take_changes(second)
    made.apply([call("b")], NOW_MS)
    made.take_changes(third)
    assert (len(first.heads), sorted(image.model_id for image in first.models)) == (1, ["a", "b"])
    assert second == Changes()
    assert (len(third.heads), [image.model_id for image in third.models]) == (0, ["b"])


def test_what_was_taken_does_not_change_any_more() -> None:
    made, taken = session(call("a")), Changes()
    made.take_changes(taken)
    made.apply([call("a"), call("b")], NOW_MS)
    assert taken.heads[0].models_used == ["a"]
    assert [image.call_count for image in taken.models] == [1]


def test_gaps_in_positions_are_not_filled_after_a_salvage() -> None:
    taken = Changes()
    session(call("a"), call("b"), call("c")).take_changes(taken)
    kept = [image for image in taken.models if image.model_id != "b"]
    made = Session.restored(taken.heads[0], SessionLimits(), kept, [])
    made.apply([call("d")], NOW_MS)
    assert {entry.model_id: entry.position for entry in made.models.values()} == {"a": 0, "c": 2, "d": 3}
