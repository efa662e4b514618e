"""Finished calls as columns: what a JSON batch and a ring both become before they are counted.

Counting a column costs a fraction of counting its values one by one: it is sorted once, and everything else (buckets of
a histogram, rounded sums) is found by bisection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from xybridd.protocol.records import CancelledRecord, ErrorRecord, InferenceRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xybridd.protocol.records import InferenceStats, Record

#: A record that is not a finished inference, with its position in its batch.
Other = tuple[int, ErrorRecord | CancelledRecord]


class Calls:
    """Finished calls of one model at one version, on the same hardware and target.

    ``latencies_ms`` may be empty: stats of calls that are counted elsewhere. ``latest_ms``: the newest time among them.
    ``first`` and ``last``: positions in the batch, from 0. ``stats``: the values that were given, by field.
    """

    __slots__ = (
        "execution_target", "first", "hardware_used", "last", "latencies_ms", "latest_ms", "model_id", "stats",
        "version",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the columns
        self,
        model_id: str,
        version: str,
        latencies_ms: list[float],
        *,
        latest_ms: int = 0,
        first: int = 0,
        last: int = 0,
        hardware_used: str | None = None,
        execution_target: str | None = None,
        stats: dict[str, list[Any]] | None = None,
    ) -> None:
        self.model_id = model_id
        self.version = version
        self.latencies_ms = latencies_ms
        self.latest_ms = latest_ms
        self.first = first
        self.last = last
        self.hardware_used = hardware_used
        self.execution_target = execution_target
        self.stats = stats or {}


class _Group:
    """Records of one model, version, hardware and target, while a batch is sorted."""

    __slots__ = ("first", "last", "records")

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self.records: list[InferenceRecord] = []


def columns_of(records: Sequence[Record], now_ms: int) -> tuple[list[Calls], list[Other]]:
    """A batch as columns, in the order of first use. ``now_ms`` is the time of records that carry none."""
    groups: dict[tuple[Any, ...], _Group] = {}
    others: list[Other] = []
    for at, record in enumerate(records):
        if not isinstance(record, InferenceRecord):
            others.append((at, record))
            continue
        stats, key = record.stats, (record.model_id, record.version)
        group = groups.get(key if stats is None else (*key, stats.hardware_used, stats.execution_target))
        if group is None:
            group = groups[key if stats is None else (*key, stats.hardware_used, stats.execution_target)] = _Group(at)
        group.records.append(record)
        group.last = at
    return [_calls(group, now_ms) for group in groups.values()], others


def _calls(group: _Group, now_ms: int) -> Calls:
    first = group.records[0]
    return Calls(
        first.model_id,
        first.version,
        [record.latency_ms for record in group.records],
        latest_ms=max([now_ms if each.timestamp_ms is None else each.timestamp_ms for each in group.records]),
        first=group.first,
        last=group.last,
        hardware_used=None if first.stats is None else first.stats.hardware_used,
        execution_target=None if first.stats is None else first.stats.execution_target,
        stats=None
        if first.stats is None
        else _values([each.stats for each in group.records if each.stats is not None]),
    )


def _values(given: list[InferenceStats]) -> dict[str, list[Any]]:
    """The numbers that were given, by field."""
    found: dict[str, list[Any]] = {}
    for stats in given:
        for field, value in asdict(stats).items():
            if value is not None and field not in {"hardware_used", "execution_target"}:
                found.setdefault(field, []).append(value)
    return found
