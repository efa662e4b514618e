"""What an app had better do now, by the device's state: the reference's thresholds, with charging taken into account.

    should_throttle     battery under 20 % and not charging, or hot, or critical
    should_prefer_gpu   there is one; battery above 30 % or charging; not critical   (metal likewise)
    should_prefer_npu   there is one; battery above 20 % or charging; not critical   (nnapi likewise)
    can_load_model      available memory ≥ size × margin, the product cut to a whole number of MB
    memory_pressure     under 5 % available: critical; under 15 %: warn

A battery that hovers at a threshold does not make the advice flicker: what was advised at the last time holds until
the level is `BATTERY_SLACK` past the threshold. (Heat has its own delay, where the thermal state is judged.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from xybridd.core.accelerators import is_bound
from xybridd.core.capabilities import Confidence, ThermalState

if TYPE_CHECKING:
    from xybridd.core.capabilities import DeviceState

LOW_BATTERY = 20.0
GPU_BATTERY = 30.0
BATTERY_SLACK = 2.0

_TOO_HOT = frozenset({ThermalState.HOT, ThermalState.CRITICAL})


class Advice(msgspec.Struct, frozen=True):
    """``can_load_model`` is None when no size was asked about, or available memory is unknown.

    ``available_mb`` and ``cpu_cores`` are what is left to the process that asks; None where nobody could tell.
    """

    should_throttle: bool
    prefer: Literal["npu", "gpu", "cpu"]
    should_prefer_gpu: bool
    should_prefer_npu: bool
    should_prefer_metal: bool
    should_prefer_nnapi: bool
    can_load_model: bool | None
    memory_pressure: Literal["normal", "warn", "critical", "unknown"]
    available_mb: int | None
    cpu_cores: int | None
    reasons: list[str]


class _Power(msgspec.Struct, frozen=True):
    """``level`` is None where there is no battery, or nobody could tell."""

    level: float | None
    charging: bool

    def above(self, threshold: float, was_above: bool | None) -> bool:
        if self.level is None or self.charging:
            return True
        if was_above is None:
            return self.level > threshold
        return self.level > (threshold - BATTERY_SLACK if was_above else threshold + BATTERY_SLACK)

    def low(self, was_low: bool | None) -> bool:
        if self.level is None or self.charging:
            return False
        return self.level < (LOW_BATTERY + BATTERY_SLACK if was_low else LOW_BATTERY)


def _power(state: DeviceState) -> _Power:
    battery = state.readings.get("battery")
    source = state.readings.get("power_source")
    on_ac = source is not None and source.value == "ac" and source.confidence is not Confidence.LOW
    if battery is None or battery.value is None:
        return _Power(None, charging=on_ac)
    return _Power(battery.value["level_percent"], charging=on_ac or battery.value.get("charging") is True)


def advise(
    state: DeviceState,
    *,
    available_mb: int | None,
    cores: int | None = None,
    model_size_mb: float | None = None,
    safety_margin: float = 1.5,
    before: Advice | None = None,
) -> Advice:
    """``available_mb`` and ``cores`` are what is left to the process that asks; ``before`` what it was told last."""
    caps, power, reasons = state.capabilities, _power(state), list[str]()
    heat = caps.thermal_state
    throttle = _throttle(state, power, before, reasons)
    not_critical = heat is not ThermalState.CRITICAL
    gpu_power = power.above(GPU_BATTERY, before.should_prefer_gpu if before and caps.has_gpu else None)
    npu_power = power.above(LOW_BATTERY, before.should_prefer_npu if before and caps.has_npu else None)
    usable = {name: any(map(is_bound, _listed(state, name))) for name in ("gpu", "npu")}
    gpu = usable["gpu"] and gpu_power and not_critical
    npu = usable["npu"] and npu_power and not_critical
    for name, there, preferred in (("gpu", caps.has_gpu, gpu), ("npu", caps.has_npu, npu)):
        if there and not preferred:
            why = "it has no driver" if not usable[name] else "battery" if not_critical else "critical heat"
            reasons.append(f"the {name.upper()} is left alone: {why}")
    if cores is not None and cores < caps.cpu_cores:
        reasons.append(f"this process may use {cores} of {caps.cpu_cores} processors")
    fits = _fits(available_mb, model_size_mb, safety_margin, reasons)
    return Advice(
        should_throttle=throttle,
        prefer="npu" if npu else "gpu" if gpu else "cpu",
        should_prefer_gpu=gpu,
        should_prefer_npu=npu,
        should_prefer_metal=caps.has_metal and gpu_power and not_critical,
        should_prefer_nnapi=caps.has_nnapi and npu_power and not_critical,
        can_load_model=fits,
        memory_pressure=_pressure(available_mb, caps.memory_total_mb),
        available_mb=available_mb,
        cpu_cores=cores,
        reasons=reasons,
    )


def _listed(state: DeviceState, name: str) -> list[dict[str, Any]]:
    reading = state.readings.get(name)
    return [] if reading is None or reading.value is None else list(reading.value)


def _throttle(state: DeviceState, power: _Power, before: Advice | None, reasons: list[str]) -> bool:
    heat = state.capabilities.thermal_state
    low = power.low(before.should_throttle if before is not None and heat not in _TOO_HOT else None)
    if low:
        reasons.append(f"the battery is at {power.level:.0f} % and does not charge")
    if heat in _TOO_HOT:
        reasons.append(f"the device is {heat.lower()}")
    thermal = state.readings.get("thermal_state")
    if thermal is None or thermal.confidence is Confidence.UNKNOWN:
        reasons.append("how hot it is, nobody could tell; taken as normal")
    return low or heat in _TOO_HOT


def _fits(available_mb: int | None, size_mb: float | None, margin: float, reasons: list[str]) -> bool | None:
    if size_mb is None:
        return None
    if available_mb is None:
        reasons.append("how much memory is left, nobody could tell")
        return None
    needed_mb = int(size_mb * margin)
    fits = available_mb >= needed_mb
    if not fits:
        reasons.append(f"{needed_mb} MB are needed ({size_mb:g} MB × {margin:g}), {available_mb} MB are left")
    return fits


def _pressure(available_mb: int | None, total_mb: int) -> Literal["normal", "warn", "critical", "unknown"]:
    if available_mb is None or total_mb <= 0:
        return "unknown"
    share = available_mb / total_mb
    return "critical" if share < 0.05 else "warn" if share < 0.15 else "normal"
