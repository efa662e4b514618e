"""What one record costs an app in C, beside one event of an LTTng-UST tracepoint with the same payload.

LTTng-UST is the nearest relative of the ring: the app's thread writes events into shared memory, without a lock. Its
session is in snapshot mode here, the cheapest: the newest events stay in memory, and nothing reads them. It needs
`lttng-tools` and `liblttng-ust-dev` (Debian), a compiler, and no session daemon that runs already; otherwise this
benchmark is left out and says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Floor, Row, at_most_times_floor, median, percentile
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

_HERE = Path(__file__).parent
_SESSION = "xybridd-bench"


class _Missing(Exception):
    """What this benchmark needs is not there; the message says what."""


def measure(bench: Bench) -> list[Row]:
    turns, bursts = bench.rounds(9, 3), bench.rounds(1000, 200)
    try:
        with bench.own_folder() as folder, _session(folder) as env:
            program = _compiled(folder)
            found: dict[tuple[str, str], list[list[float]]] = {}
            for _ in range(turns):
                for what, how in (("clock", "plain"), *((a, b) for b in ("plain", "stats") for a in ("ring", "lttng"))):
                    command = [str(program), what, how, str(folder), str(bursts)]
                    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
                    found.setdefault((what, how), []).append([float(line) for line in said.split()])
    except _Missing as exc:
        print(f"lttng: left out: {exc}", file=sys.stderr)
        return []
    rows = [_row("clock_gettime alone, in the same loop", found["clock", "plain"])]
    for how, title in (("plain", "one record from C"), ("stats", "one record from C, with two stats")):
        ours, theirs = found["ring", how], found["lttng", how]
        rows.append(_row(title, ours, theirs, 0.5))
        rows.append(
            Row(f"{title}: p99 of loops of 1,000", _of(ours, 0.99), "ns", Floor("LTTng-UST event", _of(theirs, 0.99)))
        )
    return rows


def _of(turns: list[list[float]], fraction: float) -> float:
    """The median of the turns."""
    return median([percentile(turn, fraction) for turn in turns])


def _row(what: str, ours: list[list[float]], theirs: list[list[float]] | None = None, most: float = 1.0) -> Row:
    if theirs is None:
        return Row(what, _of(ours, 0.5), "ns")
    return Row(what, _of(ours, 0.5), "ns", Floor("LTTng-UST event", _of(theirs, 0.5)), at_most_times_floor(most))


def _compiled(folder: Path) -> Path:
    program = folder / "lttng_record"
    includes = ["-I", str(_HERE), "-I", str(_HERE.parent / "examples" / "clients")]
    command = ["cc", "-std=gnu11", "-O2", *includes, "-o", str(program), str(_HERE / "lttng_record.c")]
    done = subprocess.run([*command, "-llttng-ust", "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _Missing(f"the program does not compile (Debian: liblttng-ust-dev): {done.stderr.splitlines()[0]}")
    return program


@contextlib.contextmanager
def _session(folder: Path) -> Iterator[dict[str, str]]:
    """A session daemon of its own that records the events; the environment of what it traces."""
    for tool, package in (("cc", "gcc and libc6-dev"), ("lttng", "lttng-tools"), ("lttng-sessiond", "lttng-tools")):
        if shutil.which(tool) is None:
            raise _Missing(f"{tool} is not installed (Debian: {package})")
    # A tracepoint waits for the session daemon to know of it before main starts: else the first turn counts nothing.
    env = {**os.environ, "LTTNG_HOME": str(folder), "LTTNG_UST_REGISTER_TIMEOUT": "-1"}

    def lttng(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["lttng", "--no-sessiond", *words], env=env, capture_output=True, text=True, check=False)

    if lttng("list").returncode == 0:
        raise _Missing("a session daemon of LTTng runs already")
    with subprocess.Popen(
        ["lttng-sessiond", "--no-kernel"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            until(lambda: lttng("list").returncode == 0, "the session daemon of LTTng")
            for words in (
                ("create", _SESSION, "--snapshot", "--output", str(folder / "snapshots")),
                ("enable-channel", "--userspace", "--subbuf-size=512k", "--num-subbuf=4", "--overwrite", "ring"),
                ("enable-event", "--userspace", "--channel=ring", "xybridd_bench:*"),
                ("start",),
            ):
                done = lttng(*words)
                if done.returncode:
                    raise _Missing(f"lttng {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
            yield env
            # What was measured is events that were recorded.
            lttng("snapshot", "record")
            sizes = [each.stat().st_size for each in (folder / "snapshots").rglob("ring_*") if each.is_file()]
            assert sum(sizes) > 2**19, f"LTTng recorded {sum(sizes)} bytes"
        finally:
            lttng("destroy", _SESSION)
            daemon.terminate()
