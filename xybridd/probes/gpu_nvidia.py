"""NVIDIA's own figures through NVML (the extra ``nvidia``), each call by itself: boards support different ones.

NVML is opened and closed at each read, and only the GPUs that are awake are opened, by bus address: a handle that
stays open, or one by index, would wake a laptop's GPU or keep it from sleeping.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.probes.gpu_figures import percent, power_w, size, temperature_c
from xybridd.probes.pci import Stage, bus_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xybridd.probes.gpu_drm import Gpu

#: Bits of nvmlClocksThrottleReasons (nvml.h). Idle, clocks set by hand, sync boost and the display's are no throttling.
_REASONS = {0x04: "power_cap", 0x08: "hw_slowdown", 0x20: "sw_thermal", 0x40: "hw_thermal", 0x80: "power_brake"}

#: Parts whose memory is the machine's; most of them also refuse the memory call.
_UNIFIED_NAMES = ("GB10", "Orin", "Xavier", "Thor", "Tegra", "nvgpu")

_TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t
_NOT_SUPPORTED = 3  # nvmlReturn_t

NO_NVML_HINT = "memory, load and heat need NVML: pip install 'xybridd[nvidia]'"
ASLEEP_HINT = "it sleeps, and is not woken to be asked"


class Answer(msgspec.Struct, frozen=True):
    """What NVML said: figures by bus address (by index where it gave none), or the problem."""

    figures: dict[str, dict[str, Any]]
    problem: str | None = None


def load_nvml() -> Any:
    """The module ``pynvml``; raises ImportError without the extra."""
    return importlib.import_module("pynvml")


def throttle_reasons(bits: int) -> list[str]:
    return [name for bit, name in _REASONS.items() if bits & bit]


def _ask(nvml: Any, call: str, *args: Any) -> tuple[Any, bool]:
    """The answer of one call, and whether it failed for not being supported there."""
    try:
        return getattr(nvml, call)(*args), False
    except Exception as error:  # noqa: BLE001 - pynvml makes its classes at import; an old library lacks functions
        not_supported = getattr(error, "value", None) == _NOT_SUPPORTED or type(error).__name__.endswith("NotSupported")
        return None, not_supported


def _text(value: Any) -> str | None:
    """Older bindings answer in bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def figures_of(nvml: Any, handle: Any) -> dict[str, Any]:
    """One GPU's figures by the names of `Gpu`'s fields. NVML answers in bytes, percent, °C and mW."""
    name = _text(_ask(nvml, "nvmlDeviceGetName", handle)[0])
    memory, no_memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    load = _ask(nvml, "nvmlDeviceGetUtilizationRates", handle)[0]
    heat = _whole(_ask(nvml, "nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU)[0])
    draw = _whole(_ask(nvml, "nvmlDeviceGetPowerUsage", handle)[0])
    bits = _whole(_ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)[0])
    if bits is None:  # its name before driver 535
        bits = _whole(_ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)[0])
    reasons = throttle_reasons(bits or 0)
    figures = {
        "name": name,
        "memory_total_bytes": size(_whole(getattr(memory, "total", None))),
        "memory_used_bytes": size(_whole(getattr(memory, "used", None))),
        "unified": no_memory or any(part in (name or "") for part in _UNIFIED_NAMES),
        "utilization_percent": percent(_whole(getattr(load, "gpu", None))),
        "temperature_c": temperature_c(None if heat is None else heat * 1000),
        "power_w": power_w(None if draw is None else draw * 1000),
        "throttled": None if bits is None else bool(reasons),
        "throttle_reasons": reasons,
    }
    return {key: value for key, value in figures.items() if value is not None}


