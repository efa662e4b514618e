"""What the device is: the reference's ``HardwareCapabilities``, field for field, and readings beside it.

A `Reading` says not only a value but how sure it is and where it came from. Absent and unknown are different
answers: a value of ``None`` with confidence ``high`` is "there is none", with ``unknown`` "nobody could tell".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from xybridd.core.accelerators import GpuType, gpu_type_for


class NpuType(StrEnum):
    COREML = "CoreML"
    NNAPI = "NNAPI"
    DIRECTML = "DirectML"
    NONE = "None"


class ThermalState(StrEnum):
    NORMAL = "Normal"
    WARM = "Warm"
    HOT = "Hot"
    CRITICAL = "Critical"


class Platform(StrEnum):
    MACOS = "MacOS"
    IOS = "IOS"
    ANDROID = "Android"
    LINUX = "Linux"
    WINDOWS = "Windows"
    UNKNOWN = "Unknown"


class Confidence(StrEnum):
    HIGH = "High"
    MEDIUM = "Medium"
    LOW = "Low"
    UNKNOWN = "Unknown"


class HardwareCapabilities(msgspec.Struct, frozen=True):
    """The names are spelled as in a session's JSON; an export spells them in lower case.

    The defaults are the reference's for a device of which nothing is known.
    """

    has_gpu: bool = False
    gpu_type: GpuType = GpuType.NONE
    has_nnapi: bool = False
    has_metal: bool = False
    has_npu: bool = False
    npu_type: NpuType = NpuType.NONE
    memory_available_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_total_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    cpu_usage_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    cpu_cores: Annotated[int, msgspec.Meta(ge=1)] = 1
    battery_level: Annotated[int, msgspec.Meta(ge=0, le=100)] = 100
    thermal_state: ThermalState = ThermalState.NORMAL
    platform: Platform = Platform.UNKNOWN
    memory_confidence: Confidence = Confidence.LOW
    gpu_confidence: Confidence = Confidence.LOW
    npu_confidence: Confidence = Confidence.LOW


class Reading(msgspec.Struct, frozen=True):
    """One quantity as it was found. ``taken_s`` is monotonic time; the answer to a client says the age.

    ``source`` is the path or the interface it came from; ``reason`` says why it is unknown, or less than sure.
    """

    value: Any
    confidence: Confidence
    source: str | None
    taken_s: float
    reason: str | None = None

    def shown(self, now_s: float) -> dict[str, Any]:
        out = {
            "value": self.value,
            "confidence": self.confidence.value.lower(),
            "source": self.source,
            "age_s": round(max(0.0, now_s - self.taken_s), 3),
        }
        if self.reason is not None:
            out["reason"] = self.reason
        return out


class DeviceState(msgspec.Struct, frozen=True):
    """The readings of one moment by quantity, and the reference's view derived from them."""

    capabilities: HardwareCapabilities
    readings: dict[str, Reading]

    def details(self, now_s: float) -> dict[str, Any]:
        return {name: reading.shown(now_s) for name, reading in self.readings.items()}


def _whole_megabytes(size_bytes: int) -> int:
    return int(size_bytes // 2**20)


def capabilities_from(readings: dict[str, Reading]) -> HardwareCapabilities:
    """Derive the v2.0 fields; a quantity that nobody could tell keeps the reference's default.

    ``has_gpu`` and ``has_npu`` say that there is one; whether it can be used stands in ``details``, and in the advice.
    There is no type for an NPU of Linux: ``has_npu`` with ``npu_type`` None is then the honest answer.
    """

    def value(name: str, default: Any) -> Any:
        reading = readings.get(name)
        return default if reading is None or reading.value is None else reading.value

    def confidence(name: str) -> Confidence:
        reading = readings.get(name)
        return Confidence.UNKNOWN if reading is None else reading.confidence

    sizes: dict[str, int] = value("memory", {})
    gpus: list[dict[str, Any]] = value("gpu", [])
    npus: list[dict[str, Any]] = value("npu", [])
    platform = Platform(value("platform", Platform.UNKNOWN))
    apple = platform in {Platform.MACOS, Platform.IOS}
    return HardwareCapabilities(
        has_gpu=bool(gpus),
        gpu_type=gpu_type_for(gpus, value("graphics_api", {})),
        has_metal=bool(gpus) and apple,
        has_npu=bool(npus),
        npu_type=NpuType.COREML if npus and apple else NpuType.NONE,
        memory_available_mb=_whole_megabytes(sizes.get("available_bytes", 0)),
        memory_total_mb=_whole_megabytes(sizes.get("total_bytes", 0)),
        cpu_usage_percent=float(value("cpu_usage_percent", 0.0)),
        cpu_cores=int(value("cpu_cores", 1)),
        battery_level=min(100, max(0, round(value("battery", {"level_percent": 100})["level_percent"]))),
        thermal_state=ThermalState(value("thermal_state", ThermalState.NORMAL)),
        platform=platform,
        memory_confidence=confidence("memory"),
        gpu_confidence=confidence("gpu"),
        npu_confidence=confidence("npu"),
    )
