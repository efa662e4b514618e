"""The device's history and energy, from its samples: one for each minute in which something was recorded.

Energy is the integral of sampled power over the stretches in which samples lie close together. Older samples are kept
by the hour; what the device drew between those nobody knows, so they are left out, and it is said how long was covered.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xybridd.core.minute import MINUTE_MS, Sample
from xybridd.core.report.conditions import DIMENSIONS
from xybridd.core.report.figures import DeviceFigures, DeviceStep, EnergyFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xybridd.core.report.facts import Facts

#: Samples further apart than that have an idle device, a sleeping one, or an hour that was thinned between them.
CLOSE_MS = int(2.5 * MINUTE_MS)

_WORST = {state: rank for rank, state in enumerate(DIMENSIONS["thermal_state"])}


def device_of(facts: Facts) -> DeviceFigures:
    details = facts.capabilities.get("details", {})

    def value(name: str) -> Any:
        return (details.get(name) or {}).get("value")

    throttled = [sample.throttled for sample in facts.samples if sample.throttled is not None]
    return DeviceFigures(
        device_id=str(facts.status.get("device_id", "")),
        platform=value("platform"),
        machine=value("machine"),
        cpu_cores=value("cpu_cores"),
        memory_total_bytes=(value("memory") or {}).get("total_bytes"),
        gpus=[str(each.get("name", "?")) for each in value("gpu") or []],
        npus=[str(each.get("name", "?")) for each in value("npu") or []],
        samples=len(facts.samples),
        throttled_samples=sum(throttled) if throttled else None,
        history=_history(facts),
        energy=_energy(facts.samples),
    )


# History


def _history(facts: Facts) -> list[DeviceStep]:
    steps: dict[int, list[Sample]] = {}
    for sample in facts.samples:
        steps.setdefault(facts.sums.step_of(sample.at_ms), []).append(sample)
    return [_step(at_ms, steps[at_ms]) for at_ms in sorted(steps)]


def _step(at_ms: int, samples: list[Sample]) -> DeviceStep:
    states = [sample.thermal_state for sample in samples if sample.thermal_state is not None]
    throttled = [sample.throttled for sample in samples if sample.throttled is not None]
    return DeviceStep(
        at_ms=at_ms,
        samples=len(samples),
        thermal_state=max(states, key=lambda state: _WORST.get(state, -1)) if states else None,
        temperature_c=_rounded(max, (sample.temperature_c for sample in samples)),
        throttled=sum(throttled) if throttled else None,
        power_source=_last(sample.power_source for sample in samples),
        battery_percent=_last(sample.battery_percent for sample in samples),
        cpu_percent=_rounded(_mean, (sample.cpu_percent for sample in samples)),
        gpu_percent=_rounded(_mean, (_busiest(sample) for sample in samples)),
        power_w=_rounded(_mean, (_drawn_w(sample) for sample in samples)),
    )


def _busiest(sample: Sample) -> float | None:
    return max((gpu["utilization_percent"] for gpu in sample.gpus if "utilization_percent" in gpu), default=None)


def _drawn_w(sample: Sample) -> float | None:
    """What is known of the draw: the whole device's while it runs on battery, else that of its GPUs."""
    on_battery = _from_battery(sample)
    return _of_gpus(sample) if on_battery is None else on_battery


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _rounded(of: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(of(known), 2) if known else None


def _last(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return known[-1] if known else None


# Energy


def _energy(samples: list[Sample]) -> list[EnergyFigures]:
    found = (
        _integrated(
            samples,
            _from_battery,
            "battery, the whole device",
            "the power that the battery says flows out of it, while the device runs on it",
        ),
        _integrated(samples, _of_gpus, "GPU", "the power that the GPUs' own sensors say they draw"),
    )
    return [each for each in found if each is not None]


def _from_battery(sample: Sample) -> float | None:
    return sample.battery_w if sample.power_source == "battery" and not sample.charging else None


def _of_gpus(sample: Sample) -> float | None:
    known = [gpu["power_w"] for gpu in sample.gpus if gpu.get("power_w") is not None]
    return sum(known) if known else None


def _integrated(
    samples: list[Sample], power_w: Callable[[Sample], float | None], what: str, whose: str
) -> EnergyFigures | None:
    """By trapezoids between neighbours that are close; the clock since boot is taken where both are of one boot."""
    joules = covered_s = 0.0
    for before, after in pairwise(samples):
        low, high = power_w(before), power_w(after)
        if low is None or high is None:
            continue
        same_boot = before.boot_id == after.boot_id
        apart_ms = after.mono_ms - before.mono_ms if same_boot else after.at_ms - before.at_ms
        if 0 < apart_ms <= CLOSE_MS:
            joules += (low + high) / 2 * apart_ms / 1000
            covered_s += apart_ms / 1000
    if not covered_s:
        return None
    how = f"{whose}, sampled once a minute while something is recorded; longer gaps are left out"
    return EnergyFigures(what, round(joules / 3600, 4), round(joules / covered_s, 3), covered_s, how)
