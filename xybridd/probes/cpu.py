"""Cores and load of the processor."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import psutil

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.macos import SYSCTL, parse_sysctl
from xybridd.probes.probe import Probe, Quantity, sure, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.probes.tree import Tree


def parse_cores(stat: str) -> int:
    """How many logical cores /proc/stat counts: its lines ``cpu0``, ``cpu1`` …."""
    return sum(line[:3] == "cpu" and line[3:4].isdigit() for line in stat.splitlines())


def parse_online(ranges: str) -> int:
    """How many processors a list of the kernel's names: ``0-3,6``; 0 when it is no such list."""
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", ranges):
        return 0
    ends = (each.partition("-") for each in ranges.split(","))
    return sum(max(0, int(last or first) - int(first) + 1) for first, _, last in ends)


def parse_cpuinfo(text: str) -> int:
    return len(re.findall(r"^processor\s*:", text, re.MULTILINE))


_CPUS = "/sys/devices/system/cpu"
#: Not every recording has all of these.
_CORES = (
    ("/proc/stat", parse_cores),
    ("/sys/devices/system/cpu/online", parse_online),
    ("/proc/cpuinfo", parse_cpuinfo),
)


def read_cpu(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``cpu_cores``: logical ones that are on. ``cpu_usage_percent``: 0 to 100, since the last reading.

    The first reading has no interval to speak of, and a recorded tree never has: there, usage is unknown.
    """
    readings = {
        "cpu_cores": _read_cores(tree, now_s),
        "cpu_usage_percent": unknown(now_s, "a recorded tree has no interval"),
    }
    if tree.live:
        usage = min(max(psutil.cpu_percent(interval=None), 0.0), 100.0)
        confidence = Confidence.MEDIUM if usage > 0 else Confidence.LOW
        readings["cpu_usage_percent"] = Reading(usage, confidence, "psutil.cpu_percent", now_s)
    return readings


def _read_cores(tree: Tree, now_s: float) -> Reading:
    if tree.platform == "darwin":
        if tree.live:
            return sure(psutil.cpu_count(logical=True) or 1, now_s, "psutil.cpu_count")
        told = tree.output(*SYSCTL)
        cores = parse_sysctl((told.value or b"").decode(errors="replace")).get("hw.logicalcpu", "")
        return sure(int(cores), now_s, told.path) if _is_count(cores) else unknown(now_s, told.problem, told.path)
    problems = []
    for path, parse in _CORES:
        found = tree.text(path)
        if count := parse(found.value or ""):
            return sure(count, now_s, path)
        problems += [found.problem] if found.problem else []
    listed = sum(re.fullmatch(r"cpu\d+", name) is not None for name in tree.names(_CPUS))
    if listed:
        return Reading(listed, Confidence.MEDIUM, _CPUS, now_s, "some may be off")
    return unknown(now_s, "; ".join(problems) or "no /proc/stat")


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and int(text) > 0


def parse_quota(text: str) -> float | None:
    """Processors' worth of time from cgroup's ``cpu.max``, ``150000 100000``; None without a limit."""
    found = re.fullmatch(r"(\d{1,12})\s+(\d{1,12})", text)
    return int(found[1]) / int(found[2]) if found and int(found[1]) and int(found[2]) else None


def _quotas(tree: Tree, process: str) -> Iterator[tuple[float, str]]:
    """The limits of every cgroup above a process, and where they stand."""
    for line in (tree.text(f"/proc/{process}/cgroup").value or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number != "0" or controllers) and "cpu" not in controllers.split(","):
            continue
        while True:
            path = path.rstrip("/")
            if number == "0":
                place = f"/sys/fs/cgroup{path}/cpu.max"
                quota = parse_quota(tree.text(place).value or "")
            else:  # version 1
                place = f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"
                period = tree.text(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_period_us").value
                quota = parse_quota(f"{tree.text(place).value} {period}")
            if quota is not None:
                yield quota, place
            if not path:
                break
            path = path.rpartition("/")[0]


def read_cores_of(tree: Tree, now_s: float, process: str) -> Reading:
    """The processors that a process may use: those of its affinity, or as much time as its cgroups give, in whole."""
    found: list[tuple[int, str]] = [(math.ceil(quota), place) for quota, place in _quotas(tree, process)]
    status = tree.text(f"/proc/{process}/status").value or ""
    if allowed := re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE):
        found.append((parse_online(allowed[1]), f"/proc/{process}/status"))
    found = [(cores, place) for cores, place in found if cores > 0]
    if not found:
        return unknown(now_s, "neither an affinity nor a limit is to be seen")
    cores, place = min(found)
    return sure(cores, now_s, place)


CPU = Probe("cpu", (Quantity("cpu_cores", "cores", "number"), Quantity("cpu_usage_percent", "%", "number")), read_cpu)
