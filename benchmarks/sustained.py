"""How many records a second one client brings to the disk for as long as an app likes, without dropping any.

The app records as long as half of the client's queue is free, and never asks for a flush: what is measured is the pace
that client and daemon find between themselves. Then it fills the queue at once, and asks for all of it to be on disk.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import xybridd
from benchmarks.rows import Row

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_MOST_WAITING = 50_000

#: Less than the queue holds.
_BURST = 90_000


def measure(bench: Bench) -> list[Row]:
    for_s = bench.rounds(10, 4)
    with bench.daemon() as daemon, xybridd.connect(app="bench", socket=daemon.socket) as client:
        client.record_inference("whisper-tiny", "1.0", 212.5)
        assert client.flush(timeout_s=30)
        before, started = client.counters()["acknowledged"], time.perf_counter()
        while time.perf_counter() - started < for_s:
            if client.counters()["waiting"] < _MOST_WAITING:
                for number in range(1000):
                    client.record_inference("whisper-tiny", "1.0", 100 + number % 97 / 7)
            time.sleep(0.001)
        counters = client.counters()
        rate = (counters["acknowledged"] - before) / (time.perf_counter() - started)
        assert not counters["dropped"], counters
        assert client.flush(timeout_s=60)
        for number in range(_BURST):
            client.record_inference("whisper-tiny", "1.0", 100 + number % 97 / 7)
        started = time.perf_counter()
        assert client.flush(timeout_s=60)
        flushed_s = time.perf_counter() - started
        assert client.counters()["dropped"] == 0
    return [
        Row(f"one client, sustained over {for_s} s", rate, "records/s"),
        Row(f"flush, right after a burst of {_BURST:,} records", flushed_s * 1000, "ms"),
    ]
