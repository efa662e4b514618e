"""What looking at the device costs: every probe once, on this machine and on the richest tree that the tests have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import Floor, Row, median
from tests.probes.given import tree as made
from tests.probes.machines_gpu_npu import EIGHT_GPUS
from tests.probes.machines_power_thermal import CORE_ULTRA_LAPTOP
from xybridd.probes.recorded import open_tree
from xybridd.probes.register import PROBES

if TYPE_CHECKING:
    from benchmarks.bench import Bench


def _once(root: Path) -> tuple[float, float, int]:
    """Wall and CPU milliseconds of one full probe, and how many paths it looked at."""
    tree = open_tree(root)
    started, cpu = time.perf_counter(), time.thread_time()
    for probe in PROBES:
        probe.read(tree, 0.0)
    return (time.perf_counter() - started) * 1000, (time.thread_time() - cpu) * 1000, len(tree.looked)


def _reads_ms(count: int) -> float:
    """As many plain reads of a small file of proc."""
    started = time.perf_counter()
    for _ in range(count):
        Path("/proc/self/stat").read_bytes()
    return (time.perf_counter() - started) * 1000


def measure(bench: Bench) -> list[Row]:
    rows = []
    with bench.own_folder() as folder:
        made(folder / "richest", {**CORE_ULTRA_LAPTOP, **EIGHT_GPUS})
        for name, root in (("this machine", Path("/")), ("eight GPUs", folder / "richest")):
            _once(root)
            runs = [_once(root) for _ in range(bench.rounds(100, 20))]
            paths = runs[0][2]
            floor = Floor(f"{paths} plain reads", median([_reads_ms(paths) for _ in range(20)]))
            rows += [
                Row(f"a full probe of {name}", median([wall for wall, _, _ in runs]), "ms", floor),
                Row(f"a full probe of {name}: worst", max(wall for wall, _, _ in runs), "ms"),
                Row(f"a full probe of {name}: CPU", median([cpu for _, cpu, _ in runs]), "ms"),
                Row(f"a full probe of {name}: paths looked at", paths, "paths"),
            ]
    return rows
