"""The longest that a thread of an app waits for its turn, with and without a client that records beside it.

A ticker sleeps for a millisecond, again and again, and the longest time between two ticks is its gap. Beside it another
thread makes calls at a steady pace: of an empty function, or of the client.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.rows import Floor, Row, median
from benchmarks.writers import WRITERS

if TYPE_CHECKING:
    from benchmarks.bench import Bench

#: ``what`` is "empty" or "client". Ten calls each millisecond.
_APP = """
import sys, threading, time, xybridd
what, socket, for_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
client = xybridd.connect(app="bench", socket=socket)
client.record_inference("whisper-tiny", "1.0", 1.0)
assert client.flush(timeout_s=30)
if what == "client":
    call = client.record_inference
else:
    client.close()
    def call(model_id, version, latency_ms):
        pass
done = threading.Event()
def calls():
    while not done.is_set():
        for number in range(10):
            call("whisper-tiny", "1.0", 100 + number)
        time.sleep(0.001)
thread = threading.Thread(target=calls)
thread.start()
longest, clock = 0.0, time.perf_counter
before = started = clock()
while before - started < for_s:
    time.sleep(0.001)
    now = clock()
    longest, before = max(longest, now - before), now
done.set()
thread.join()
print(longest)
"""


def _gap_ms(bench: Bench, what: str, for_s: float) -> float:
    with bench.daemon() as daemon:
        command = [sys.executable, "-c", _APP, what, str(daemon.socket), str(for_s)]
        return float(subprocess.run(command, check=True, capture_output=True).stdout) * 1000


def measure(bench: Bench) -> list[Row]:
    """In turns: what else the machine does meets all of them."""
    for_s, rounds = (2.0, 1) if bench.quick else (10.0, 5)
    without: list[float] = []
    found: dict[str, list[float]] = {writer.name: [] for writer in WRITERS}
    for _ in range(rounds):
        without.append(_gap_ms(bench, "empty", for_s))
        for writer in WRITERS:
            with writer.chosen():
                found[writer.name].append(_gap_ms(bench, "client", for_s))
    floor = Floor("calls of an empty function", median(without))
    what = f"longest gap of a 1 ms ticker over {for_s:.0f} s"
    return [Row(f"{what}, {name}", median(gaps), "ms", floor) for name, gaps in found.items()]
