"""Why a GPU is held back, and how busy it is, where that takes a binary table or two readings."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.probes import machines_gpu_npu as m
from tests.probes.given import Files, tree
from xybridd.core.capabilities import ThermalState
from xybridd.probes.gpu import read_gpu
from xybridd.probes.gpu_amd import parse_gpu_metrics, reasons_of_growth
from xybridd.probes.growth import Growth
from xybridd.probes.register import read_all

if TYPE_CHECKING:
    from pathlib import Path


def table(revision: tuple[int, int], size: int, at: int, form: str, *values: int) -> bytes:
    """A table of `size` bytes of noise, with its header, and the values where they belong."""
    raw = bytearray(b"\x5a" * size)
    struct.pack_into("<HBB", raw, 0, size, *revision)
    struct.pack_into(form, raw, at, *values)
    return bytes(raw)


def status(revision: tuple[int, int], bits: int) -> bytes:
    size, at = {(1, 3): (120, 112), (2, 2): (128, 120), (2, 3): (152, 120), (2, 4): (168, 120)}[revision]
    return table(revision, size, at, "<Q", bits)


def residencies(*counts: int) -> bytes:
    return table((3, 0), 264, 228, "<7I", *counts)


@pytest.mark.parametrize("revision", [(1, 3), (2, 2), (2, 3), (2, 4)])
@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0, []),
        (1 << 0, ["power"]),
        (1 << 5 | 1 << 6, ["power"]),
        (1 << 22, ["current"]),
        (1 << 36, ["thermal"]),
        (1 << 47 | 1 << 4, ["power", "thermal"]),
        (1 << 57, ["other"]),
        (2**64 - 1, None),
    ],
)
def test_the_status_that_all_chips_share(revision: tuple[int, int], bits: int, reasons: list[str] | None) -> None:
    assert parse_gpu_metrics(status(revision, bits)).reasons == reasons
    assert parse_gpu_metrics(status(revision, bits).ljust(4096, b"\0")).reasons == reasons


@pytest.mark.parametrize(
    "raw", [b"", b"\x78", status((1, 3), 1)[:119], table((1, 4), 300, 40, "<I", 1), table((9, 9), 120, 112, "<Q", 1)]
)
def test_a_table_that_does_not_tell(raw: bytes) -> None:
    assert parse_gpu_metrics(raw) == (None, {})


@given(st.binary(max_size=300))
def test_no_table_makes_it_raise(raw: bytes) -> None:
    parse_gpu_metrics(raw)


@pytest.mark.parametrize(
    ("grown", "reasons"),
    [
        ({}, []),
        ({"spl": 0, "prochot": 0}, []),
        ({"sppt": 4}, ["power"]),
        ({"thermal_gfx": 1, "fppt": 2}, ["power", "thermal"]),
    ],
)
def test_what_grew_is_the_reason(grown: dict[str, int], reasons: list[str]) -> None:
    assert reasons_of_growth(grown) == reasons


def test_growth_leaves_out_what_is_new_or_went_back() -> None:
    growth = Growth()
    assert growth.since("a", {"x": 5, "y": 9}, 1.0) is None
    assert growth.since("b", {"x": 7}, 1.0) is None
    assert growth.since("a", {"x": 8, "y": 3, "z": 1}, 3.5) == ({"x": 3}, 2.5)


def gpu_after(folder: Path, files: Files, now_s: float) -> Any:
    (gpu,) = read_gpu(tree(folder, files), now_s)["gpu"].value
    return gpu


METRICS = "/sys/devices/pci0000:00/0000:c4:00.0/gpu_metrics"


def machine(folder: Path, files: Files) -> None:
    tree(folder, files)


def test_an_apu_by_its_counters(tmp_path: Path) -> None:
    machine(tmp_path, m.STRIX_POINT)
    assert gpu_after(tmp_path, {METRICS: residencies(9, 9, 9, 9, 9, 9, 9)}, 1.0)["throttled"] is None
    assert gpu_after(tmp_path, {METRICS: residencies(9, 9, 9, 9, 9, 9, 9)}, 11.0)["throttled"] is False
    gpu = gpu_after(tmp_path, {METRICS: residencies(9, 9, 9, 40, 9, 12, 9)}, 21.0)
    assert (gpu["throttled"], gpu["throttle_reasons"]) == (True, ["power", "thermal"])


def test_a_gpu_that_heat_holds_back_makes_the_device_hot(tmp_path: Path) -> None:
    given = tree(tmp_path, m.STRIX_POINT, {METRICS: status((2, 3), 1 << 32)})
    state = read_all(given, 1.0)
    assert state.readings["gpu"].value[0]["throttle_reasons"] == ["thermal"]
    assert state.capabilities.thermal_state is ThermalState.HOT
    assert "heat holds back" in (state.readings["thermal_state"].reason or "")


XE = "/sys/devices/pci0000:00/0000:00:02.0/tile0"
I915 = "/sys/class/drm/card0/gt"


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("xe", [f"{XE}/gt0/gtidle/idle_residency_ms", f"{XE}/gt1/gtidle/idle_residency_ms"]),
        ("i915", [f"{I915}/gt0/rc6_residency_ms", f"{I915}/gt1/rc6_residency_ms"]),
    ],
)
def test_an_intel_gpu_is_as_busy_as_it_is_awake(tmp_path: Path, kind: str, paths: list[str]) -> None:
    machine(
        tmp_path,
        m.CORE_ULTRA if kind == "xe" else {key: value for key, value in m.OLD_INTEL.items() if "02.1" not in key},
    )
    busy = [
        gpu_after(tmp_path, dict(zip(paths, asleep_ms, strict=True)), now_s)["utilization_percent"]
        for now_s, asleep_ms in (
            (0.0, (1000, 5000)),
            (10.0, (11_000, 15_000)),  # asleep all the time
            (20.0, (18_500, 25_000)),  # one of the two awake for a quarter of it
            (20.5, (18_500, 25_000)),  # too short to say
            (30.5, (18_500, 25_000)),
            (40.5, (10, 10)),  # counted anew
        )
    ]
    assert busy == [None, 0.0, 25.0, None, 100.0, None]
