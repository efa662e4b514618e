"""The reference's thresholds, and what charging, hysteresis and doubt make of them."""

from __future__ import annotations

from typing import Any

import pytest

from xybridd.core.advice import Advice, advise
from xybridd.core.capabilities import Confidence, DeviceState, Reading, ThermalState, capabilities_from


def state(level: float | None = None, *, charging: bool = False, heat: str = "Normal", **more: Any) -> DeviceState:
    values: dict[str, Any] = {
        "gpu": [{"name": "a GPU"}],
        "npu": [{"name": "an NPU"}],
        "thermal_state": ThermalState(heat),
        "battery": None if level is None else {"level_percent": level, "charging": charging},
        "power_source": "ac" if charging or level is None else "battery",
        "memory": {"total_bytes": 1000 * 2**20, "available_bytes": 500 * 2**20},
        **more,
    }
    readings = {name: Reading(value, Confidence.HIGH, "a test", 0.0) for name, value in values.items()}
    return DeviceState(capabilities_from(readings), readings)


def advice(given: DeviceState, before: Advice | None = None) -> Advice:
    return advise(given, available_mb=500, before=before)


@pytest.mark.parametrize(
    ("given", "throttle", "prefer"),
    [
        (state(), False, "npu"),
        (state(80), False, "npu"),
        (state(20), False, "cpu"),
        (state(21), False, "npu"),
        (state(19), True, "cpu"),
        (state(19, charging=True), False, "npu"),
        (state(80, heat="Warm"), False, "npu"),
        (state(80, heat="Hot"), True, "npu"),
        (state(80, heat="Critical"), True, "cpu"),
        (state(80, npu=None), False, "gpu"),
        (state(30, npu=None), False, "cpu"),
        (state(31, npu=None), False, "gpu"),
        (state(25, charging=True, npu=None), False, "gpu"),
        (state(80, npu=None, gpu=None), False, "cpu"),
    ],
)
def test_throttling_and_what_to_prefer(given: DeviceState, throttle: bool, prefer: str) -> None:
    found = advice(given)
    assert (found.should_throttle, found.prefer) == (throttle, prefer)


@pytest.mark.parametrize("given", [state(19), state(80, heat="Hot")])
def test_advice_to_slow_down_has_a_reason(given: DeviceState) -> None:
    assert advice(given).reasons


def test_a_battery_at_the_threshold_does_not_flicker() -> None:
    before = None
    told = []
    for level in (25, 19.5, 20.5, 19.5, 21.5, 22.5, 20.5, 19.5):
        before = advice(state(level), before)
        told.append(before.should_throttle)
    assert told == [False, True, True, True, True, False, False, True]


@pytest.mark.parametrize(
    ("size_mb", "margin", "fits"),
    [(None, 1.5, None), (333, 1.5, True), (333.9, 1.5, True), (334, 1.5, False), (500, 1.0, True), (0, 1.5, True)],
)
def test_a_model_fits_with_its_margin_cut_to_whole_megabytes(
    size_mb: float | None, margin: float, fits: bool | None
) -> None:
    found = advise(state(), available_mb=500, model_size_mb=size_mb, safety_margin=margin)
    assert found.can_load_model is fits


def test_nobody_knows_whether_it_fits_when_nobody_knows_the_memory() -> None:
    found = advise(state(), available_mb=None, model_size_mb=1)
    assert found.can_load_model is None
    assert found.memory_pressure == "unknown"


@pytest.mark.parametrize(("available", "pressure"), [(500, "normal"), (150, "normal"), (149, "warn"), (49, "critical")])
def test_memory_pressure(available: int, pressure: str) -> None:
    assert advise(state(), available_mb=available).memory_pressure == pressure


def test_unknown_heat_is_taken_as_normal_and_said() -> None:
    given = state()
    unknown = Reading(None, Confidence.UNKNOWN, None, 0.0)
    readings = given.readings | {"thermal_state": unknown}
    found = advice(DeviceState(capabilities_from(readings), readings))
    assert not found.should_throttle
    assert any("hot" in reason for reason in found.reasons)
