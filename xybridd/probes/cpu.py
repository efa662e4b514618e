"""Cores and load of the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.probe import Probe, Quantity, sure, unknown

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree


def parse_cores(stat: str) -> int:
    """How many logical cores /proc/stat counts: its lines ``cpu0``, ``cpu1`` …."""
    return sum(line[:3] == "cpu" and line[3:4].isdigit() for line in stat.splitlines())


def read_cpu(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``cpu_cores``: logical ones that are on. ``cpu_usage_percent``: 0 to 100, since the last reading.

    The first reading has no interval to speak of, and a recorded tree never has: there, usage is unknown.
    """
    found = tree.text("/proc/stat")
    live = str(tree.root) == "/"
    cores = parse_cores(found.value or "") or (psutil.cpu_count(logical=True) if live else None)
    readings = {
        "cpu_cores": sure(cores, now_s, "/proc/stat") if cores else unknown(now_s, found.problem or "no /proc/stat"),
        "cpu_usage_percent": unknown(now_s, "a recorded tree has no interval"),
    }
    if live:
        usage = min(max(psutil.cpu_percent(interval=None), 0.0), 100.0)
        confidence = Confidence.MEDIUM if usage > 0 else Confidence.LOW
        readings["cpu_usage_percent"] = Reading(usage, confidence, "psutil.cpu_percent", now_s)
    return readings


CPU = Probe("cpu", (Quantity("cpu_cores", "cores", "number"), Quantity("cpu_usage_percent", "%", "number")), read_cpu)
