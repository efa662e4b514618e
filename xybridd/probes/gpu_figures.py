"""What a GPU says of itself in sysfs: memory, load, heat, power and throttling, driver by driver.

Sources: the kernel's ``gpu/amdgpu/driver-misc``, ``sysfs-driver-intel-i915``, ``sysfs-driver-intel-xe-hwmon`` and
``xe_gt_throttle``. Nothing here is read of a GPU that sleeps.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xybridd.probes.gpu_amd import parse_gpu_metrics, reasons_of_growth
from xybridd.probes.growth import Growth
from xybridd.probes.pci import PCI_DEVICES

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

#: APUs by PCI id, for kernels that do not say it otherwise.
_APUS = frozenset(
    {
        0x98E4, 0x9874, 0x15DD, 0x15D8, 0x1636, 0x1638, 0x164C, 0x164D, 0x164E, 0x163F, 0x1681, 0x1435, 0x1506,
        0x15BF, 0x15C8, 0x1900, 0x1901, 0x150E, 0x1586, 0x1114, 0x13C0,
    }
)  # fmt: skip

#: The reasons, i915's, xe's and NVML's, that mean heat, and not a power limit.
HEAT_REASONS = frozenset(
    {"thermal", "prochot", "ratl", "vr_thermalert", "soc_thermal", "mem_thermal", "hw_thermal", "sw_thermal"}
)

_GROWTH = Growth()

#: The kernel counts time asleep in steps; over less than this, a share of it says little.
_SHORTEST_S = 1.0

_LOAD = re.compile(r"(\d{1,4})(@\d+Hz)?")


def temperature_c(millidegrees: int | None) -> float | None:
    """°C from thousandths; None for what no chip in use can have, such as a sensor's −256 or 65,261."""
    return millidegrees / 1000 if millidegrees is not None and -40_000 < millidegrees < 150_000 else None


def power_w(microwatts: int | None) -> float | None:
    return microwatts / 1e6 if microwatts is not None and 0 <= microwatts < 5_000_000_000 else None


def percent(value: int | None) -> float | None:
    return float(value) if value is not None and 0 <= value <= 100 else None


def size(value: int | None) -> int | None:
    return value if value is not None and 0 <= value < 2**50 else None


def parse_load(text: str) -> float | None:
    """Percent from a ``load`` file: Tegra's is in thousandths, Arm's own driver's reads ``37@300000000Hz``."""
    found = _LOAD.fullmatch(text)
    if found is None:
        return None
    value = int(found[1]) if found[2] else int(found[1]) / 10
    return float(value) if value <= 100 else None


def is_apu(*, labels: set[str], attributes: set[str], beside_amd: bool, device_id: int) -> bool | None:
    """Whether an AMD GPU shares the machine's memory; None when nothing tells.

    The driver shows the north bridge's voltage (``vddnb``) for APUs alone, fans, a junction temperature and the
    memory's maker for cards alone; an APU has other AMD (0x1022) functions in its slot.
    """
    if "vddnb" in labels or device_id in _APUS or beside_amd:
        return True
    if "junction" in labels or attributes & {"fan1_input", "pwm1"}:
        return False
    return None


def throttling(reasons: dict[str, int | None]) -> tuple[bool | None, list[str]]:
    """Whether it is held back and why, from 0/1 files by reason; None when there was none to read."""
    known = {name: value for name, value in reasons.items() if value is not None}
    if not known:
        return None, []
    active = sorted(name for name, value in known.items() if value and name != "status")
    return bool(active or known.get("status")), active


class _Reader:
    """Reads attributes and keeps what went wrong."""

    def __init__(self, tree: Tree, now_s: float) -> None:
        self.tree = tree
        self.now_s = now_s
        self.problems: list[str] = []

    def number(self, path: str) -> int | None:
        found = self.tree.number(path)
        if found.problem:
            self.problems.append(found.problem)
        return found.value


