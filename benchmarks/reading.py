"""How many records the daemon reads from four rings, by a second of its own CPU.

The daemon is stopped while four clients of one app fill their rings, so nothing but the reading is in the figure: it is
let go on, and takes all of it, commits included.
"""

from __future__ import annotations

import contextlib
import signal
import struct
import time
from typing import TYPE_CHECKING

import xybridd
from benchmarks.bench import cpu_s
from benchmarks.rows import Floor, Row, at_least, median

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_RINGS = 4

#: Into each ring: what the second ring of a client holds.
_EACH = 60_000

_TARGET_RECORDS_PER_CPU_S = 2_000_000


def _unpacked_per_s() -> float:
    """Slots a second that Python takes apart one by one, doing nothing with them."""
    slots = bytes(64 * _EACH)
    rounds = []
    for _ in range(5):
        before = time.process_time()
        for _slot in struct.iter_unpack("<ddQ32xQ", slots):
            pass
        rounds.append(time.process_time() - before)
    return _EACH / median(rounds)


def measure(bench: Bench) -> list[Row]:
    floor = Floor("struct.iter_unpack of the same slots, and no more", _unpacked_per_s())
    rows = []
    for stats in ({}, {"tokens_per_second": 41.5, "hardware_used": "cpu"}):
        by_cpu, by_wall = [], []
        with bench.daemon() as daemon, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(xybridd.connect("bench", socket=daemon.socket)) for _ in range(_RINGS)]
            for number in range(1 + bench.rounds(9, 3)):
                daemon.signal(signal.SIGSTOP)
                for client in clients:
                    for value in range(_EACH):
                        client.record_inference("whisper-tiny", "1.0", 100 + value % 97 / 7, **stats)  # type: ignore[arg-type]
                flushes = [client.flush_soon() for client in clients]
                before, started = cpu_s(daemon.pid), time.perf_counter()
                daemon.signal(signal.SIGCONT)
                assert all(flush is not None and flush.result(60) for flush in flushes)
                if number:  # in the first round clients go on in a larger ring
                    by_wall.append(_RINGS * _EACH / (time.perf_counter() - started))
                    by_cpu.append(_RINGS * _EACH / (cpu_s(daemon.pid) - before))
        what = f"{_RINGS} full rings read{', two stats' if stats else ''}"
        target = None if stats else at_least(_TARGET_RECORDS_PER_CPU_S)
        rows += [
            Row(f"{what}: by the daemon's CPU", median(by_cpu), "records/s", floor, target),
            Row(f"{what}: by the clock", median(by_wall), "records/s"),
        ]
    return rows
