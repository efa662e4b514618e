"""Bytes that reach the disk for each record of an app that records ten a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import xybridd
from benchmarks.bench import cpu_s, written_bytes
from benchmarks.rows import Floor, Row, at_most

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

_RECORDS_PER_S = 10
_PAGE_BYTES = 4096


def _wal_bytes(data: Path) -> int:
    wal = data / "xybridd.db-wal"
    return wal.stat().st_size if wal.exists() else 0


def measure(bench: Bench) -> list[Row]:
    for_s = 10 if bench.quick else 30
    count = for_s * _RECORDS_PER_S
    with bench.daemon() as daemon, xybridd.connect(app="bench", socket=daemon.socket) as client:
        client.record_inference("whisper-tiny", "1.0", 212.5)
        assert client.flush(timeout_s=30)
        written, wal, spent = written_bytes(daemon.pid), _wal_bytes(daemon.data), cpu_s(daemon.pid)
        for number in range(count):
            client.record_inference("whisper-tiny", "1.0", 100 + number % 97 * 3.7)
            time.sleep(1 / _RECORDS_PER_S)
        assert client.flush(timeout_s=30)
        written = written_bytes(daemon.pid) - written
        wal = _wal_bytes(daemon.data) - wal
        spent = cpu_s(daemon.pid) - spent
    floor = Floor("one page a second", _PAGE_BYTES / _RECORDS_PER_S)
    span = f"at {_RECORDS_PER_S} records/s over {for_s} s"
    return [
        Row(f"written {span}", written / count, "bytes a record", floor, at_most(500)),
        Row(f"write-ahead log's growth {span}", wal / count, "bytes a record", floor),
        Row(f"daemon's CPU {span}", spent / for_s * 100, "%", None, at_most(0.2)),
    ]
