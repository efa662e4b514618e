"""What producers may say beside the latency of an inference, summed up per model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.histogram import Histogram

if TYPE_CHECKING:
    from xybridd.core.columns import Calls

#: Sums stop here: SQLite's largest integer. The reference's u64 would wrap in a release build.
LARGEST_COUNTER = 2**63 - 1


class Rate(msgspec.Struct):
    """Count, sum and extremes of a rate; the mean is their quotient."""

    count: int = 0
    total: float = 0.0
    min: float = 0.0
    max: float = 0.0

    def extend(self, values: list[float]) -> None:
        low, high = min(values), max(values)
        if self.count == 0 or low < self.min:
            self.min = low
        if self.count == 0 or high > self.max:
            self.max = high
        self.count += len(values)
        self.total += sum(values)

    def merge(self, other: Rate) -> None:
        if other.count == 0:
            return
        self.min = min(self.min, other.min) if self.count else other.min
        self.max = max(self.max, other.max) if self.count else other.max
        self.count += other.count
        self.total += other.total


class Amount(msgspec.Struct):
    """How often something was said, its sum and its largest."""

    count: int = 0
    total: int = 0
    max: int = 0

    def extend(self, values: list[int]) -> None:
        self.count += len(values)
        self.total = min(self.total + sum(values), LARGEST_COUNTER)
        self.max = max(self.max, *values)

    def merge(self, other: Amount) -> None:
        self.count += other.count
        self.total = min(self.total + other.total, LARGEST_COUNTER)
        self.max = max(self.max, other.max)


_RATES = ("tokens_per_second", "samples_per_second")
_AMOUNTS = ("memory_peak_mb", "input_tokens", "output_tokens")


class StatsTotals:
    """The `InferenceStats` of many inferences of one model."""

    __slots__ = ("amounts", "names", "rates", "time_to_first_token_ms")

    def __init__(self) -> None:
        self.rates: dict[str, Rate] = {}
        self.amounts: dict[str, Amount] = {}
        self.names: dict[str, dict[str, int]] = {}
        self.time_to_first_token_ms = Histogram()

    def extend(self, calls: Calls) -> None:
        """Count what was given of many calls, a field after the other."""
        for field, values in calls.stats.items():
            if field in _RATES:
                self.rates.setdefault(field, Rate()).extend(values)
            elif field in _AMOUNTS:
                self.amounts.setdefault(field, Amount()).extend(values)
            else:
                self.time_to_first_token_ms.extend(values)
        for field, name in (("execution_target", calls.execution_target), ("hardware_used", calls.hardware_used)):
            if name is not None and calls.latencies_ms:
                counts = self.names.setdefault(field, {})
                counts[name] = counts.get(name, 0) + len(calls.latencies_ms)

    def merge(self, other: StatsTotals) -> None:
        for field, rate in other.rates.items():
            self.rates.setdefault(field, Rate()).merge(rate)
        for field, amount in other.amounts.items():
            self.amounts.setdefault(field, Amount()).merge(amount)
        for field, names in other.names.items():
            counts = self.names.setdefault(field, {})
            for name, count in names.items():
                counts[name] = counts.get(name, 0) + count
        self.time_to_first_token_ms.merge(other.time_to_first_token_ms)

    def copy(self) -> StatsTotals:
        made = StatsTotals()
        made.merge(self)
        return made

    def since(self, base: StatsTotals) -> StatsTotals:
        """What was added to `base`, an earlier state of this one; extremes stay those of the whole."""
        added = StatsTotals()
        for field, rate in self.rates.items():
            before = base.rates.get(field, Rate())
            if rate.count != before.count:
                added.rates[field] = Rate(rate.count - before.count, rate.total - before.total, rate.min, rate.max)
        for field, amount in self.amounts.items():
            was = base.amounts.get(field, Amount())
            if amount.count != was.count:
                added.amounts[field] = Amount(amount.count - was.count, amount.total - was.total, amount.max)
        for field, names in self.names.items():
            earlier = base.names.get(field, {})
            if names != earlier:
                grown = {name: count - earlier.get(name, 0) for name, count in names.items()}
                added.names[field] = {name: count for name, count in grown.items() if count}
        added.time_to_first_token_ms = self.time_to_first_token_ms.since(base.time_to_first_token_ms)
        return added

    def summary(self) -> dict[str, Any]:
        """What an export shows; fields that nobody gave are left out."""
        out: dict[str, Any] = {}
        for field, rate in self.rates.items():
            out[field] = {
                "count": rate.count,
                "mean": rate.total / rate.count,
                "min": rate.min,
                "max": rate.max,
            }
        for field, amount in self.amounts.items():
            if field == "memory_peak_mb":
                out[field] = {"count": amount.count, "max": amount.max}
            else:
                out[field] = {"count": amount.count, "total": amount.total, "max": amount.max}
        if self.time_to_first_token_ms.count:
            out["time_to_first_token_ms"] = self.time_to_first_token_ms.summary()
        out.update(self.names)
        return out

    def to_bytes(self) -> bytes:
        """Empty when nothing was ever given: most models have no stats and should not cost a row more."""
        if not (self.rates or self.amounts or self.names or self.time_to_first_token_ms.count):
            return b""
        return msgspec.msgpack.encode((self.rates, self.amounts, self.names, self.time_to_first_token_ms.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> StatsTotals:
        self = cls()
        if data:
            self.rates, self.amounts, self.names, first_token = msgspec.msgpack.decode(
                data, type=tuple[dict[str, Rate], dict[str, Amount], dict[str, dict[str, int]], bytes]
            )
            self.time_to_first_token_ms = Histogram.from_bytes(first_token)
        return self