def read_nvml(load: Callable[[], Any] | None, buses: list[str]) -> Answer:
    """Ask for the GPUs at these addresses, or for all there are where the list is empty. Never raises."""
    if load is None:
        return Answer({}, NO_NVML_HINT)
    try:
        nvml = load()
    except Exception:  # noqa: BLE001 - the deprecated binding of the same name warns, or fails, in its own ways
        return Answer({}, NO_NVML_HINT)
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - as above
        return Answer({}, f"NVML: {error}"[:200])
    try:
        figures = {key: figures_of(nvml, handle) for key, handle in _handles(nvml, buses)}
    finally:
        _ask(nvml, "nvmlShutdown")
    return Answer(figures, None if figures else "NVML knows of no GPU")


def _handles(nvml: Any, buses: list[str]) -> Iterable[tuple[str, Any]]:
    if buses:
        # The 8-digit domain is NVML's own spelling; bytes are what every version of the binding takes.
        handles = [(bus, _ask(nvml, "nvmlDeviceGetHandleByPciBusId", f"0000{bus}".encode())[0]) for bus in buses]
        return [(bus, handle) for bus, handle in handles if handle is not None]
    count = _whole(_ask(nvml, "nvmlDeviceGetCount")[0]) or 0
    handles = [(str(i), _ask(nvml, "nvmlDeviceGetHandleByIndex", i)[0]) for i in range(min(count, 64))]
    named = []
    for index, handle in handles:
        if handle is not None:
            bus = _text(getattr(_ask(nvml, "nvmlDeviceGetPciInfo", handle)[0], "busId", None))
            named.append((bus_address(bus) or index, handle))
    return named


def with_nvml(gpus: list[Gpu], permitted: Callable[[str], bool], load: Callable[[], Any] | None) -> list[Gpu]:
    """The GPUs with NVML's figures: those of NVIDIA's driver that are awake; WSL's and Jetson's by index."""
    ours = [gpu for gpu in gpus if gpu.driver == "nvidia"]
    awake = [gpu.bus for gpu in ours if not gpu.asleep and gpu.bus is not None]
    nodeless = [gpu for gpu in gpus if gpu.driver in {"dxgkrnl", "nvgpu", "ga10b", "gk20a"} and not gpu.asleep]
    if ours:
        answer = read_nvml(load, awake) if awake else Answer({})
        allowed = permitted("/dev/nvidiactl")
        return [_judged(gpu, answer, allowed=allowed) if gpu.driver == "nvidia" else gpu for gpu in gpus]
    if nodeless and load is not None:
        return _by_index(gpus, nodeless[0], read_nvml(load, []))
    return gpus


def _judged(gpu: Gpu, answer: Answer, *, allowed: bool) -> Gpu:
    figures = answer.figures.get(gpu.bus or "")
    if figures is not None:
        return msgspec.structs.replace(gpu, **figures, stage=Stage.USABLE, hint=None)
    if gpu.stage is not Stage.USABLE and not allowed:
        return msgspec.structs.replace(gpu, hint=gpu.hint or "/dev/nvidiactl is not there, or not permitted")
    hint = ASLEEP_HINT if gpu.asleep else answer.problem or "NVML does not answer for it"
    return msgspec.structs.replace(gpu, stage=Stage.PERMITTED, hint=hint)


def _by_index(gpus: list[Gpu], host: Gpu, answer: Answer) -> list[Gpu]:
    """A Jetson's GPU keeps what the kernel said and gets the rest; WSL's stands for each GPU that NVML has."""
    found = [msgspec.structs.replace(host, vendor="NVIDIA", stage=Stage.USABLE, hint=None)]
    if not answer.figures:
        return gpus
    if host.driver == "dxgkrnl":
        found = [msgspec.structs.replace(found[0], **figures) for figures in answer.figures.values()]
    else:
        own = msgspec.structs.asdict(host)
        figures = next(iter(answer.figures.values()))
        found = [msgspec.structs.replace(found[0], **{k: v for k, v in figures.items() if own[k] in (None, [])})]
    return [*(gpu for gpu in gpus if gpu is not host), *found]
