"""GPUs and NPUs as the v2.0 fields and the advice see them: is there one, can it be used, what speaks to it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class GpuType(StrEnum):
    METAL = "Metal"
    VULKAN = "Vulkan"
    OPENCL = "OpenCL"
    DIRECTX = "DirectX"
    NONE = "None"


#: Which installed drivers are for a GPU, by the start of their names: (Vulkan, OpenCL). Mesa's OpenCL serves the
#: drivers of Mesa alone.
_AMD = (("radeon", "amd", "amdvlk"), ("amd", "mesa", "rusticl"))
_INTEL = (("intel",), ("intel", "beignet", "rusticl"))
_NVIDIA = (("nvidia",), ("nvidia",))
_ARM = (("panfrost", "mali", "libmali", "panvk"), ("mali", "libmali", "arm", "rusticl"))
_ICDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "amdgpu": _AMD,
    "radeon": ((), ("mesa", "rusticl")),
    "i915": _INTEL,
    "xe": _INTEL,
    "nvidia": _NVIDIA,
    "nouveau": (("nouveau",), ("mesa", "rusticl")),
    "v3d": (("broadcom",), ("clvk", "rusticl")),
    "asahi": (("asahi",), ("rusticl",)),
    "powervr": (("powervr", "img"), ("img", "powervr")),
    "virtio_gpu": (("virtio", "gfxstream"), ("rusticl",)),
    "virtio-pci": (("virtio", "gfxstream"), ("rusticl",)),
    "dxgkrnl": (("dzn", "nvidia"), ("nvidia", "intel")),
}
_ICDS_BY_VENDOR = {
    "NVIDIA": _NVIDIA,
    "Arm": _ARM,
    "Qualcomm": (("freedreno", "adreno", "turnip"), ("adreno", "qcom", "rusticl")),
}


def is_bound(device: Mapping[str, Any]) -> bool:
    """Whether it has a driver, or needs none: without one no app can use it, and its ``hint`` says what is missing."""
    return device.get("stage") != "present" or device.get("driver") == "usb"


def gpu_type_for(gpus: Iterable[Mapping[str, Any]], apis: Mapping[str, Iterable[str]]) -> GpuType:
    """Metal on a Mac; else Vulkan where a Vulkan driver for one of the GPUs is installed, else OpenCL likewise."""
    gpus = [gpu for gpu in gpus if is_bound(gpu)]
    if any(str(gpu.get("driver") or "").startswith("com.apple.") for gpu in gpus):
        return GpuType.METAL
    for api, which, kind in (("vulkan", 0, GpuType.VULKAN), ("opencl", 1, GpuType.OPENCL)):
        installed = tuple(apis.get(api, ()))
        for gpu in gpus:
            starts = _icds_for(gpu)[which]
            if starts and any(name.lower().startswith(starts) for name in installed):
                return kind
    return GpuType.NONE


def _icds_for(gpu: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    none: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    return _ICDS.get(str(gpu.get("driver"))) or _ICDS_BY_VENDOR.get(str(gpu.get("vendor")), none)
