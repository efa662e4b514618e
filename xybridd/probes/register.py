"""Every probe there is, in the order in which they run: the quick and certain first; and what they say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xybridd.core.capabilities import DeviceState, Reading, ThermalState, capabilities_from
from xybridd.probes.cpu import CPU
from xybridd.probes.gpu import GPU
from xybridd.probes.gpu_figures import HEAT_REASONS
from xybridd.probes.memory import MEMORY
from xybridd.probes.network import NETWORK
from xybridd.probes.npu import NPU
from xybridd.probes.platform import PLATFORM
from xybridd.probes.power import POWER
from xybridd.probes.thermal import THERMAL, worst

if TYPE_CHECKING:
    from xybridd.probes.probe import Probe
    from xybridd.probes.tree import Tree

PROBES: tuple[Probe, ...] = (PLATFORM, CPU, MEMORY, NETWORK, POWER, THERMAL, GPU, NPU)


def read_all(tree: Tree, now_s: float) -> DeviceState:
    """Every probe once, here and now: for who has nothing else to do meanwhile."""
    readings: dict[str, Reading] = {}
    for probe in PROBES:
        readings |= probe.read(tree, now_s)
    return together(readings)


def together(readings: dict[str, Reading]) -> DeviceState:
    """What follows from the readings. A GPU that heat holds back makes the device hot, whatever its sensors say."""
    heat = readings.get("thermal_state")
    if heat is not None and (gpus := _held_back_by_heat(readings.get("gpu"))):
        state = worst([ThermalState(heat.value or ThermalState.NORMAL), ThermalState.HOT])
        source = heat.source if heat.value == state else "gpu"
        reason = "; ".join([f"heat holds back {name}" for name in gpus] + ([heat.reason] if heat.reason else []))
        confidence = heat.confidence if heat.value == state else readings["gpu"].confidence
        readings = readings | {"thermal_state": Reading(state, confidence, source, heat.taken_s, reason)}
        table = readings["thermal"]
        if table.value and "state_if_5c_warmer" in table.value:
            warmer = worst([ThermalState(table.value["state_if_5c_warmer"]), state])
            value = table.value | {"state_if_5c_warmer": warmer}
            readings["thermal"] = msgspec.structs.replace(table, value=value)
    return DeviceState(capabilities_from(readings), readings)


def _held_back_by_heat(gpus: Reading | None) -> list[str]:
    found = [] if gpus is None or gpus.value is None else gpus.value
    return [str(gpu.get("name")) for gpu in found if HEAT_REASONS.intersection(gpu.get("throttle_reasons", ()))]