def figures_of(
    tree: Tree, driver: str | None, card: str, bus: str | None, device_id: int, now_s: float
) -> tuple[dict[str, Any], list[str]]:
    """The figures of a card by the names of `Gpu`'s fields, and the problems met."""
    reader = _Reader(tree, now_s)
    if driver in {"amdgpu", "radeon"}:
        figures = _amd(reader, card, bus, device_id)
    elif driver in {"i915", "xe"}:
        figures = _intel(reader, card, bus)
    elif driver == "nouveau":
        figures = _hwmon(reader, f"{card}/device")[0]
    elif bus is None and driver is not None:
        figures = {"temperature_c": _zone_temperature(tree)}
    else:
        figures = {}
    return figures, reader.problems


def _hwmon(reader: _Reader, device: str) -> tuple[dict[str, Any], set[str], set[str]]:
    """Temperature and power of the device's own sensor chip, with its labels and attributes."""
    labels: set[str] = set()
    attributes: set[str] = set()
    figures: dict[str, Any] = {}
    for chip in reader.tree.names(f"{device}/hwmon")[:4]:
        folder = f"{device}/hwmon/{chip}"
        here = set(reader.tree.names(folder))
        attributes |= here
        labels |= {reader.tree.text(f"{folder}/{name}").value or "" for name in sorted(here) if name.endswith("_label")}
        # xe's first is temp2, the package.
        heat = next((name for name in ("temp1_input", "temp2_input") if name in here), None)
        draw = next((name for name in ("power1_average", "power1_input") if name in here), None)
        if heat and figures.get("temperature_c") is None:
            figures["temperature_c"] = temperature_c(reader.number(f"{folder}/{heat}"))
        if draw and figures.get("power_w") is None:
            figures["power_w"] = power_w(reader.number(f"{folder}/{draw}"))
    return figures, labels, attributes


def beside_amd(tree: Tree, bus: str | None) -> bool:
    """Whether another function of the slot is AMD's processor's: its security or USB."""
    if bus is None:
        return False
    slot = bus.rpartition(".")[0]
    others = (f"{slot}.{function}" for function in range(1, 8))
    return any(tree.number(f"{PCI_DEVICES}/{other}/vendor").value == 0x1022 for other in others)


def _amd(reader: _Reader, card: str, bus: str | None, device_id: int) -> dict[str, Any]:
    """Amdgpu's sizes in bytes; an APU's memory is the carved-out part and what it may map (GTT) together."""
    device = f"{card}/device"
    figures, labels, attributes = _hwmon(reader, device)
    total, used = (size(reader.number(f"{device}/mem_info_vram_{what}")) for what in ("total", "used"))
    unified = is_apu(labels=labels, attributes=attributes, beside_amd=beside_amd(reader.tree, bus), device_id=device_id)
    if unified is None:
        maker = reader.tree.text(f"{device}/mem_info_vram_vendor").value
        by_class = reader.number(f"{device}/class") == 0x038000
        unified = False if maker and maker != "unknown" else by_class or None
    if unified:
        more, taken = (size(reader.number(f"{device}/mem_info_gtt_{what}")) for what in ("total", "used"))
        total = total + more if total is not None and more is not None else total
        used = used + taken if used is not None and taken is not None else used
    return {
        **figures,
        **_held_back(reader, device),
        "memory_total_bytes": total,
        "memory_used_bytes": used,
        "unified": unified,
        "utilization_percent": percent(reader.number(f"{device}/gpu_busy_percent")),
    }


def _held_back(reader: _Reader, device: str) -> dict[str, Any]:
    """Whether an AMD GPU is throttled and why; nothing where its table does not tell."""
    table = reader.tree.bytes(f"{device}/gpu_metrics")
    reader.problems += [table.problem] if table.problem else []
    reasons, residencies = parse_gpu_metrics(table.value or b"")
    if residencies:
        grown = _GROWTH.since(f"{reader.tree.root} {device}", residencies, reader.now_s)
        reasons = None if grown is None else reasons_of_growth(grown[0])
    return {} if reasons is None else {"throttled": bool(reasons), "throttle_reasons": reasons}


