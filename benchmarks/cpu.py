"""CPU of the app's side and the daemon together, for a record from the call to the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import cpu_s
from benchmarks.rows import Floor, Row, at_most, median
from benchmarks.throughput import decode_s_per_record

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from tests.support import Daemon

#: An app that records in bursts and says what it cost it: its loop, the calls, the flusher, to the acknowledgement.
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


def _rounds(daemon: Daemon, count: int, rounds: int, stats: str = "") -> tuple[list[float], list[float]]:
    """CPU seconds a record: of the app, of the daemon."""
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
    return ours, theirs


def measure(bench: Bench) -> list[Row]:
    with bench.daemon() as daemon:
        _rounds(daemon, 10_000, 1)
        count, rounds = bench.rounds(100_000, 50_000), bench.rounds(7, 3)
        ours, theirs = _rounds(daemon, count, rounds)
        ours_stats, theirs_stats = _rounds(daemon, count, rounds, "stats")
    together = median([app + daemon for app, daemon in zip(ours, theirs, strict=True)])
    with_stats = median([app + daemon for app, daemon in zip(ours_stats, theirs_stats, strict=True)])
    decode = Floor("decoding the same bytes", decode_s_per_record(1000, stats=False) * 1e6)
    return [
        Row("CPU of client and daemon together", together * 1e6, "µs a record", decode, at_most(5)),
        Row("of which the app's process", median(ours) * 1e6, "µs a record"),
        Row("of which the daemon", median(theirs) * 1e6, "µs a record"),
        Row("CPU of both together, with two stats", with_stats * 1e6, "µs a record", None, at_most(5)),
        Row("of which the daemon, with two stats", median(theirs_stats) * 1e6, "µs a record"),
    ]
