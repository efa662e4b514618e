"""Whole machines: what their files say, and what is so of them. Every machine has an answer to every question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.probes import machines_gpu_npu as gpus
from tests.probes import machines_power_thermal as powers
from tests.probes.given import tree
from tests.support import DATA
from xybridd.probes.recorded import RecordedTree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GIB = 2**30


def common(total_gib: int = 16) -> dict[str, object]:
    total_kb = total_gib * 2**20
    return {
        "/proc/meminfo": f"MemTotal: {total_kb} kB\nMemFree: 1024 kB\nMemAvailable: {total_kb // 2} kB",
        "/proc/stat": "cpu 1\ncpu0 1\ncpu1 1",
        "/proc/self/cgroup": "0::/user.slice",
        "/proc/net/route": (
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
            "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"
        ),
    }


class Is(NamedTuple):
    """What is so: the v2.0 fields, the power source of ``details``, and the advice that follows."""

    has_gpu: bool
    gpu_type: str
    has_npu: bool
    npu_type: str
    battery_level: int
    power_source: str | None
    thermal_state: str
    should_throttle: bool
    prefer: str
    platform: str = "Linux"
    memory_total_mb: int = 16 * 1024
    memory_available_mb: int = 8 * 1024


class Machine(NamedTuple):
    parts: tuple[Mapping[str, Any], ...]
    is_so: Is


#: The limit stands on the pod, two cgroups above the app; its page cache would be given back.
LIMITED: dict[str, object] = {
    "/proc/self/cgroup": "0::/pod/box/app",
    "/sys/fs/cgroup/pod/memory.max": 2 * GIB,
    "/sys/fs/cgroup/pod/memory.current": GIB,
    "/sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB // 4}",
    "/sys/fs/cgroup/pod/box/memory.max": "max",
    "/sys/fs/cgroup/pod/box/memory.current": GIB,
    "/sys/fs/cgroup/pod/box/app/memory.max": "max",
    "/sys/fs/cgroup/pod/box/app/memory.current": GIB // 2,
}

#: The counters of processors that were throttled long ago.
RESTING_COUNTERS = powers.OLD_INTEL_LAPTOP | powers.throttle_counts((4_812_007, 90_211_334), (3_977_120, 90_211_334))

_NONE = "None"
MACHINES: dict[str, Machine] = {
    "desktop with NVIDIA": Machine(
        (gpus.NVIDIA, powers.DESKTOP), Is(True, "Vulkan", False, _NONE, 100, "ac", "Normal", False, "gpu")
    ),
    "the same without its driver": Machine(
        (gpus.NVIDIA_DRIVERLESS, powers.DESKTOP), Is(True, _NONE, False, _NONE, 100, "ac", "Normal", False, "cpu")
    ),
    "Ryzen APU laptop": Machine(
        (gpus.STRIX_POINT, powers.RYZEN_LAPTOP), Is(True, "Vulkan", True, _NONE, 62, "battery", "Normal", False, "npu")
    ),
    # heat holds its GPU back
    "Core Ultra laptop": Machine(
        (gpus.CORE_ULTRA, powers.CORE_ULTRA_LAPTOP), Is(True, "Vulkan", True, _NONE, 80, "ac", "Hot", True, "npu")
    ),
    # 38 of 60 Wh
    "old Intel laptop": Machine(
        (gpus.OLD_INTEL, powers.OLD_INTEL_LAPTOP), Is(True, "OpenCL", False, _NONE, 63, "ac", "Normal", False, "gpu")
    ),
    "Jetson Orin": Machine(
        (gpus.JETSON_ORIN, powers.JETSON_ORIN), Is(True, "Vulkan", False, _NONE, 100, "ac", "Normal", False, "gpu")
    ),
    "Jetson Orin whose GPU is off": Machine(
        (powers.JETSON_ORIN, gpus.JETSON_GPU_OFF), Is(True, "Vulkan", False, _NONE, 100, "ac", "Normal", False, "gpu")
    ),
    "Raspberry Pi 5": Machine(
        (gpus.RASPBERRY_PI_5, powers.RASPBERRY_PI_5), Is(True, "Vulkan", True, _NONE, 100, "ac", "Normal", False, "npu")
    ),
    "RK3588 board": Machine(
        (gpus.RK3588, powers.RK3588), Is(True, _NONE, True, _NONE, 100, "ac", "Normal", False, "npu")
    ),
    "Coral on USB before its firmware": Machine(
        (gpus.VM_WITH_NONE, gpus.CORAL_BEFORE, powers.SERVER),
        Is(False, _NONE, True, _NONE, 100, "ac", "Normal", False, "npu"),
    ),
    "Coral on USB after its firmware": Machine(
        (gpus.VM_WITH_NONE, gpus.CORAL_AFTER, powers.SERVER),
        Is(False, _NONE, True, _NONE, 100, "ac", "Normal", False, "npu"),
    ),
    "server with eight GPUs": Machine(
        (gpus.EIGHT_GPUS, powers.SERVER), Is(True, _NONE, False, _NONE, 100, "ac", "Normal", False, "gpu")
    ),
    "virtual machine with none": Machine(
        (gpus.VM_WITH_NONE, powers.VIRTUAL_MACHINE), Is(False, _NONE, False, _NONE, 100, "ac", "Normal", False, "cpu")
    ),
    "WSL": Machine(
        (gpus.WSL, powers.VIRTUAL_MACHINE), Is(True, "Vulkan", False, _NONE, 100, "ac", "Normal", False, "gpu")
    ),
    "container with a limit two cgroups up": Machine(
        (gpus.CONTAINER, powers.SERVER, LIMITED),
        Is(True, _NONE, False, _NONE, 100, "ac", "Normal", False, "gpu",
           memory_total_mb=2048, memory_available_mb=1280),
    ),
    "laptop with a wireless mouse and a UPS": Machine(
        (gpus.OLD_INTEL, powers.LAPTOP_WITH_MOUSE_AND_UPS),
        Is(True, "OpenCL", False, _NONE, 100, "ac", "Normal", False, "gpu"),
    ),
    "battery whose capacity lies": Machine(
        (gpus.SLEEPING, powers.LYING_CAPACITY), Is(True, "Vulkan", False, _NONE, 30, "battery", "Normal", False, "cpu")
    ),
    "sensors that say what cannot be": Machine(
        (gpus.VM_WITH_NONE, powers.BROKEN_SENSORS), Is(False, _NONE, False, _NONE, 100, "ac", "Warm", False, "cpu")
    ),
    "throttle counters at rest": Machine(
        (gpus.OLD_INTEL, RESTING_COUNTERS), Is(True, "OpenCL", False, _NONE, 63, "ac", "Normal", False, "gpu")
    ),
    "MacBook with Apple silicon": Machine(
        (), Is(True, "Metal", True, "CoreML", 64, "battery", "Normal", False, "npu", platform="MacOS",
               memory_total_mb=18_432, memory_available_mb=5_120),
    ),
}  # fmt: skip

#: The others by their files; this one by its commands' outputs.
MACBOOK = "MacBook with Apple silicon"
LINUX = [name for name in MACHINES if name != MACBOOK]


def machine(folder: Path, name: str) -> RecordedTree:
    if name == MACBOOK:
        return RecordedTree(DATA / "macbook")
    files: dict[str, Any] = {}
    for part in (common(), *MACHINES[name].parts):
        files |= part
    return tree(folder, files)