def _awake_percent(reader: _Reader, card: str) -> float | None:
    """How much of the time since the last reading the busiest part of an Intel GPU was awake.

    That is a little above the work done, since it stays awake for a while after each; who may not measure (perf) has
    nothing better.
    """
    tree, device = reader.tree, f"{card}/device"
    paths = [f"{card}/gt/{gt}/rc6_residency_ms" for gt in _named(tree, f"{card}/gt", "gt")]
    for tile in _named(tree, device, "tile"):
        gts = _named(tree, f"{device}/{tile}", "gt")
        paths += [f"{device}/{tile}/{gt}/gtidle/idle_residency_ms" for gt in gts]
    asleep_ms = {path: count for path in paths if (count := reader.number(path)) is not None and 0 <= count < 2**53}
    grown = _GROWTH.since(f"{tree.root} {card}", asleep_ms, reader.now_s) if asleep_ms else None
    if grown is None or not grown[0] or grown[1] < _SHORTEST_S:
        return None
    shares = [1 - by_ms / (grown[1] * 1000) for by_ms in grown[0].values()]
    return round(100 * min(max(0.0, *shares), 1.0), 1)


def _intel(reader: _Reader, card: str, bus: str | None) -> dict[str, Any]:
    """i915 and xe: a chip on bus 00 is integrated; only a card has memory of its own."""
    tree, device = reader.tree, f"{card}/device"
    figures = _hwmon(reader, device)[0]
    total = size(reader.number(f"{card}/lmem_total_bytes"))
    free = size(reader.number(f"{card}/lmem_avail_bytes"))
    reasons: dict[str, int | None] = {}
    for gt in _named(tree, f"{card}/gt", "gt"):
        _reasons(reader, f"{card}/gt/{gt}", "throttle_reason_", reasons)
    tile_sizes = []
    for tile in _named(tree, device, "tile"):
        tile_sizes.append(size(reader.number(f"{device}/{tile}/physical_vram_size_bytes")) or 0)
        for gt in _named(tree, f"{device}/{tile}", "gt"):
            for folder in (f"{device}/{tile}/{gt}/freq0/throttle", f"{device}/{tile}/{gt}/throttle"):
                _reasons(reader, folder, "reason_", reasons)
                _reasons(reader, folder, "status", reasons)
    total = total or sum(tile_sizes) or None
    unified = False if total else None if bus is None else bus.startswith("0000:00:")
    throttled, why = throttling(reasons)
    return {
        **figures,
        "memory_total_bytes": total,
        "memory_used_bytes": total - free if total is not None and free is not None and free <= total else None,
        "unified": unified,
        "utilization_percent": _awake_percent(reader, card),
        "throttled": throttled,
        "throttle_reasons": why,
    }


def _named(tree: Tree, folder: str, prefix: str) -> list[str]:
    return [name for name in tree.names(folder) if re.fullmatch(rf"{prefix}\d{{1,2}}", name)]


def _reasons(reader: _Reader, folder: str, prefix: str, into: dict[str, int | None]) -> None:
    for name in reader.tree.names(folder):
        if name.startswith(prefix):
            reason = name.removeprefix("throttle_").removeprefix("reason_")
            value = reader.number(f"{folder}/{name}")
            into[reason] = max(into.get(reason) or 0, value) if value is not None else into.get(reason)


def load_of(tree: Tree, devfreq: str) -> dict[str, Any]:
    """Utilisation and temperature of a GPU on a system on chip."""
    places = (
        f"{devfreq}/device/load",
        f"{devfreq}/load",
        "/sys/devices/platform/gpu.0/load",
        "/sys/devices/gpu.0/load",
    )
    for place in places:
        load = parse_load(tree.text(place).value or "")
        if load is not None:
            break
    else:
        load = None
    return {"utilization_percent": load, "temperature_c": _zone_temperature(tree)}


def _zone_temperature(tree: Tree) -> float | None:
    """The hottest thermal zone that is named for the GPU: ``gpu-thermal``, Tegra's ``GPU-therm``, ``gpuss-0``."""
    hottest = None
    for zone in tree.names("/sys/class/thermal"):
        if not zone.startswith("thermal_zone"):
            continue
        kind = tree.text(f"/sys/class/thermal/{zone}/type").value or ""
        if re.fullmatch(r"gpu(ss)?[-_]?\d*([-_]?therm(al)?)?", kind, re.IGNORECASE):
            heat = temperature_c(tree.number(f"/sys/class/thermal/{zone}/temp").value)
            hottest = heat if hottest is None else max(hottest, heat or hottest)
    return hottest
