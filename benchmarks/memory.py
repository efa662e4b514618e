"""What a hundred thousand records keep of the app's memory while they wait.

They wait in rings, files that the app has mapped: in an app whose daemon hangs (it is stopped while the app is
connected), and in one that has no daemon. The floor is a plain list of dicts that say the same. A peer that adds up in
the app's memory has nothing that waits: what it costs grows with its labels, not with its records.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rows import Floor, Row, median
from tests.support import Daemon

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

_COUNT = 100_000
_MB = 1_000_000

#: Says "ready" when nothing has been recorded yet, waits for a line, records, and says what it found.
_APP = """
import json, os, sys, time, xybridd
how, socket = sys.argv[1:3]
stats = json.loads(sys.argv[3])
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
kept = []
client = xybridd.connect(app="bench", socket=socket)
def append(model_id, version, latency_ms, **stats):
    kept.append({"model_id": model_id, "version": version, "latency_ms": latency_ms, "at": time.time(), **stats})
record = append if how == "list" else client.record_inference
if how == "hung":
    record("whisper-tiny", "1.0", 1.0)
    assert client.flush(timeout_s=30)
print("ready", flush=True)
sys.stdin.readline()
before = resident()
for number in range(COUNT):
    record("whisper-tiny", "1.0", 100 + number % 97 / 7, **stats)
    if not number % 1000:
        time.sleep(0.005)
time.sleep(0.5)
grown = resident() - before
print(json.dumps({"grown": grown, **client.counters()}), flush=True)
sys.stdin.readline()
""".replace("COUNT", str(_COUNT))

_STATS = {"tokens_per_second": 41.5, "hardware_used": "cpu"}


class _Found(NamedTuple):
    grown_mb: float
    counters: dict[str, int]


def _grown(folder: Path, how: str, *, stats: bool = False) -> _Found:
    """By a process of its own."""
    daemon = Daemon(folder)
    if how == "hung":
        daemon.start()
    command = [sys.executable, "-c", _APP, how, str(daemon.socket), json.dumps(_STATS if stats else {})]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=daemon.env, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if how == "hung":
                daemon.signal(signal.SIGSTOP)
            process.stdin.write("\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            process.kill()
    finally:
        daemon.end()
    return _Found(found.pop("grown") / _MB, found)


def measure(bench: Bench) -> list[Row]:
    grown: dict[tuple[str, bool], list[float]] = {}
    for _ in range(bench.rounds(5, 2)):
        for how, stats in (("hung", False), ("hung", True), ("away", False), ("list", False), ("list", True)):
            with bench.own_folder() as folder:
                found = _grown(folder, how, stats=stats)
            assert how == "list" or found.counters["waiting"] == _COUNT, found.counters
            grown.setdefault((how, stats), []).append(found.grown_mb)
    middle = {kind: median(values) for kind, values in grown.items()}
    plain = Floor("a list of dicts", middle["list", False])
    with_stats = Floor("a list of dicts", middle["list", True])
    return [
        Row("100,000 records waiting, the daemon hangs", middle["hung", False], "MB", plain),
        Row("the same with two stats", middle["hung", True], "MB", with_stats),
        Row("100,000 records waiting, no daemon", middle["away", False], "MB", plain),
    ]
