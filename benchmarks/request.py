"""One ``record.inference`` there and back: it waits for the disk, so the disk and the socket are what it stands beside.

The three are taken in turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from benchmarks.bench import Frames, frame
from benchmarks.floors import Appender, echo
from benchmarks.rows import Floor, Row, at_most_times_floor, median, percentile

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_PARAMS = {"model_id": "whisper-tiny", "version": "1.0", "latency_ms": 212.5}


def measure(bench: Bench) -> list[Row]:
    line = frame("record.inference", msgspec.json.encode(_PARAMS))
    ours, disk, socket = [], [], []
    with bench.daemon() as daemon, Frames(daemon.socket) as connection, echo() as peer:
        connection.begin()
        appender = Appender(daemon.folder / "appended")
        for _ in range(bench.rounds(2000, 300)):
            started = time.perf_counter()
            connection.sock.sendall(line)
            while not connection.answers():
                pass
            ours.append((time.perf_counter() - started) * 1e6)
            disk.append(appender.once() * 1e6)
            socket.append(peer.once(line) * 1e6)
        appender.close()
    together = [write + trip for write, trip in zip(disk, socket, strict=True)]
    least = Floor("append + fsync + echo", median(together))
    return [
        Row("one request, durable: median", median(ours), "µs", least, at_most_times_floor(3)),
        Row(
            "one request, durable: p99",
            percentile(ours, 0.99),
            "µs",
            Floor("append + fsync + echo, p99", percentile(together, 0.99)),
        ),
        Row("bare append of 4 KiB + fsync: median", median(disk), "µs"),
        Row("bare socket round trip: median", median(socket), "µs"),
    ]
