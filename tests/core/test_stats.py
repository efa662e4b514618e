from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core import given as some
from xybridd.core.columns import columns_of
from xybridd.core.stats import LARGEST_COUNTER, StatsTotals
from xybridd.protocol.records import InferenceRecord, InferenceStats

many = st.lists(some.stats, max_size=20)


def of(stats: list[InferenceStats]) -> StatsTotals:
    totals = StatsTotals()
    for calls in columns_of([InferenceRecord("m", "1", 1, stats=one) for one in stats], 0)[0]:
        totals.extend(calls)
    return totals


@given(many, many)
def test_merging_is_concatenating(one: list[InferenceStats], two: list[InferenceStats]) -> None:
    merged = of(one)
    merged.merge(of(two))
    assert merged.summary() == of([*one, *two]).summary()


@given(many)
def test_bytes_hold_all_of_it(stats: list[InferenceStats]) -> None:
    totals = of(stats)
    again = StatsTotals.from_bytes(totals.to_bytes())
    assert again.summary() == totals.summary()
    assert again.to_bytes() == totals.to_bytes()


@given(many)
def test_a_summary_counts_who_said_something(stats: list[InferenceStats]) -> None:
    summary = of(stats).summary()
    for field in ("tokens_per_second", "samples_per_second", "memory_peak_mb", "input_tokens", "output_tokens"):
        said = [value for one in stats if (value := getattr(one, field)) is not None]
        assert (field in summary) == bool(said)
        if said:
            assert summary[field]["count"] == len(said)
            assert summary[field]["max"] == max(said)
    for field in ("execution_target", "hardware_used"):
        names = [name for one in stats if (name := getattr(one, field)) is not None]
        assert summary.get(field, {}) == {name: names.count(name) for name in names}


SAID: list[tuple[dict[str, Any], dict[str, Any], str, dict[str, Any]]] = [
    (
        {"tokens_per_second": 10},
        {"tokens_per_second": 40},
        "tokens_per_second",
        {"count": 2, "mean": 25, "min": 10, "max": 40},
    ),
    (
        {"samples_per_second": 0},
        {"samples_per_second": 0},
        "samples_per_second",
        {"count": 2, "mean": 0, "min": 0, "max": 0},
    ),
    ({"memory_peak_mb": 7}, {"memory_peak_mb": 3}, "memory_peak_mb", {"count": 2, "max": 7}),
    ({"input_tokens": 7}, {"input_tokens": 3}, "input_tokens", {"count": 2, "total": 10, "max": 7}),
    ({"output_tokens": 7}, {}, "output_tokens", {"count": 1, "total": 7, "max": 7}),
    ({"execution_target": "local"}, {"execution_target": "cloud"}, "execution_target", {"local": 1, "cloud": 1}),
    ({"hardware_used": "gpu"}, {"hardware_used": "gpu"}, "hardware_used", {"gpu": 2}),
]


@pytest.mark.parametrize(("first", "second", "field", "said"), SAID)
def test_a_summary_of_two(first: dict[str, Any], second: dict[str, Any], field: str, said: dict[str, Any]) -> None:
    assert of([InferenceStats(**first), InferenceStats(**second)]).summary() == {field: said}


def test_nothing_said_takes_no_bytes_and_shows_nothing() -> None:
    assert of([InferenceStats()]).to_bytes() == b""
    assert of([]).summary() == {}


def test_sums_stop_at_what_the_database_holds() -> None:
    totals = of([InferenceStats(input_tokens=2**53)] * 1025)
    assert totals.summary()["input_tokens"] == {"count": 1025, "total": LARGEST_COUNTER, "max": 2**53}
