"""GPUs, and what speaks to them: each GPU with how far it got, and the Vulkan and OpenCL drivers installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.gpu_drm import DRM, SOC_DRIVERS, Gpu, find_gpus
from xybridd.probes.gpu_figures import percent, size
from xybridd.probes.gpu_nvidia import load_nvml, with_nvml
from xybridd.probes.macos import ioreg_entries, mac_reading
from xybridd.probes.pci import Stage
from xybridd.probes.probe import Probe, Quantity, none_there, sure, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from xybridd.probes.tree import Tree

_VULKAN = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d")
_IOREG = ("/usr/sbin/ioreg", "-a", "-rc", "IOAccelerator")
_OPENCL = ("/etc/OpenCL/vendors",)

#: Drivers that compute on the processor.
_SOFTWARE = ("lvp_icd", "lavapipe", "vk_swiftshader", "swrast", "pocl", "intel64", "intel-cpu", "intel_cpu")


def graphics_api(names: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The installed drivers by interface, those that compute on the processor left out."""
    return {
        api: sorted({name for name in found if not name.lower().startswith(_SOFTWARE)}) for api, found in names.items()
    }


def _read_apis(tree: Tree, now_s: float) -> Reading:
    names: dict[str, list[str]] = {"vulkan": [], "opencl": []}
    problems = []
    for api, folders, ending in (("vulkan", _VULKAN, ".json"), ("opencl", _OPENCL, ".icd")):
        for folder in folders:
            found = tree.listing(folder)
            names[api] += [name for name in found.value or [] if name.endswith(ending)]
            problems += [found.problem] if found.problem else []
    value = graphics_api(names)
    if problems:
        return Reading(value, Confidence.MEDIUM, _VULKAN[0], now_s, "; ".join(problems))
    return sure(value, now_s, _VULKAN[0])


def judge(gpus: list[Gpu], doubts: list[str], problems: list[str], now_s: float, *, looked: bool) -> Reading:
    """The reading of the list; a GPU that only a guest's virtio or WSL stands for is less than sure."""
    if not gpus:
        if doubts or not looked:
            return unknown(now_s, "; ".join(doubts[:3]) or "neither /sys/class nor /sys/bus is there", DRM)
        return none_there(now_s, DRM)
    confidence = Confidence.MEDIUM if doubts else Confidence.HIGH
    reasons = [*doubts, *problems]
    drivers = {gpu.driver for gpu in gpus}
    if drivers <= {"virtio_gpu", "virtio-pci"}:
        confidence, reasons = Confidence.LOW, ["a virtual GPU: what the host renders with is not to be seen", *reasons]
    elif drivers == {"dxgkrnl"}:
        confidence, reasons = Confidence.MEDIUM, ["the Windows host's: which GPU it is only NVML tells", *reasons]
    value = [{**msgspec.structs.asdict(gpu), "stage": gpu.stage.value} for gpu in gpus]
    source = DRM if any(gpu.device and gpu.device.startswith("card") for gpu in gpus) else "/sys/bus/pci/devices"
    if all(gpu.driver == "dxgkrnl" for gpu in gpus):
        source = "/dev/dxg"
    elif not any(gpu.bus or gpu.driver in SOC_DRIVERS for gpu in gpus):
        source = "/sys/class/devfreq"
    return Reading(value, confidence, source, now_s, "; ".join(reasons[:3]) or None)


def read_with(tree: Tree, now_s: float, load: Callable[[], Any] | None) -> dict[str, Reading]:
    """As `read_gpu`, with what imports NVML's binding; None where NVML is not of the machine that is read."""
    hardware = find_gpus(tree, now_s)
    gpus = with_nvml(hardware.gpus, tree.permitted, load)
    looked = bool(gpus) or tree.exists("/sys/class") or tree.exists("/sys/bus")
    return {
        "gpu": judge(gpus, hardware.doubts, hardware.problems, now_s, looked=looked),
        "graphics_api": _read_apis(tree, now_s),
    }


def read_gpu(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``gpu``: a list of what `Gpu` holds; ``graphics_api``: the names of the Vulkan and OpenCL drivers."""
    if tree.platform == "darwin":
        found = tree.output(*_IOREG)
        return {"gpu": mac_reading(found, parse_ioreg_gpus, now_s), "graphics_api": none_there(now_s, "macOS")}
    return read_with(tree, now_s, load_nvml if tree.live else None)


def parse_ioreg_gpus(raw: bytes) -> list[dict[str, Any]] | None:
    """The GPUs of a Mac, from ``ioreg -a -rc IOAccelerator``; None when it is no such list. Bytes and percent."""
    entries = ioreg_entries(raw)
    return None if entries is None else [_mac_gpu(entry) for entry in entries]


def _mac_gpu(entry: dict[str, Any]) -> dict[str, Any]:
    said = entry.get("PerformanceStatistics")
    said = said if isinstance(said, dict) else {}

    def whole(name: str) -> int | None:
        value = said.get(name)
        return value if isinstance(value, int) else None

    model, driver = entry.get("model"), entry.get("CFBundleIdentifier")
    name = model.decode("utf-8", "replace").strip("\0") if isinstance(model, bytes) else model
    kind = str(entry.get("IOClass") or entry.get("IOObjectClass") or "IOAccelerator")
    apple = kind.startswith("AGX")
    vendors = {"Intel": "Intel", "AMD": "AMD", "NV": "NVIDIA"}
    vendor = "Apple" if apple else next((v for start, v in vendors.items() if kind.startswith(start)), None)
    used = whole("In use system memory") if apple or vendor == "Intel" else whole("vramUsedBytes")
    free = whole("vramFreeBytes")
    gpu = Gpu(
        name if isinstance(name, str) and name else kind,
        vendor,
        driver if isinstance(driver, str) else f"com.apple.{kind}",
        kind,
        unified=True if apple or vendor == "Intel" else None,
        memory_used_bytes=size(used),
        memory_total_bytes=size(used + free) if used is not None and free is not None else None,
        utilization_percent=percent(whole("Device Utilization %")),
        stage=Stage.USABLE,
    )
    return {**msgspec.structs.asdict(gpu), "stage": gpu.stage.value}


GPU = Probe("gpu", (Quantity("gpu", "", "list"), Quantity("graphics_api", "", "table")), read_gpu, limit_s=3.0)
