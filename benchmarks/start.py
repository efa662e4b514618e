"""From nothing to ready."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.rows import Floor, Row, at_most, median
from tests.support import Daemon

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench


def _bare_ms() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import asyncio, sqlite3"], check=True)
    return (time.perf_counter() - started) * 1000


def _ready_ms(folder: Path) -> float:
    """Milliseconds from starting a process to its line with ``ready``."""
    daemon = Daemon(folder)
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "xybridd", "run"], env=daemon.env, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if b"ready" in line:
                break
        return (time.perf_counter() - started) * 1000
    finally:
        process.terminate()
        process.stderr.read()
        process.stderr.close()
        process.wait(10)


def measure(bench: Bench) -> list[Row]:
    fresh, again, bare = [], [], []
    _bare_ms()
    for _ in range(bench.rounds(20, 7)):
        with bench.own_folder() as folder:
            fresh.append(_ready_ms(folder))
            again.append(_ready_ms(folder))
        bare.append(_bare_ms())
    least = Floor("python -c 'import asyncio, sqlite3'", median(bare))
    return [
        Row("start to ready, with data from before", median(again), "ms", least, at_most(300)),
        Row("start to ready, first start", median(fresh), "ms", least, at_most(300)),
    ]
