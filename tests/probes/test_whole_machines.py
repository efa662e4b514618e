"""Whole machines, every probe on one tree: what the v2.0 fields and the advice make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.probes import machines_gpu_npu as gpus
from tests.probes import machines_power_thermal as powers
from tests.probes.given import tree
from xybridd.core.advice import advise
from xybridd.core.capabilities import DeviceState, Reading, capabilities_from
from xybridd.probes.register import PROBES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMON = {"/proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB", "/proc/stat": "cpu 1\ncpu0 1\ncpu1 1"}

#: What the files say → has_gpu, gpu_type, has_npu, battery_level, thermal_state, and what to prefer.
MACHINES: dict[str, tuple[tuple[Mapping[str, Any], ...], tuple[Any, ...]]] = {
    "desktop with NVIDIA": ((gpus.NVIDIA, powers.DESKTOP), (True, "Vulkan", False, 100, "Normal", "gpu")),
    "the same without its driver": (
        (gpus.NVIDIA_DRIVERLESS, powers.DESKTOP),
        (True, "None", False, 100, "Normal", "cpu"),
    ),
    "Ryzen APU laptop": ((gpus.STRIX_POINT, powers.RYZEN_LAPTOP), (True, "Vulkan", True, 62, "Normal", "npu")),
    "Core Ultra laptop": ((gpus.CORE_ULTRA, powers.CORE_ULTRA_LAPTOP), (True, "Vulkan", True, None, None, "npu")),
    "old Intel laptop": ((gpus.OLD_INTEL, powers.OLD_INTEL_LAPTOP), (True, None, False, None, None, None)),
    "Jetson Orin": ((gpus.JETSON_ORIN, powers.JETSON_ORIN), (True, "Vulkan", False, 100, "Normal", "gpu")),
    "Raspberry Pi 5": ((gpus.RASPBERRY_PI_5, powers.RASPBERRY_PI_5), (True, "Vulkan", True, 100, "Normal", "npu")),
    "RK3588 board": ((gpus.RK3588, powers.RK3588), (True, None, True, 100, None, "npu")),
    "server with eight GPUs": ((gpus.EIGHT_GPUS, powers.SERVER), (True, None, False, 100, None, "gpu")),
    "virtual machine with none": (
        (gpus.VM_WITH_NONE, powers.VIRTUAL_MACHINE),
        (False, "None", False, 100, "Normal", "cpu"),
    ),
    "WSL": ((gpus.WSL, powers.VIRTUAL_MACHINE), (True, None, False, 100, "Normal", "gpu")),
}


def state_of(folder: Path, parts: tuple[Mapping[str, Any], ...]) -> DeviceState:
    files: dict[str, Any] = {}
    for part in (COMMON, *parts):
        files |= part
    machine = tree(folder, files)
    readings: dict[str, Reading] = {}
    for probe in PROBES:
        readings |= probe.read(machine, 1.0)
    return DeviceState(capabilities_from(readings), readings)


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_machine_is(tmp_path: Path, name: str) -> None:
    parts, expected = MACHINES[name]
    state = state_of(tmp_path, parts)
    caps = state.capabilities
    advice = advise(state, available_mb=caps.memory_available_mb)
    found = (caps.has_gpu, caps.gpu_type, caps.has_npu, caps.battery_level, caps.thermal_state, advice.prefer)
    told = tuple(value if wanted is not None else None for value, wanted in zip(found, expected, strict=True))
    assert told == expected
    assert caps.memory_total_mb == 16 * 1024
    assert caps.platform == "Linux"


@pytest.mark.parametrize("name", MACHINES)
def test_reading_twice_says_the_same(tmp_path: Path, name: str) -> None:
    parts, _ = MACHINES[name]
    first = state_of(tmp_path / "once", parts).capabilities
    assert state_of(tmp_path / "twice", parts).capabilities == first


def test_nothing_at_all_is_told_honestly(tmp_path: Path) -> None:
    state = state_of(tmp_path, ())
    assert state.capabilities.gpu_confidence == "Unknown"
    assert state.capabilities.npu_confidence in {"Unknown", "High"}
    assert not state.capabilities.has_gpu
