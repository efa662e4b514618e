"""How many records a second one client brings to the disk for as long as an app likes, and how fast a burst gets there.

The app records as fast as it can while fewer than `_MOST_WAITING` slots wait, and never asks for a flush: what is
measured is the pace that writer and daemon find between themselves. The time runs until all of it is on disk. Then the
app records a burst without a pause, and asks for all of it to be on disk.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import xybridd
from benchmarks.rows import Row, at_least, at_most, median
from benchmarks.writers import WRITERS, backlog

if TYPE_CHECKING:
    from benchmarks.bench import Bench

#: Less than the second ring holds.
_MOST_WAITING = 50_000

_BURST = 90_000

_TARGETS_RECORDS_PER_S = {"Python writer": 500_000, "C writer": 1_000_000}
_TARGET_FLUSH_MS = 60


class _Found(NamedTuple):
    records_per_s: float
    flush_ms: float


def _record(client: xybridd.Client, count: int) -> None:
    record = client.record_inference
    for number in range(count):
        record("whisper-tiny", "1.0", 100 + number % 97 / 7)


def _measure(client: xybridd.Client, for_s: float, bursts: int) -> _Found:
    _record(client, 1)
    assert client.flush(timeout_s=30)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < for_s:
        if backlog(client) < _MOST_WAITING:
            _record(client, 1000)
            count += 1000
        else:
            time.sleep(0.001)
    assert client.flush(timeout_s=60)
    rate = count / (time.perf_counter() - started)
    flushes_ms = []
    for _ in range(bursts):
        _record(client, _BURST)
        started = time.perf_counter()
        assert client.flush(timeout_s=60)
        flushes_ms.append((time.perf_counter() - started) * 1000)
    counters = client.counters()
    assert counters["acknowledged"] == 1 + count + _BURST * bursts, counters
    return _Found(rate, median(flushes_ms))


def measure(bench: Bench) -> list[Row]:
    for_s, bursts = bench.rounds(10, 3), bench.rounds(7, 3)
    rows = []
    for writer in WRITERS:
        with (
            writer.chosen(),
            bench.daemon() as daemon,
            xybridd.connect(app="bench", socket=daemon.socket) as client,
        ):
            found = _measure(client, for_s, bursts)
        target = at_least(_TARGETS_RECORDS_PER_S[writer.name])
        burst = f"flush, right after a burst of {_BURST:,}, {writer.name}"
        rows += [
            Row(f"one client, sustained over {for_s} s, {writer.name}", found.records_per_s, "records/s", None, target),
            Row(burst, found.flush_ms, "ms", None, at_most(_TARGET_FLUSH_MS)),
        ]
    return rows
