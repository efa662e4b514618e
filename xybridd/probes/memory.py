"""Memory: what the machine has left, and what every cgroup above a process leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psutil

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.macos import SYSCTL, VM_STAT, parse_sysctl, parse_vm_stat
from xybridd.probes.probe import Probe, Quantity, sure, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.probes.tree import Tree


def parse_meminfo(text: str) -> dict[str, int]:
    """The fields of /proc/meminfo in bytes; lines that are no such field are passed over."""
    sizes = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit() and unit in {"kB", ""}:
            sizes[name] = int(number) * (1024 if unit else 1)
    return sizes


class _Hierarchy(NamedTuple):
    """Where a version of cgroups keeps its limits, and under which names."""

    folder: str
    limit: str
    used: str
    cache: str


_V2 = _Hierarchy("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Hierarchy("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def parse_cgroup(text: str) -> list[tuple[_Hierarchy, str]]:
    """Where a process stands, from /proc/PID/cgroup: ``0::/path`` (version 2), ``4:memory:/path`` (version 1)."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            found.append((_V2, path.rstrip("/")))
        elif "memory" in controllers.split(","):
            found.append((_V1, path.rstrip("/")))
    return found


def cgroup_room(tree: Tree, process: str) -> tuple[int, int, str] | None:
    """The tightest limit above a process: its size, what it leaves, where it stands; None when there is none.

    What a cgroup leaves is its limit less what is in use, plus the file cache that the kernel would give back first.
    """
    tightest = None
    stands = parse_cgroup(tree.text(f"/proc/{process}/cgroup").value or "")
    # A recording may have left that file out; a container's own limits stand at the root that it sees.
    for kind, path in stands or ([] if tree.live else [(_V2, ""), (_V1, "")]):
        for folder in _upwards(kind.folder, path):
            limit = tree.number(f"{folder}/{kind.limit}").value
            used = tree.number(f"{folder}/{kind.used}").value
            if limit is None or used is None:
                continue
            cache = _reclaimable(tree.text(f"{folder}/memory.stat").value or "", kind.cache)
            left = max(0, min(limit, limit - used + cache))
            if tightest is None or left < tightest[1]:
                tightest = (limit, left, f"{folder}/{kind.limit}")
    return tightest


def _upwards(folder: str, path: str) -> Iterator[str]:
    while path:
        yield folder + path
        path = path.rpartition("/")[0]
    yield folder


def _reclaimable(stat: str, name: str) -> int:
    for line in stat.splitlines():
        found, _, number = line.partition(" ")
        if found == name and number.isdigit():
            return int(number)
    return 0


def read_memory(tree: Tree, now_s: float, process: str = "self") -> dict[str, Reading]:
    """``memory``: bytes total and available to a process: the smaller of the machine's and its cgroups'."""
    found = tree.text("/proc/meminfo")
    sizes = parse_meminfo(found.value or "")
    if "MemTotal" not in sizes:
        if tree.platform == "darwin":
            return {"memory": _of_a_mac(tree, now_s)}
        return {"memory": unknown(now_s, found.problem or "there is no /proc/meminfo")}
    total = sizes["MemTotal"]
    available = sizes.get("MemAvailable", sizes.get("MemFree", 0))
    source, confidence = "/proc/meminfo", Confidence.HIGH if "MemAvailable" in sizes else Confidence.MEDIUM
    room = cgroup_room(tree, process)
    if room is not None:
        limit, left, place = room
        if left < available:
            available, source = left, place
        total = min(total, limit)
    return {"memory": Reading({"available_bytes": available, "total_bytes": total}, confidence, source, now_s)}


def _of_a_mac(tree: Tree, now_s: float) -> Reading:
    if tree.live:
        machine = psutil.virtual_memory()
        table = {"available_bytes": machine.available, "total_bytes": machine.total}
        return sure(table, now_s, "psutil.virtual_memory")
    told, pages = tree.output(*SYSCTL), tree.output(*VM_STAT)
    total = parse_sysctl((told.value or b"").decode(errors="replace")).get("hw.memsize", "")
    available = parse_vm_stat((pages.value or b"").decode(errors="replace"))
    if not total.isdecimal() or available is None:
        return unknown(now_s, told.problem or pages.problem or "no size of memory", told.path)
    return sure({"available_bytes": min(available, int(total)), "total_bytes": int(total)}, now_s, pages.path)


MEMORY = Probe("memory", (Quantity("memory", "bytes", "table"),), read_memory)
