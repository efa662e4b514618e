"""Latencies as a sparse exponential histogram, as OpenTelemetry's metrics data model defines it.

Bucket ``i`` holds the values in ``(base**i, base**(i + 1)]`` with ``base = 2**(2**-SCALE)``. At scale 5 a bucket
is 2.2 % wide, so the geometric middle of a bucket is at most 1.1 % from any value in it: that bounds the error of
every quantile. Two histograms merge by adding their buckets, so a fleet's percentiles are right, not averaged.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from math import ceil, inf, log2, nextafter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

SCALE = 5
_BUCKETS_PER_OCTAVE = 2**SCALE

#: Values up to this count as zero: 2**-20 ms is a nanosecond, below what any clock here can tell. It also
#: bounds the buckets that a hostile producer can fill (73 octaves of 32).
ZERO_THRESHOLD = 2.0**-20

#: The buckets that a latency can fall into: it is at most 2**53 ms, and there is room above that.
_LOWEST, _HIGHEST = -20 * _BUCKETS_PER_OCTAVE - 1, 64 * _BUCKETS_PER_OCTAVE

#: Below so many values, a logarithm for each costs less than a bisection for each bucket.
_FEW = 16


def bucket_index(value: float) -> int:
    """The bucket of a value above `ZERO_THRESHOLD`; an exact power of the base belongs to the bucket it closes."""
    index: int = ceil(log2(value) * _BUCKETS_PER_OCTAVE) - 1
    return index


@cache
def bucket_end(index: int) -> float:
    """The largest value in a bucket, by `bucket_index`: a power of the base, but for rounding."""
    end = _edge(index + 1)
    while bucket_index(end) > index:
        end = nextafter(end, 0.0)
    while bucket_index(following := nextafter(end, inf)) <= index:
        end = following
    return end


def bucket_middle(index: int) -> float:
    return _edge(index + 0.5)


def _edge(index: float) -> float:
    return float(2.0 ** (index / _BUCKETS_PER_OCTAVE))


class HistogramSummary(msgspec.Struct, frozen=True):
    """What an export shows of a histogram; milliseconds. ``histogram`` is dense from ``offset`` on."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float
    histogram: dict[str, Any]


class Histogram:
    """Values in milliseconds, finite and not negative."""

    __slots__ = ("buckets", "count", "max", "min", "sum", "zero_count")

    def __init__(self) -> None:
        self.count = 0
        self.zero_count = 0
        self.sum = 0.0
        self.min = 0.0
        self.max = 0.0
        self.buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        self.extend((value,))

    def extend(self, values: Iterable[float]) -> None:
        """Count many values at once, which is several times cheaper a value than one by one."""
        self.extend_sorted(sorted(values))

    def extend_sorted(self, values: list[float]) -> None:
        """Count values in ascending order."""
        if not values:
            return
        low, high = values[0], values[-1]
        if self.count == 0 or low < self.min:
            self.min = low
        if self.count == 0 or high > self.max:
            self.max = high
        self.count += len(values)
        self.sum += sum(values)
        at = bisect_right(values, ZERO_THRESHOLD) if low <= ZERO_THRESHOLD else 0
        self.zero_count += at
        buckets, count = self.buckets, len(values)
        if count < _FEW:
            for value in values[at:]:
                index = ceil(log2(value) * 32) - 1
                buckets[index] = buckets.get(index, 0) + 1
            return
        while at < count:
            index = ceil(log2(values[at]) * 32) - 1
            end = bisect_right(values, bucket_end(index), at)
            buckets[index] = buckets.get(index, 0) + end - at
            at = end

    def merge(self, other: Histogram) -> None:
        if other.count == 0:
            return
        self.min = min(self.min, other.min) if self.count else other.min
        self.max = max(self.max, other.max) if self.count else other.max
        self.count += other.count
        self.zero_count += other.zero_count
        self.sum += other.sum
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    def copy(self) -> Histogram:
        made = Histogram()
        made.merge(self)
        return made

    def since(self, base: Histogram) -> Histogram:
        """What was added to `base`, an earlier state of this one. Its extremes are known to within a bucket."""
        if base.count == 0:
            return self.copy()
        added = Histogram()
        added.count = self.count - base.count
        added.zero_count = self.zero_count - base.zero_count
        added.sum = max(0.0, self.sum - base.sum)
        before = base.buckets.get
        added.buckets = {
            index: count - before(index, 0) for index, count in self.buckets.items() if count != before(index, 0)
        }
        if added.count:
            lowest = 0.0 if added.zero_count else _edge(min(added.buckets))
            highest = _edge(max(added.buckets) + 1) if added.buckets else ZERO_THRESHOLD
            added.min = self.min if self.min < base.min else max(lowest, self.min)
            added.max = self.max if self.max > base.max else min(highest, self.max)
        return added

    def quantile(self, q: float) -> float:
        """The value that a share `q` (0 to 1) of the values does not exceed, within 1.1 %; 0.0 when empty."""
        if self.count == 0:
            return 0.0
        rank = max(1, ceil(q * self.count))
        seen = self.zero_count
        if rank <= seen:
            return self.min
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if rank <= seen:
                return min(max(bucket_middle(index), self.min), self.max)
        return self.max

    def dense(self) -> tuple[int, list[int]]:
        """The first bucket that holds anything, and the counts from there to the last."""
        if not self.buckets:
            return 0, []
        first, last = min(self.buckets), max(self.buckets)
        return first, [self.buckets.get(index, 0) for index in range(first, last + 1)]

    def summary(self) -> HistogramSummary:
        offset, counts = self.dense()
        return HistogramSummary(
            count=self.count,
            p50=self._shown(0.5),
            p90=self._shown(0.9),
            p99=self._shown(0.99),
            max=self.max,
            histogram={"scale": SCALE, "zero_count": self.zero_count, "offset": offset, "counts": counts},
        )

    def _shown(self, q: float) -> float:
        """A quantile to the microsecond; below that the digits are kept, and rounding never passes the maximum."""
        value = self.quantile(q)
        return min(round(value, 3), self.max) if value >= 1 else value

    def to_bytes(self) -> bytes:
        indexes = sorted(self.buckets)
        return msgspec.msgpack.encode(
            (
                self.zero_count,
                self.sum,
                self.min,
                self.max,
                indexes,
                [self.buckets[index] for index in indexes],
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Histogram:
        """Raises ValueError, or a msgspec error, for what `to_bytes` never made."""
        zero_count, total, low, high, indexes, counts = msgspec.msgpack.decode(
            data, type=tuple[int, float, float, float, list[int], list[int]]
        )
        # One flipped bit in an index would make the dense list that is shown as large as the memory.
        if indexes and not _LOWEST <= min(indexes) <= max(indexes) <= _HIGHEST:
            raise ValueError("a bucket that no latency falls into")
        if min(zero_count, *counts, 0) < 0 or not all(0 <= each < inf for each in (total, low, high)):
            raise ValueError("what no latencies add up to")
        self = cls()
        self.zero_count, self.sum, self.min, self.max = zero_count, total, low, high
        self.buckets = dict(zip(indexes, counts, strict=True))
        self.count = zero_count + sum(counts)
        return self
