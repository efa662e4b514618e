"""What goes out under a name: the attributes of an inference, and a sample of the device as named figures.

OTLP and Prometheus both take them from here, so that a dashboard for the one reads the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xybridd.core import names
from xybridd.core.conditions import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xybridd.core.minute import Sample

#: By the names of `xybridd.core.names`; one that would say nothing is empty, and is left out where it goes.
Attributes = dict[str, str]


def known(value: str | None) -> str:
    """A state in lower case; empty when it is not known."""
    return "" if value is None or value.lower() == UNKNOWN else value.lower()


def inference(model_id: str, version: str = "") -> Attributes:
    return {
        names.OPERATION_NAME: names.INFERENCE,
        names.PROVIDER_NAME: names.PROVIDER,
        names.REQUEST_MODEL: model_id,
        names.MODEL_VERSION: version,
    }


def measured(sample: Sample) -> Iterator[tuple[names.Metric, Attributes, Any]]:
    """Every figure of the device; None where nobody could tell."""
    device = {names.HW_ID: "device"}
    battery = {names.HW_ID: "battery", names.HW_TYPE: "battery"}
    level = names.THERMAL_LEVELS.get(known(sample.thermal_state))
    yield names.THERMAL_LEVEL, device, level
    yield names.THROTTLED, device, None if sample.throttled is None else int(sample.throttled)
    yield names.HW_TEMPERATURE, device, _float(sample.temperature_c)
    yield names.HW_POWER, device, _float(sample.battery_w)
    yield names.HW_BATTERY_CHARGE, battery, _share(sample.battery_percent)
    yield names.CPU_UTILIZATION, {names.HW_ID: "cpu", names.HW_TYPE: "cpu"}, _share(sample.cpu_percent)
    yield names.MEMORY_AVAILABLE, {names.HW_ID: "memory", names.HW_TYPE: "memory"}, sample.memory_available_bytes
    for number, gpu in enumerate(sample.gpus):
        yield from _accelerator(f"gpu{number}", "gpu", gpu)
    for number, npu in enumerate(sample.npus):
        yield from _accelerator(f"npu{number}", "npu", npu)


def _accelerator(hw_id: str, kind: str, said: Mapping[str, Any]) -> Iterator[tuple[names.Metric, Attributes, Any]]:
    part = {names.HW_ID: hw_id, names.HW_NAME: str(said.get("name") or ""), names.HW_TYPE: kind}
    is_gpu = kind == "gpu"
    yield (
        names.HW_GPU_UTILIZATION if is_gpu else names.NPU_UTILIZATION,
        part,
        _share(said.get("utilization_percent")),
    )
    yield names.HW_GPU_MEMORY_USAGE if is_gpu else names.NPU_MEMORY_USAGE, part, said.get("memory_used_bytes")
    yield names.HW_GPU_MEMORY_LIMIT if is_gpu else names.NPU_MEMORY_LIMIT, part, said.get("memory_total_bytes")
    yield names.HW_TEMPERATURE, part, _float(said.get("temperature_c"))
    yield names.HW_POWER, part, _float(said.get("power_w"))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
