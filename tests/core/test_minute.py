from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.core import given as some
from tests.core.given import NOW_MS, call, chunks, error, session
from tests.core.test_session import SMALL, empty_database
from xybridd.core.capabilities import Confidence, DeviceState, HardwareCapabilities, Reading
from xybridd.core.changes import Changes
from xybridd.core.conditions import Conditions, Surroundings
from xybridd.core.histogram import Histogram
from xybridd.core.minute import Minute, sample_of
from xybridd.core.session import Session, SessionLimits
from xybridd.core.stats import StatsTotals
from xybridd.protocol.records import InferenceStats
from xybridd.storage import minutes, rows

if TYPE_CHECKING:
    from xybridd.protocol.records import Record

HOT = Surroundings("hot", "battery")


def closed(of: Session, now_ms: int = NOW_MS) -> list[Minute]:
    changes = Changes()
    of.close_minute(now_ms)
    of.take_changes(changes)
    return changes.minutes


def together(parts: list[Minute]) -> Minute:
    total = Minute("s", NOW_MS, NOW_MS)
    for part in parts:
        total.merge(part)
    return total


def adds_up(parts: list[Minute], whole: Session) -> None:
    """The minutes of a session are the session: calls, buckets, sums, conditions, stats, errors."""
    total = together(parts)
    models = {(each.model_id, each.version): each for each in total.models}
    touched = {entry for entry in whole.models.values() if entry.call_count or entry.error_count}
    assert set(models) == {(entry.model_id, entry.version) for entry in touched}
    for entry in touched:
        model = models[entry.model_id, entry.version]
        assert (model.calls, model.errors) == (entry.call_count, entry.error_count)
        same(Histogram.from_bytes(model.latency), entry.latency)
        conditions = Conditions.from_bytes(model.conditions)
        assert conditions.latencies.keys() == entry.conditions.latencies.keys()
        for condition, latencies in conditions.latencies.items():
            same(latencies, entry.conditions.latencies[condition])
        stats = StatsTotals.from_bytes(model.stats)
        assert stats.names == entry.stats.names
        assert {name: rate.count for name, rate in stats.rates.items()} == {
            name: rate.count for name, rate in entry.stats.rates.items()
        }
        assert {name: (amount.count, amount.total) for name, amount in stats.amounts.items()} == {
            name: (amount.count, amount.total) for name, amount in entry.stats.amounts.items()
        }
        same(stats.time_to_first_token_ms, entry.stats.time_to_first_token_ms)
    by_category: dict[str, int] = {}
    for each in total.errors:
        by_category[each.category] = by_category.get(each.category, 0) + each.count
    expected: dict[str, int] = {}
    for found in whole.errors:
        expected[found.category.value] = expected.get(found.category.value, 0) + found.count
    assert by_category == expected
    assert total.calls == whole.total_inferences
    assert total.error_count == whole.error_count


def same(found: Histogram, expected: Histogram) -> None:
    assert (found.count, found.zero_count, found.buckets) == (expected.count, expected.zero_count, expected.buckets)
    assert found.sum == pytest.approx(expected.sum, rel=1e-6, abs=1e-3 + expected.sum * 1e-9)
    # The extremes of a part are known to within a bucket, so those of the whole may be narrower, never wider.
    assert expected.min <= found.min <= found.max <= expected.max or found.count == 0


@settings(max_examples=80)
@given(some.records, some.cuts)
def test_minutes_cut_anywhere_add_up_to_the_session(records: list[Record], cuts: list[int]) -> None:
    made, parts = session(limits=SMALL), list[Minute]()
    for number, part in enumerate(chunks(records, cuts)):
        made.apply(part, NOW_MS + number, HOT if number % 2 else Surroundings("warm", "ac"))
        parts += closed(made, NOW_MS + number)
    adds_up(parts, made)


@settings(max_examples=60)
@given(some.records, some.records, some.records)
def test_a_crash_loses_no_minute(before: list[Record], unclosed: list[Record], later: list[Record]) -> None:
    """Written but not closed when the process died: the next one takes the difference again."""
    made = session(limits=SMALL)
    with closing(empty_database()) as connection:
        for part, close in ((before, True), (unclosed, False)):
            made.apply(part, NOW_MS)
            if close:
                made.close_minute(NOW_MS)
            changes = Changes()
            made.take_changes(changes)
            rows.put(connection, changes)
        (stored,) = rows.get_open_sessions(connection)
        again = Session.restored(stored.head, SMALL, stored.models, stored.errors, stored.closed)
        again.apply(later, NOW_MS + 1)
        again.close_minute(NOW_MS + 2)
        changes = Changes()
        again.take_changes(changes)
        rows.put(connection, changes)
        assert minutes.closed_of(connection, "s", NOW_MS) is None
        adds_up(minutes.of_session(connection, "s"), again)


