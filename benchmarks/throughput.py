"""How many records a second the daemon takes, durable, from clients that send batches, by the size of the batches.

Batches are sent one behind the other, several of them under way, each asking to be committed at once. The daemon runs
on one core, the sender on another.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from benchmarks.bench import Frames, cpu_s, frame, on_cores
from benchmarks.floors import sqlite_rows_per_s
from benchmarks.rows import Floor, Row, median
from xybridd.protocol.framing import decode_params, parse_request
from xybridd.protocol.messages import RecordBatchParams

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_SIZES = (1, 10, 100, 1000)

#: Batches under way: more of them where they are small.
_UNDERWAY = {1: 512, 10: 256, 100: 64, 1000: 16}

_STATS = {
    "tokens_per_second": 41.5,
    "memory_peak_mb": 512,
    "hardware_used": "cpu",
    "input_tokens": 128,
    "output_tokens": 64,
    "time_to_first_token_ms": 83.25,
}


def records(count: int, *, stats: bool) -> list[dict[str, Any]]:
    """Inferences of three models, with latencies as they are: few alike, most of them near each other."""
    chance = random.Random(7)
    return [
        {
            "type": "inference",
            "model_id": chance.choice(("whisper-tiny", "kokoro-82m", "yolo-nano")),
            "version": "1.0",
            "latency_ms": round(chance.lognormvariate(4, 0.5), 3),
            "timestamp_ms": 1_700_000_000_000 + number,
            **({"stats": _STATS} if stats else {}),
        }
        for number in range(count)
    ]


class _Taken(NamedTuple):
    """Records a second by the wall, and CPU seconds of the daemon for each record."""

    records_per_s: float
    cpu_s_per_record: float


def _push(connection: Frames, encoded: bytes, size: int, seq: int, for_s: float) -> tuple[int, float]:
    """Keep batches under way for a while; how many were answered, and in what time."""

    def batch(number: int) -> bytes:
        return frame("record.batch", b'{"seq":%d,"flush":true,"records":%b}' % (number, encoded))

    most = _UNDERWAY[size]
    started = time.perf_counter()
    sent = answered = 0
    while answered < sent or time.perf_counter() - started < for_s:
        if time.perf_counter() - started < for_s and (room := most - (sent - answered)):
            connection.sock.sendall(b"".join(batch(seq + number) for number in range(sent, sent + room)))
            sent += room
        answered += connection.answers()
    return answered, time.perf_counter() - started


def _measure(bench: Bench, size: int, *, stats: bool) -> _Taken:
    encoded = msgspec.json.encode(records(size, stats=stats))
    daemon_core, *others = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    rates, costs = [], []
    with on_cores({daemon_core}), bench.daemon() as daemon, on_cores({*others}), Frames(daemon.socket) as connection:
        connection.begin()
        seq = 1 + _push(connection, encoded, size, 1, 0.2)[0]
        for _ in range(bench.rounds(5, 3)):
            before = cpu_s(daemon.pid)
            batches, took_s = _push(connection, encoded, size, seq, 0.5 if bench.quick else 1.0)
            seq += batches
            rates.append(batches * size / took_s)
            costs.append((cpu_s(daemon.pid) - before) / (batches * size))
    return _Taken(median(rates), median(costs))


def decode_s_per_record(size: int, *, stats: bool) -> float:
    """Seconds to turn the same bytes into the same typed records, and nothing else."""
    line = frame(
        "record.batch", b'{"seq":1,"flush":true,"records":%b}' % msgspec.json.encode(records(size, stats=stats))
    )
    decoder = msgspec.json.Decoder(RecordBatchParams)
    rounds = []
    for _ in range(max(20, 50_000 // size)):
        started = time.perf_counter()
        decode_params(decoder, parse_request(line).params)
        rounds.append(time.perf_counter() - started)
    return median(rounds) / size


def measure(bench: Bench) -> list[Row]:
    rows = []
    for size in _SIZES:
        for stats in (False, True):
            what = f"batches of {size:,}{' with stats' if stats else ''}"
            taken = _measure(bench, size, stats=stats)
            with bench.own_folder() as folder:
                peer = sqlite_rows_per_s(folder / "plain.db", size, 0.5 if bench.quick else 1.0)
            rows.append(Row(what, taken.records_per_s, "records/s", Floor("plain SQLite, a commit a batch", peer)))
            decode = Floor("decoding alone", decode_s_per_record(size, stats=stats) * 1e6)
            rows.append(Row(f"{what}: daemon's CPU", taken.cpu_s_per_record * 1e6, "µs a record", decode))
    return rows
