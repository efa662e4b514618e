"""CPU of the app's side and the daemon together, for a record from the call to the disk, by the writer of the ring."""

from __future__ import annotations

import json
import mmap
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.bench import cpu_s
from benchmarks.rows import Floor, Row, at_most, median
from benchmarks.writers import PYTHON, WRITERS

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from tests.support import Daemon

#: An app that records in bursts and says what it cost it: its loop, the calls, its thread, to the acknowledgement.
_APP = """
import json, sys, time, xybridd
client = xybridd.connect(app="bench", socket=sys.argv[1])
stats = {"tokens_per_second": 41.5, "hardware_used": "cpu"} if sys.argv[2] == "stats" else {}
client.record_inference("whisper-tiny", "1.0", 1.0)
assert client.flush(timeout_s=30)
for line in sys.stdin:
    count = int(line)
    before = time.process_time()
    for number in range(count):
        client.record_inference("whisper-tiny", "1.0", 100 + number % 97 / 7, **stats)
        if not number % 10_000:
            time.sleep(0.05)
    assert client.flush(timeout_s=60)
    print(time.process_time() - before, flush=True)
counters = client.counters()
print(json.dumps(counters), flush=True)
"""

#: µs a record that app and daemon may take together, with two stats or without.
_TARGETS_US = {
    ("Python writer", ""): 1.6,
    ("C writer", ""): 0.8,
    ("Python writer", "stats"): 2.2,
    ("C writer", "stats"): 1.0,
}


class _Cost(NamedTuple):
    """CPU seconds a record: medians over rounds."""

    together: float
    app: float
    daemon: float


def _cost(daemon: Daemon, count: int, rounds: int, stats: str = "") -> _Cost:
    ours, theirs = [], []
    with subprocess.Popen(
        [sys.executable, "-c", _APP, str(daemon.socket), stats],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as app:
        assert app.stdin is not None
        assert app.stdout is not None
        for _ in range(rounds):
            before = cpu_s(daemon.pid)
            app.stdin.write(f"{count}\n")
            app.stdin.flush()
            ours.append(float(app.stdout.readline()) / count)
            theirs.append((cpu_s(daemon.pid) - before) / count)
        app.stdin.close()
        counters = json.loads(app.stdout.readline())
    assert counters["acknowledged"] == 1 + count * rounds, counters
    together = [app + daemon for app, daemon in zip(ours, theirs, strict=True)]
    return _Cost(median(together), median(ours), median(theirs))


def _packing_us() -> float:
    """µs to read the clock and pack the same eight words into mapped memory, in the same loop: a call is not in it."""
    slots, pack, clock, count = mmap.mmap(-1, 2**20), struct.Struct("<ddQ32xQ").pack_into, time.time, 100_000
    rounds = []
    for _ in range(7):
        before = time.process_time()
        for number in range(count):
            pack(slots, (number & 16_383) << 6, 100 + number % 97 / 7, clock(), 1, number)
        rounds.append(time.process_time() - before)
    return median(rounds) / count * 1e6


def measure(bench: Bench) -> list[Row]:
    count, rounds = bench.rounds(100_000, 50_000), bench.rounds(7, 3)
    packing = Floor("reading the clock and packing the slot", _packing_us())
    rows = []
    for writer in WRITERS:
        with writer.chosen(), bench.daemon() as daemon:
            _cost(daemon, 10_000, 1)
            for stats in ("", "stats"):
                cost = _cost(daemon, count, rounds, stats)
                what = f"{writer.name}{', two stats' if stats else ''}"
                floor = packing if writer is PYTHON and not stats else None
                target = at_most(_TARGETS_US[writer.name, stats])
                rows += [
                    Row(f"CPU of app and daemon, {what}", cost.together * 1e6, "µs a record", floor, target),
                    Row("of which the app", cost.app * 1e6, "µs a record"),
                    Row("of which the daemon", cost.daemon * 1e6, "µs a record"),
                ]
    return rows