@settings(max_examples=40)
@given(some.records, some.cuts)
def test_hours_add_up_as_well(records: list[Record], cuts: list[int]) -> None:
    made = session(limits=SMALL)
    with closing(empty_database()) as connection:
        for number, part in enumerate(chunks(records, cuts)):
            at_ms = NOW_MS + number * 25 * 60_000
            made.apply(part, at_ms)
            made.close_minute(at_ms + 60_000)
            changes = Changes()
            made.take_changes(changes)
            rows.put(connection, changes)
        before = minutes.of_session(connection, "s")
        gone = minutes.coarsen(connection, NOW_MS + 10**10)
        after = minutes.of_session(connection, "s")
        assert len(before) - len(after) == gone
        hours = [each.started_at_ms // 3_600_000 for each in after]
        assert len(hours) == len(set(hours))
        adds_up(after, made)
        assert minutes.coarsen(connection, NOW_MS + 10**10) == 0


def test_a_minute_says_when_it_truly_was() -> None:
    made = session()
    made.apply([call()], NOW_MS + 5)
    made.apply([call()], NOW_MS + 70)
    (minute,) = closed(made, NOW_MS + 100)
    assert (minute.started_at_ms, minute.ended_at_ms) == (NOW_MS + 5, NOW_MS + 100)
    assert closed(made, NOW_MS + 200) == []


def test_a_clock_that_was_set_back_makes_no_minute_that_ends_before_it_began() -> None:
    made = session()
    made.apply([call()], NOW_MS)
    (minute,) = closed(made, NOW_MS - 10**9)
    assert minute.ended_at_ms == minute.started_at_ms


def test_a_session_that_ended_has_no_open_minute() -> None:
    made, changes = session(call()), Changes()
    made.end("client_lost", NOW_MS + 5)
    made.take_changes(changes)
    (minute,) = changes.minutes
    assert (minute.calls, minute.ended_at_ms) == (1, NOW_MS)
    late = Changes()
    made.apply([call(), error("late")], NOW_MS + 900)
    made.take_changes(late)
    assert [(each.calls, each.error_count) for each in late.minutes] == [(1, 1)]


def test_extremes_of_a_minute_are_within_a_bucket() -> None:
    made = session(call(latency_ms=1), call(latency_ms=5000))
    closed(made)
    made.apply([call(latency_ms=100), call(latency_ms=200)], NOW_MS)
    (minute,) = closed(made)
    latency = Histogram.from_bytes(minute.models[0].latency)
    assert latency.min == pytest.approx(100, rel=0.022)
    assert latency.max == pytest.approx(200, rel=0.022)
    assert latency.sum == pytest.approx(300)


def test_what_a_minute_costs_to_close_is_what_was_touched() -> None:
    made = session(*(call(f"model-{number}") for number in range(50)), limits=SessionLimits())
    closed(made)
    made.apply([call("model-7", latency_ms=3, stats=InferenceStats(output_tokens=9))], NOW_MS)
    (minute,) = closed(made)
    assert [each.model_id for each in minute.models] == ["model-7"]
    assert StatsTotals.from_bytes(minute.models[0].stats).amounts["output_tokens"].total == 9


def test_a_sample_keeps_what_is_known_of_the_device() -> None:
    def sure(value: object) -> Reading:
        return Reading(value, Confidence.HIGH, "test", 0.0)

    readings = {
        "thermal_state": sure("Hot"),
        "thermal": sure({"max_c": 81.5, "throttling": [{"kind": "cooling"}]}),
        "power_source": sure("battery"),
        "battery": sure({"level_percent": 41.5, "charging": False, "batteries": [{"power_w": 7.5}, {"power_w": 2.25}]}),
        "cpu_usage_percent": sure(12.5),
        "memory": sure({"available_bytes": 5, "total_bytes": 9}),
        "gpu": sure(
            [{"name": "RTX", "vendor": "NVIDIA", "utilization_percent": 90, "power_w": None, "stage": "usable"}]
        ),
    }
    sample = sample_of(DeviceState(HardwareCapabilities(), readings), 5, 6, "boot")
    assert (sample.thermal_state, sample.temperature_c, sample.throttled) == ("hot", 81.5, True)
    assert (sample.power_source, sample.battery_percent, sample.charging, sample.battery_w) == (
        "battery", 41.5, False, 9.75,
    )  # fmt: skip
    assert (sample.cpu_percent, sample.memory_available_bytes) == (12.5, 5)
    assert sample.gpus == [{"name": "RTX", "utilization_percent": 90}]
    nothing = sample_of(DeviceState(HardwareCapabilities(), {}), 5, 6, "boot")
    assert (nothing.thermal_state, nothing.throttled, nothing.battery_w, nothing.npus) == (None, None, None, [])
