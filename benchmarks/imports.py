"""What importing costs an app, in time and in memory, beside the imports of peers: each in a process of its own.

The time is CPU time, which is the time that it takes on a machine that has nothing else to do. The turns go round, so
that a machine that gets slower does so for all of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rows import Floor, Row, at_most, median

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_MB = 1_000_000

_RESIDENT = f"""
with open("/proc/self/statm", "rb") as file:
    print(int(file.read().split()[1]) * {os.sysconf("SC_PAGE_SIZE")})
"""

#: The least that an app has of xybridd when it records: the client's thread with what that imports, and a connection.
_RECORDING = """
import sys, xybridd
client = xybridd.connect(app="bench", socket=sys.argv[1])
client.record_inference("whisper-tiny", "1.0", 1.0)
assert client.flush(timeout_s=30)
"""

#: Those that are not installed have no row.
_PEERS = ("msgspec", "prometheus_client", "datadog", "opentelemetry.sdk.metrics", "glean")


class _Run(NamedTuple):
    """``ms`` from the start of the interpreter to its end."""

    ms: float
    resident_mb: float


def _run(code: str, *arguments: str) -> _Run | None:
    """None when it failed: what it imports is not installed."""
    before = _cpu_of_children_s()
    done = subprocess.run([sys.executable, "-c", code + _RESIDENT, *arguments], capture_output=True, check=False)
    ms = (_cpu_of_children_s() - before) * 1000
    return None if done.returncode else _Run(ms, int(done.stdout) / _MB)


def _cpu_of_children_s() -> float:
    """Of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _medians(codes: dict[str, str], rounds: int, *arguments: str) -> dict[str, _Run]:
    runs: dict[str, list[_Run]] = {}
    for number in range(rounds + 1):
        for name, code in codes.items():
            run = _run(code, *arguments)
            if run is not None and number:  # the first fills the file system's cache
                runs.setdefault(name, []).append(run)
    return {
        name: _Run(median([run.ms for run in found]), median([run.resident_mb for run in found]))
        for name, found in runs.items()
    }


def measure(bench: Bench) -> list[Row]:
    codes = {"nothing": "", **{name: f"import {name}" for name in ("xybridd", *_PEERS)}, "recording": _RECORDING}
    with bench.daemon() as daemon:
        found = _medians(codes, bench.rounds(20, 5), str(daemon.socket))
    nothing = found.pop("nothing")
    beyond = {name: _Run(run.ms - nothing.ms, run.resident_mb - nothing.resident_mb) for name, run in found.items()}
    recording, ours = beyond.pop("recording"), beyond.pop("xybridd")
    rows = [
        Row("an interpreter that does nothing", nothing.ms, "ms of CPU"),
        Row("an interpreter that does nothing: memory (RSS)", nothing.resident_mb, "MB"),
        Row("import xybridd, beyond that", ours.ms, "ms of CPU", None, at_most(40)),
        Row("import xybridd: memory (RSS), beyond that", ours.resident_mb, "MB"),
        Row("import, connect, record, flush, end, beyond that", recording.ms, "ms of CPU"),
        Row("import, connect, record, flush: memory (RSS), beyond that", recording.resident_mb, "MB"),
    ]
    for name, run in beyond.items():
        rows += [
            Row(f"import {name}", run.ms, "ms of CPU", Floor("import xybridd", ours.ms)),
            Row(f"import {name}: memory (RSS)", run.resident_mb, "MB", Floor("import xybridd", ours.resident_mb)),
        ]
    return rows
