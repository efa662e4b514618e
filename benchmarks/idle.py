"""What the daemon costs while nothing happens, with a client connected that has nothing to say."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import psutil

from benchmarks.bench import cpu_s, resident_bytes, wakeups, written_bytes
from benchmarks.rows import Floor, Row, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_MB = 10**6

#: What any daemon of this kind in Python costs at least.
_BARE = """
import asyncio, sqlite3, msgspec
print("ready", flush=True)
asyncio.run(asyncio.Event().wait())
"""

_NOTHING = """
import threading
print("ready", flush=True)
threading.Event().wait()
"""

_CLIENT = """
import sys, threading, xybridd
client = xybridd.connect(app="bench", socket=sys.argv[1])
client.record_inference("whisper-tiny", "1.0", 212.5)
assert client.flush(timeout_s=30)
print("ready", flush=True)
threading.Event().wait()
"""


class _Seen(NamedTuple):
    """CPU as a share of one core; the others are counts of the time watched."""

    cpu_percent: float
    wakeups: int
    written_bytes: int


@contextlib.contextmanager
def _process(code: str, *arguments: str) -> Iterator[int]:
    """Another Python, once it says that it is ready; its pid."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _watch(pids: list[int], for_s: float) -> list[_Seen]:
    def now() -> list[tuple[float, int, int]]:
        return [(cpu_s(pid), wakeups(pid), written_bytes(pid)) for pid in pids]

    before = now()
    time.sleep(for_s)
    return [
        _Seen((after[0] - start[0]) / for_s * 100, after[1] - start[1], after[2] - start[2])
        for start, after in zip(before, now(), strict=True)
    ]


def measure(bench: Bench) -> list[Row]:
    # The first round of every job is over after a minute: what follows is what any later minute looks like.
    settle_s, watch_s = (3.0, 10.0) if bench.quick else (65.0, 60.0)
    span = f"{watch_s:.0f} s"
    with (
        bench.daemon() as daemon,
        _process(_BARE) as bare,
        _process(_NOTHING) as nothing,
        _process(_CLIENT, str(daemon.socket)) as client,
    ):
        time.sleep(settle_s)
        ours, theirs, connected = _watch([daemon.pid, bare, client], watch_s)
        full, bare_full = psutil.Process(daemon.pid).memory_full_info(), psutil.Process(bare).memory_full_info()
        floor = "a bare event loop"
        return [
            Row(
                "idle: resident memory (RSS)",
                resident_bytes(daemon.pid) / _MB,
                "MB",
                Floor(floor, resident_bytes(bare) / _MB),
                at_most(31),
            ),
            Row("idle: memory of its own (USS)", full.uss / _MB, "MB", Floor(floor, bare_full.uss / _MB)),
            Row(f"idle: CPU over {span}", ours.cpu_percent, "%", Floor(floor, theirs.cpu_percent), at_most(0.05)),
            Row(
                f"idle: wakeups a minute, over {span}",
                ours.wakeups * 60 / watch_s,
                "a minute",
                Floor(floor, theirs.wakeups * 60 / watch_s),
                at_most(1),
            ),
            Row(
                f"idle: written over {span}",
                ours.written_bytes,
                "bytes",
                Floor(floor, theirs.written_bytes),
                at_most(0),
            ),
            Row(
                f"idle: wakeups of a connected client, over {span}",
                connected.wakeups * 60 / watch_s,
                "a minute",
                None,
                at_most(0),
            ),
            Row(
                "idle: resident memory (RSS) of an app with a connected client",
                resident_bytes(client) / _MB,
                "MB",
                Floor("an app that does nothing", resident_bytes(nothing) / _MB),
            ),
        ]
