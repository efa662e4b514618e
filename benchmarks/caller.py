"""One peer's calls, measured in a process of its own: ``python -m benchmarks.caller NAME FOLDER THREADS BURSTS``.

The same loop for each: every thread makes bursts of a thousand calls and rests a little after each. Prints JSON:
nanoseconds at the median, p99 and p99.9 of every call of every thread, or ``null`` where the peer is not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import OURS, PEERS, Caller, Peer
from benchmarks.rows import median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BURST = 1000

#: Between bursts: who works behind the call catches up a little, as it would in an app.
_PAUSE_S = 0.004


class Cost(NamedTuple):
    """Nanoseconds a call."""

    median: float
    p99: float
    p999: float


def _nothing() -> None:
    """What is measured stands in a function without arguments, as this one is."""


def each_ns(call: Callable[[], Any], bursts: int, between: Callable[[], Any]) -> list[float]:
    """Nanoseconds of every call, without what reading the clock twice takes, and the call of a function around it."""
    clock, nothing = time.perf_counter_ns, _nothing
    empty = []
    for _ in range(_BURST):
        started = clock()
        nothing()
        empty.append(clock() - started)
    overhead = median(empty)
    out: list[float] = []
    for _ in range(bursts):
        for _ in range(_BURST):
            started = clock()
            call()
            out.append(clock() - started - overhead)
        between()
        time.sleep(_PAUSE_S)
    return out


def _in_threads(caller: Caller, threads: int, bursts: int) -> list[float]:
    """What every call took, of all the threads at once."""
    found: list[list[float]] = []
    together = threading.Barrier(threads)

    def one() -> None:
        together.wait()
        found.append(each_ns(caller.call, bursts, caller.between))

    running = [threading.Thread(target=one) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(found) == threads, "a thread failed"
    return [value for values in found for value in values]


def cost_of(peer: Peer, folder: Path, threads: int, bursts: int) -> Cost | None:
    """Measured in a process of its own; None when the peer is not installed."""
    command = [sys.executable, "-m", "benchmarks.caller", peer.name, str(folder), str(threads), str(bursts)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return None if answer is None else Cost(*answer)


def main() -> None:
    name, folder, threads, bursts = sys.argv[1:]
    peer = next(peer for peer in (*OURS, *PEERS) if peer.name == name)
    try:
        with peer.open(Path(folder)) as caller:
            caller.call()
            values = _in_threads(caller, int(threads), min(int(bursts), max(1, peer.most_bursts // int(threads))))
    except ImportError:
        print("null")
        return
    print(json.dumps([median(values), percentile(values, 0.99), percentile(values, 0.999)]))


if __name__ == "__main__":
    main()
