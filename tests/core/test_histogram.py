from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xybridd.core.histogram import SCALE, ZERO_THRESHOLD, Histogram, bucket_index

if TYPE_CHECKING:
    from collections.abc import Iterable

BASE = 2.0 ** (2.0**-SCALE)

above_threshold = st.floats(ZERO_THRESHOLD, 2.0**53, exclude_min=True)
any_latency = st.floats(0, 2.0**53)


def of(values: Iterable[float]) -> Histogram:
    histogram = Histogram()
    histogram.extend(values)
    return histogram


def contents(histogram: Histogram) -> tuple[object, ...]:
    """All but the sum, whose last digit is the order of addition."""
    return histogram.count, histogram.zero_count, histogram.min, histogram.max, histogram.buckets


def nearest_rank(values: list[float], q: float) -> float:
    return sorted(values)[max(1, ceil(q * len(values))) - 1]


@given(above_threshold)
def test_a_value_lies_within_its_bucket(value: float) -> None:
    index = bucket_index(value)
    assert BASE**index * (1 - 1e-12) <= value <= BASE ** (index + 1) * (1 + 1e-12)


@pytest.mark.parametrize("exponent", range(-19, 54))
def test_a_power_of_two_closes_its_bucket(exponent: int) -> None:
    assert bucket_index(2.0**exponent) == exponent * 2**SCALE - 1
    assert bucket_index(2.0**exponent * (1 + 1e-9)) == exponent * 2**SCALE


@settings(max_examples=60)
@given(st.lists(above_threshold, min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_off_by_at_most_1_1_percent(values: list[float], q: float) -> None:
    assert of(values).quantile(q) == pytest.approx(nearest_rank(values, q), rel=0.011)


@given(st.lists(any_latency), st.lists(any_latency))
def test_merging_is_concatenating(one: list[float], two: list[float]) -> None:
    merged, whole = of(one), of([*one, *two])
    merged.merge(of(two))
    assert contents(merged) == contents(whole)
    assert merged.sum == pytest.approx(whole.sum)


@given(st.lists(any_latency))
def test_one_by_one_is_all_at_once(values: list[float]) -> None:
    single = Histogram()
    for value in values:
        single.add(value)
    assert contents(single) == contents(of(values))
    assert single.sum == pytest.approx(sum(values))


@given(st.lists(any_latency))
def test_bytes_hold_all_of_it(values: list[float]) -> None:
    histogram = of(values)
    again = Histogram.from_bytes(histogram.to_bytes())
    assert contents(again) == contents(histogram)
    assert again.sum == histogram.sum


@given(st.lists(any_latency))
def test_a_summary_accounts_for_every_value(values: list[float]) -> None:
    summary = of(values).summary()
    shown = summary.histogram
    assert summary.count == len(values) == shown["zero_count"] + sum(shown["counts"])
    assert summary.max == max(values, default=0.0)
    if shown["counts"]:
        assert shown["counts"][0] > 0 < shown["counts"][-1]
        assert shown["offset"] == bucket_index(min(value for value in values if value > ZERO_THRESHOLD))


@given(st.lists(any_latency))
@example([0.0006])
@example([1.2346])
def test_a_summarys_quantiles_are_in_order(values: list[float]) -> None:
    summary = of(values).summary()
    assert 0 <= summary.p50 <= summary.p90 <= summary.p99 <= summary.max


def test_an_empty_one_says_zero() -> None:
    summary = Histogram().summary()
    assert (summary.count, summary.p50, summary.p99, summary.max) == (0, 0.0, 0.0, 0.0)
    assert summary.histogram == {"scale": SCALE, "zero_count": 0, "offset": 0, "counts": []}


def test_what_is_below_a_nanosecond_counts_as_zero() -> None:
    histogram = of([0.0, ZERO_THRESHOLD, ZERO_THRESHOLD * 1.01])
    assert histogram.zero_count == 2
    assert sum(histogram.buckets.values()) == 1


def test_a_hostile_producer_cannot_fill_more_than_the_octaves_there_are() -> None:
    lowest, highest = bucket_index(ZERO_THRESHOLD * (1 + 1e-15)), bucket_index(2.0**53)
    assert highest - lowest < 74 * 2**SCALE


@pytest.mark.parametrize(
    "spoilt",
    [
        (0, 1.0, 1.0, 1.0, [2**32], [1]),
        (0, 1.0, 1.0, 1.0, [-(2**31)], [1]),
        (0, 1.0, 1.0, 1.0, [0], [-1]),
        (-1, 1.0, 1.0, 1.0, [0], [1]),
        (0, float("nan"), 1.0, 1.0, [0], [1]),
        (0, 1.0, -1.0, 1.0, [0], [1]),
    ],
)
def test_what_a_flipped_bit_makes_of_it_is_refused(spoilt: tuple[object, ...]) -> None:
    """A bucket far away would be shown as a dense list as long as that is far."""
    with pytest.raises(ValueError, match="latenc"):
        Histogram.from_bytes(msgspec.msgpack.encode(spoilt))
