from __future__ import annotations

import plistlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.probes import machines_gpu_npu as m
from tests.probes.given import FOLDER, Files, Link, tree
from xybridd.core import accelerators
from xybridd.core.accelerators import GpuType
from xybridd.core.capabilities import Confidence
from xybridd.probes import gpu as probe
from xybridd.probes import gpu_figures, gpu_nvidia, pci
from xybridd.probes.recorded import RecordedTree
from xybridd.probes.tree import Looked, Tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read(folder: Path, *files: Mapping[str, object], nvml: Any = None) -> tuple[Any, Any, Tree]:
    machine = tree(folder, *files)
    readings = probe.read_with(machine, 5.0, None if nvml is None else lambda: nvml)
    assert set(readings) == {quantity.name for quantity in probe.GPU.quantities}
    return readings["gpu"], readings["graphics_api"].value, machine


#: machine → (vendor, driver, device, stage) of each GPU, and what the reference is told.
MACHINES: dict[str, tuple[Files, list[tuple[str | None, str | None, str, str]], GpuType, bool]] = {
    "NVIDIA, no NVML": (m.NVIDIA, [("NVIDIA", "nvidia", "card0", "permitted")], GpuType.VULKAN, True),
    "NVIDIA, no driver": (m.NVIDIA_DRIVERLESS, [("NVIDIA", None, "0000:01:00.0", "present")], GpuType.NONE, False),
    "Strix Point": (m.STRIX_POINT, [("AMD", "amdgpu", "card1", "usable")], GpuType.VULKAN, True),
    "Radeon": (m.RADEON_CARD, [("AMD", "amdgpu", "card0", "usable")], GpuType.OPENCL, True),
    "Core Ultra": (m.CORE_ULTRA, [("Intel", "xe", "card0", "usable")], GpuType.VULKAN, True),
    "old Intel": (m.OLD_INTEL, [("Intel", "i915", "card0", "usable")], GpuType.OPENCL, True),
    "Jetson Orin": (m.JETSON_ORIN, [("NVIDIA", "gk20a", "17000000.gpu", "usable")], GpuType.VULKAN, True),
    "Raspberry Pi 5": (m.RASPBERRY_PI_5, [("Broadcom", "v3d", "card0", "usable")], GpuType.VULKAN, True),
    "RK3588": (m.RK3588, [("Arm", "panthor", "card1", "usable")], GpuType.NONE, True),
    "eight": (m.EIGHT_GPUS, [("NVIDIA", "nvidia", f"card{i + 1}", "permitted") for i in range(8)], GpuType.NONE, True),
    "VM": (m.VM_WITH_NONE, [], GpuType.NONE, False),
    "virtio 2D": (m.virtio("0" * 64), [], GpuType.NONE, False),
    "virtio 3D": (m.virtio("11" + "0" * 62), [(None, "virtio_gpu", "card0", "usable")], GpuType.VULKAN, True),
    "WSL": (m.WSL, [(None, "dxgkrnl", "dxg", "usable")], GpuType.VULKAN, True),
    "NVIDIA, no card": (m.NVIDIA_NO_CARD, [("NVIDIA", "nvidia", "0000:01:00.0", "permitted")], GpuType.NONE, True),
    "NVIDIA, for a guest": (m.NVIDIA_VFIO, [("NVIDIA", "vfio-pci", "0000:01:00.0", "present")], GpuType.NONE, False),
    "virtual functions": (
        m.VIRTUAL_FUNCTIONS,
        [("NVIDIA", "nvidia", "0000:17:00.0", "driver_bound")],
        GpuType.NONE,
        True,
    ),
    "flat copy": (m.FLAT_INTEL, [("Intel", "i915", "card0", "usable")], GpuType.NONE, True),
    "Instinct": (m.INSTINCT, [("AMD", "amdgpu", "card0", "usable")], GpuType.NONE, True),
    "Mali": (m.ARM_S_OWN_DRIVER, [("Arm", "mali", "fb000000.gpu", "usable")], GpuType.NONE, True),
    "container": (m.CONTAINER, [("Intel", "i915", "card0", "driver_bound")], GpuType.NONE, True),
    "sleeping": (
        m.SLEEPING,
        [("Intel", "i915", "card0", "usable"), ("AMD", "amdgpu", "card1", "usable")],
        GpuType.VULKAN,
        True,
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_has_the_gpus_it_has(tmp_path: Path, name: str) -> None:
    files, expected, kind, has = MACHINES[name]
    reading, apis, _ = read(tmp_path, files)
    gpus = reading.value or []
    assert [(g["vendor"], g["driver"], g["device"], g["stage"]) for g in gpus] == expected
    assert accelerators.gpu_type_for(gpus, apis) is kind
    assert any(map(accelerators.is_bound, gpus)) is has
    if not expected:
        assert (reading.value, reading.confidence) == (None, Confidence.HIGH)


FIGURES: dict[str, tuple[Files, dict[str, object]]] = {
    "Strix Point": (
        m.STRIX_POINT,
        {"memory_total_bytes": 18 * m.GIB, "memory_used_bytes": 3 * m.GIB, "unified": True, "utilization_percent": 7,
         "temperature_c": 48.0, "power_w": 9.031, "bus": "0000:c4:00.0", "throttled": None},
    ),
    "Radeon": (
        m.RADEON_CARD,
        {"memory_total_bytes": 24 * m.GIB, "unified": False, "temperature_c": 71.0, "power_w": 300.0},
    ),
    "Core Ultra": (m.CORE_ULTRA, {"unified": True, "throttled": True, "throttle_reasons": ["thermal"]}),
    "old Intel": (m.OLD_INTEL, {"unified": True, "throttled": False, "throttle_reasons": []}),
    "Jetson Orin": (m.JETSON_ORIN, {"unified": True, "utilization_percent": 43.7, "temperature_c": 47.5}),
    "Jetson, block off": (m.JETSON_GPU_OFF, {"temperature_c": None}),
    "RK3588": (m.RK3588, {"unified": True, "utilization_percent": 37.0}),
    "container": (m.CONTAINER, {"hint": "/dev/dri/renderD128 is not there: a container is given it by --device /dev/dri"}),
    "no driver": (m.NVIDIA_DRIVERLESS, {"hint": "no driver is bound: install or load nvidia"}),
    "NVML absent": (m.NVIDIA, {"hint": gpu_nvidia.NO_NVML_HINT, "memory_total_bytes": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_in_the_units_of_their_names(tmp_path: Path, name: str) -> None:
    files, expected = FIGURES[name]
    gpu = read(tmp_path, files)[0].value[0]
    assert {key: gpu[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "confidence"),
    [("virtio 3D", Confidence.LOW), ("WSL", Confidence.MEDIUM), ("Strix Point", Confidence.HIGH)],
)
def test_a_stand_in_for_a_gpu_is_less_than_sure(tmp_path: Path, name: str, confidence: Confidence) -> None:
    assert read(tmp_path, MACHINES[name][0])[0].confidence is confidence


_HARMLESS = ("vendor", "device", "class", "driver", "uevent", "power/runtime_status")


@pytest.mark.parametrize(
    ("files", "bus", "number"), [(m.SLEEPING, "0000:01:00.0", 1), (m.SLEEPING_NVIDIA, "0000:01:00.0", 0)]
)
def test_a_sleeping_gpu_is_not_asked_anything_that_wakes_it(
    tmp_path: Path, files: Files, bus: str, number: int
) -> None:
    nvml = StandIn({bus: {}})
    reading, _, machine = read(tmp_path, files, nvml=nvml)
    assert reading.value[-1]["asleep"]
    assert reading.value[-1]["utilization_percent"] is None
    inside = (f"{m.DRM}/card{number}/device/", f"{m.PCI}/{bus}/")
    paths = [looked.path for looked in machine.looked if looked.path.startswith(inside)]
    assert paths
    assert {path.removeprefix(inside[0]).removeprefix(inside[1]) for path in paths} <= set(_HARMLESS)
    assert not [p.path for p in machine.looked if p.path.startswith((f"{m.DRM}/card{number}/gt", "/proc/driver"))]
    assert nvml.calls == []


class NotSupported(Exception):
    value = 3


class StandIn:
    """NVML's functions over a table; a figure that is not in it is not supported."""

    def __init__(self, gpus: dict[str, dict[str, Any]], init: Exception | None = None) -> None:
        self.gpus, self.init, self.calls = gpus, init, list[str]()

    def nvmlInit(self) -> None:  # noqa: N802
        self.calls.append("nvmlInit")
        if self.init:
            raise self.init

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls.append("nvmlShutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return list(self.gpus)[index]

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:  # noqa: N802
        assert len(bus) == 16
        return bus.decode()[4:]

    def __getattr__(self, call: str) -> Any:
        if not call.startswith("nvml"):
            raise AttributeError(call)

        def answer(handle: str, *_: object) -> Any:
            self.calls.append(call)
            try:
                return self.gpus[handle][call.removeprefix("nvmlDeviceGet")]
            except KeyError:
                raise NotSupported from None

        return answer


FULL = {
    "Name": b"NVIDIA GeForce RTX 4090",
    "MemoryInfo": SimpleNamespace(total=24 * m.GIB, used=m.GIB),
    "UtilizationRates": SimpleNamespace(gpu=55),
    "Temperature": 66,
    "PowerUsage": 250_500,
    "CurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
}


def test_nvml_answers_make_a_gpu_usable(tmp_path: Path) -> None:
    nvml = StandIn({"0000:01:00.0": FULL})
    gpu = read(tmp_path, m.NVIDIA, nvml=nvml)[0].value[0]
    assert (gpu["name"], gpu["stage"], gpu["hint"]) == ("NVIDIA GeForce RTX 4090", "usable", None)
    assert (gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["unified"]) == (24 * m.GIB, m.GIB, False)
    assert (gpu["utilization_percent"], gpu["temperature_c"], gpu["power_w"]) == (55.0, 66.0, 250.5)
    assert (gpu["throttled"], gpu["throttle_reasons"]) == (True, ["power_cap", "hw_thermal"])
    assert nvml.calls[-1] == "nvmlShutdown"


def test_each_call_that_is_not_supported_is_missing_by_itself(tmp_path: Path) -> None:
    nvml = StandIn({"0000:01:00.0": {"Name": "NVIDIA GB10", "UtilizationRates": SimpleNamespace(gpu=12)}})
    gpu = read(tmp_path, m.NVIDIA, nvml=nvml)[0].value[0]
    assert (gpu["stage"], gpu["unified"], gpu["memory_total_bytes"], gpu["throttled"]) == ("usable", True, None, None)
    assert gpu["utilization_percent"] == 12.0


def test_eight_gpus_each_have_their_own_figures(tmp_path: Path) -> None:
    nvml = StandIn({bus: {**FULL, "Temperature": 40 + i} for i, bus in enumerate(m.EIGHT_BUSES)})
    gpus = read(tmp_path, m.EIGHT_GPUS, nvml=nvml)[0].value
    assert [gpu["temperature_c"] for gpu in gpus] == [40.0 + i for i in range(8)]
    assert [gpu["bus"] for gpu in gpus] == m.EIGHT_BUSES


def test_a_driver_that_nvml_does_not_match_says_so(tmp_path: Path) -> None:
    nvml = StandIn({}, RuntimeError("Driver/library version mismatch"))
    gpu = read(tmp_path, m.NVIDIA, nvml=nvml)[0].value[0]
    assert (gpu["stage"], gpu["hint"]) == ("permitted", "NVML: Driver/library version mismatch")


def test_wsl_and_jetson_are_asked_by_index(tmp_path: Path) -> None:
    nvml = StandIn({"a": FULL, "b": FULL})
    reading = read(tmp_path / "wsl", m.WSL, nvml=nvml)[0]
    assert [(gpu["name"], gpu["driver"]) for gpu in reading.value] == [("NVIDIA GeForce RTX 4090", "dxgkrnl")] * 2
    gpu = read(tmp_path / "jetson", m.JETSON_ORIN, nvml=StandIn({"a": {"Name": "Orin (nvgpu)", "PowerUsage": 9000}}))[
        0
    ].value[0]
    assert (gpu["unified"], gpu["power_w"], gpu["utilization_percent"]) == (True, 9.0, 43.7)


class Guarded(RecordedTree):
    """A tree of a user who may open no device node."""

    def permitted(self, path: str) -> bool:
        self.looked.append(Looked(path, "not permitted"))
        return False


def test_who_may_not_open_the_node_is_told_the_group(tmp_path: Path) -> None:
    tree(tmp_path, m.STRIX_POINT)
    gpu = probe.read_gpu(Guarded(tmp_path), 1.0)["gpu"].value[0]
    assert (gpu["stage"], gpu["hint"]) == ("driver_bound", "add the user to the group render")


def test_nothing_to_look_at_is_unknown_and_says_so(tmp_path: Path) -> None:
    reading = read(tmp_path, {"/proc/meminfo": ""})[0]
    assert (reading.value, reading.confidence) == (None, Confidence.UNKNOWN)
    assert reading.reason


AMD = "/sys/devices/pci0000:00/0000:c4:00.0"


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\0\1", FOLDER, Link("gpu_busy_percent"), b"", "65261000000", "-5", "0x" + "f" * 9000]
)
def test_a_bad_attribute_costs_its_own_figure_only(tmp_path: Path, junk: object) -> None:
    reading, _, _ = read(tmp_path, {**m.STRIX_POINT, f"{AMD}/gpu_busy_percent": junk})
    gpu = reading.value[0]
    assert gpu["utilization_percent"] is None
    assert (gpu["temperature_c"], gpu["memory_total_bytes"], gpu["stage"]) == (48.0, 18 * m.GIB, "usable")
    if junk is FOLDER or isinstance(junk, Link) or junk == b"\xff\xfe\0\1":
        assert "gpu_busy_percent" in reading.reason


def test_a_card_that_leads_in_a_circle_leaves_the_others(tmp_path: Path) -> None:
    reading, _, _ = read(tmp_path, m.STRIX_POINT, {f"{m.DRM}/card7/device": Link("device"), f"{m.DRM}/card8": b"\xff"})
    assert [gpu["device"] for gpu in reading.value] == ["card1"]
    assert "card7" in reading.reason


def test_a_card_that_cannot_be_told_leaves_it_unknown(tmp_path: Path) -> None:
    reading, _, _ = read(
        tmp_path, {f"{m.DRM}/card0/device/vendor": b"\xff\0", f"{m.DRM}/card0/device/class": "0x030000"}
    )
    assert (reading.value, reading.confidence) == (None, Confidence.UNKNOWN)


_ATTRIBUTES = sorted(
    {
        path
        for files in (m.STRIX_POINT, m.CORE_ULTRA, m.JETSON_ORIN, m.RK3588, m.SLEEPING)
        for path, v in files.items()
        if not isinstance(v, Link)
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.dictionaries(st.sampled_from(_ATTRIBUTES), st.binary(max_size=40), max_size=12))
def test_no_bytes_anywhere_make_it_raise(tmp_path_factory: pytest.TempPathFactory, junk: dict[str, bytes]) -> None:
    machine = tree(
        tmp_path_factory.mktemp("m"),
        {**m.STRIX_POINT, **m.CORE_ULTRA, **m.JETSON_ORIN, **m.RK3588, **m.SLEEPING, **junk},
    )
    readings = probe.read_gpu(machine, 1.0)
    assert readings["gpu"].value or readings["gpu"].reason


_VALUES = st.recursive(
    st.integers(0, 2**40) | st.binary(max_size=9) | st.text("abc", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "PerformanceStatistics", "IOClass", "vramFreeBytes"]), inner)
    ),
)


@given(st.binary(max_size=300) | _VALUES.map(plistlib.dumps) | st.lists(_VALUES).map(plistlib.dumps))
def test_no_ioreg_output_makes_it_raise(raw: bytes) -> None:
    assert (
        probe.parse_ioreg_gpus(raw) is None
        or accelerators.gpu_type_for(probe.parse_ioreg_gpus(raw) or [], {}) is not None
    )


def test_a_mac_s_gpu_is_metal() -> None:
    raw = plistlib.dumps(
        [
            {
                "IOClass": "AGXAcceleratorG14G",
                "CFBundleIdentifier": "com.apple.AGXG14G",
                "model": "Apple M2",
                "gpu-core-count": 10,
                "PerformanceStatistics": {"Device Utilization %": 31, "In use system memory": 700_000_000},
            }
        ]
    )
    (gpu,) = probe.parse_ioreg_gpus(raw) or []
    assert (gpu["name"], gpu["vendor"], gpu["unified"], gpu["utilization_percent"]) == ("Apple M2", "Apple", True, 31.0)
    assert gpu["memory_used_bytes"] == 700_000_000
    assert accelerators.gpu_type_for([gpu], {}) is GpuType.METAL
    assert probe.parse_ioreg_gpus(b"") == []
    assert probe.parse_ioreg_gpus(b"\xff") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("437", 43.7), ("1000", 100.0), ("1001", None), ("37@300000000Hz", 37.0), ("", None), ("x", None), ("-3", None)],
)
def test_loads(text: str, expected: float | None) -> None:
    assert gpu_figures.parse_load(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00000000:17:00.0", "0000:17:00.0"), ("0001:AB:00.1", "0001:ab:00.1"), ("virtio0", None), (None, None)],
)
def test_bus_addresses(text: str | None, expected: str | None) -> None:
    assert pci.bus_address(text) == expected


def test_software_drivers_are_no_drivers_for_a_gpu() -> None:
    found = probe.graphics_api({"vulkan": ["lvp_icd.x86_64.json", "radeon_icd.json"], "opencl": ["pocl.icd"]})
    assert found == {"vulkan": ["radeon_icd.json"], "opencl": []}
    gpu = {"driver": "i915", "vendor": "Intel", "stage": "usable"}
    assert accelerators.gpu_type_for([gpu], found) is GpuType.NONE  # Radeon's is not for it
