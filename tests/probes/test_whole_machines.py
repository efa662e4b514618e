"""Whole machines, every probe on one tree: what the v2.0 fields and the advice make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.probes.given import tree
from tests.probes.machines import LINUX, MACBOOK, MACHINES, Is, machine
from xybridd.core.advice import advise
from xybridd.core.capabilities import Confidence
from xybridd.probes.register import read_all

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.core.capabilities import DeviceState


def found_of(state: DeviceState) -> Is:
    caps = state.capabilities
    advice = advise(state, available_mb=caps.memory_available_mb)
    return Is(
        caps.has_gpu, caps.gpu_type, caps.has_npu, caps.npu_type, caps.battery_level,
        state.readings["power_source"].value, caps.thermal_state, advice.should_throttle, advice.prefer,
        caps.platform, caps.memory_total_mb, caps.memory_available_mb,
    )  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_machine_is(tmp_path: Path, name: str) -> None:
    """The MacBook is no Mac: what its commands print was written down from their documentation."""
    state = read_all(machine(tmp_path, name), 1.0)
    assert found_of(state) == MACHINES[name].is_so
    assert state.capabilities.has_metal is (name == MACBOOK)
    assert state.capabilities.has_nnapi is False


@pytest.mark.parametrize("name", LINUX)
def test_reading_twice_says_the_same(tmp_path: Path, name: str) -> None:
    first = read_all(machine(tmp_path / "once", name), 1.0)
    assert read_all(machine(tmp_path / "twice", name), 1.0) == first


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("desktop with NVIDIA", ["gpu permitted"]),
        ("the same without its driver", ["gpu present"]),
        ("Coral on USB before its firmware", ["npu permitted"]),
        ("Coral on USB after its firmware", ["npu usable"]),
        ("container with a limit two cgroups up", ["gpu driver_bound"]),
        ("RK3588 board", ["gpu usable", "npu usable"]),
        ("battery whose capacity lies", ["gpu usable", "gpu usable"]),
    ],
)
def test_how_far_an_accelerator_got_and_what_would_take_it_further(
    tmp_path: Path, name: str, stages: list[str]
) -> None:
    readings = read_all(machine(tmp_path, name), 1.0).readings
    found: list[tuple[str, Any]] = [(kind, each) for kind in ("gpu", "npu") for each in readings[kind].value or []]
    assert [f"{kind} {each['stage']}" for kind, each in found] == stages
    assert all(each["hint"] for _, each in found if each["stage"] != "usable")


def test_a_macbook_in_detail(tmp_path: Path) -> None:
    """Of every quantity that a Mac tells without root there is a reading; what it does not tell is unknown."""
    readings = read_all(machine(tmp_path, MACBOOK), 1.0).readings
    unknown = {name for name, reading in readings.items() if reading.confidence is Confidence.UNKNOWN}
    assert unknown == {"cpu_usage_percent", "metered", "thermal"}
    assert readings["machine"].value == "Mac15,6, Apple M3 Pro"
    assert readings["cpu_cores"].value == 11
    assert readings["default_route"].value == "en0"
    (gpu,), (npu,) = readings["gpu"].value, readings["npu"].value
    assert (gpu["name"], gpu["unified"], gpu["utilization_percent"]) == ("Apple M3 Pro", True, 9.0)
    assert npu["name"] == "Apple Neural Engine (16 cores)"
    (battery,) = readings["battery"].value["batteries"]
    assert battery == {"name": "InternalBattery-0", "level_percent": 64.0, "status": "Discharging", "power_w": 6.274}


def test_nothing_at_all_is_told_honestly(tmp_path: Path) -> None:
    state = read_all(tree(tmp_path), 1.0)
    known = {name for name, each in state.readings.items() if each.confidence is not Confidence.UNKNOWN}
    # That it has no name, no profile and no drivers; and a recording that has nothing of a Mac is Linux's.
    assert known == {"platform", "machine", "graphics_api", "power_profile"}
    assert (state.capabilities.has_gpu, state.capabilities.has_npu) == (False, False)
