from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes import machines_gpu_npu as m
from tests.probes.given import FOLDER, Files, Link, tree
from xybridd.core import accelerators
from xybridd.core.capabilities import Confidence
from xybridd.probes import macos
from xybridd.probes import npu as probe
from xybridd.probes.recorded import RecordedTree
from xybridd.probes.tree import Found

if TYPE_CHECKING:
    from pathlib import Path

ROCKET = {**m.soc("fdab0000.npu", "rocket", "rockchip,rk3588-rknn-core"), **m.accel(0, "fdab0000.npu")}
FASTRPC: Files = {
    "/sys/class/misc/fastrpc-cdsp/dev": "10:122",
    "/sys/class/misc/fastrpc-adsp/dev": "10:121",
    "/dev/fastrpc-cdsp": "",
}
ADSP_ONLY: Files = {"/sys/class/misc/fastrpc-adsp/dev": "10:121"}
HAILO_DRIVERLESS = m.pci("0001:01:00.0", 0x0B4000, 0x1E60, 0x2864)
RKNPU_OLD: Files = {"/sys/class/devfreq/fdab0000.npu/device/uevent": "DRIVER=RKNPU"}

#: machine → (vendor, driver, device, stage) of each NPU.
MACHINES: dict[str, tuple[Files, list[tuple[str, str | None, str | None, str]]]] = {
    "Strix Point": (m.STRIX_POINT, [("AMD", "amdxdna", "/dev/accel/accel0", "usable")]),
    "Core Ultra": (m.CORE_ULTRA, [("Intel", "intel_vpu", "/dev/accel/accel0", "usable")]),
    "Core Ultra, no driver": (m.CORE_ULTRA_NO_VPU, [("Intel", None, None, "present")]),
    "Raspberry Pi 5": (m.RASPBERRY_PI_5, [("Hailo", "hailo", "/dev/hailo0", "usable")]),
    "Hailo, no driver": (HAILO_DRIVERLESS, [("Hailo", None, None, "present")]),
    "RK3588": (m.RK3588, [("Rockchip", "RKNPU", "/dev/dri/renderD129", "usable")]),
    "RK3588, rocket": (ROCKET, [("Rockchip", "rocket", "/dev/accel/accel0", "usable")]),
    "RKNPU without a node": (RKNPU_OLD, [("Rockchip", "RKNPU", None, "driver_bound")]),
    "Coral before": (m.CORAL_BEFORE, [("Google", "usb", "/dev/bus/usb/002/007", "permitted")]),
    "Coral after": (m.CORAL_AFTER, [("Google", "usb", "/dev/bus/usb/002/007", "usable")]),
    "Coral PCI": (m.CORAL_PCI, [("Google", "apex", "/dev/apex_0", "usable")]),
    "Coral PCI, no driver": (m.CORAL_PCI_DRIVERLESS, [("Google", None, None, "present")]),
    "Qualcomm": (FASTRPC, [("Qualcomm", "fastrpc", "/dev/fastrpc-cdsp", "usable")]),
    "Qualcomm, audio only": (ADSP_ONLY, []),
    "Jetson Orin": (m.JETSON_ORIN, []),
    "eight GPUs": (m.EIGHT_GPUS, []),
    "VM": (m.VM_WITH_NONE, []),
}


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_has_the_npus_it_has(tmp_path: Path, name: str) -> None:
    files, expected = MACHINES[name]
    reading = probe.read_npu(tree(tmp_path, files), 3.0)["npu"]
    npus = reading.value or []
    assert [(n["vendor"], n["driver"], n["device"], n["stage"]) for n in npus] == expected
    assert (reading.confidence, reading.taken_s) == (Confidence.HIGH, 3.0)
    assert reading.value is None or reading.value
    assert any(map(accelerators.is_bound, npus)) is any(stage != "present" for *_, stage in expected)
    assert all(n["hint"] for n in npus if n["stage"] != "usable")


def test_who_may_not_open_the_node_is_told_the_group(tmp_path: Path) -> None:
    class Guarded(RecordedTree):
        def permitted(self, path: str) -> bool:
            return not path

    for files, stage, hint in (
        (m.CORE_ULTRA, "driver_bound", "add the user to the group render"),
        (m.CORAL_AFTER, "present", "add the user to the group plugdev"),
    ):
        folder = tmp_path / stage
        tree(folder, files)
        npus = probe.read_npu(Guarded(folder), 1.0)["npu"].value
        assert (npus[0]["stage"], npus[0]["hint"]) == (stage, hint)
        assert any(map(accelerators.is_bound, npus))


def test_nothing_to_look_at_is_unknown(tmp_path: Path) -> None:
    reading = probe.read_npu(tree(tmp_path, {"/proc/meminfo": ""}), 1.0)["npu"]
    assert (reading.value, reading.confidence) == (None, Confidence.UNKNOWN)
    assert reading.reason


@pytest.mark.parametrize("junk", [b"\xff\0", FOLDER, Link("class")])
def test_a_device_that_cannot_be_read_leaves_the_others(tmp_path: Path, junk: object) -> None:
    bad = {"/sys/bus/pci/devices/0000:09:00.0/class": junk}
    reading = probe.read_npu(tree(tmp_path / "a", m.CORE_ULTRA, bad), 1.0)["npu"]
    assert [npu["driver"] for npu in reading.value] == ["intel_vpu"]
    assert "0000:09:00.0/class" in (reading.reason or "")
    alone = probe.read_npu(tree(tmp_path / "b", bad), 1.0)["npu"]
    assert (alone.value, alone.confidence) == (None, Confidence.UNKNOWN)


_ALL: Files = {**m.STRIX_POINT, **m.RASPBERRY_PI_5, **m.RK3588, **m.CORAL_AFTER, **m.CORAL_PCI, **FASTRPC}
_ATTRIBUTES = sorted(path for path, content in _ALL.items() if not isinstance(content, Link))


@settings(max_examples=60, deadline=None)
@given(junk=st.dictionaries(st.sampled_from(_ATTRIBUTES), st.binary(max_size=40), max_size=12))
def test_no_bytes_anywhere_make_it_raise(tmp_path_factory: pytest.TempPathFactory, junk: dict[str, bytes]) -> None:
    reading = probe.read_npu(tree(tmp_path_factory.mktemp("m"), {**_ALL, **junk}), 1.0)["npu"]
    assert reading.value or reading.reason


def test_the_apple_neural_engine() -> None:
    raw = plistlib.dumps([{"IOClass": "H11ANEIn", "DeviceProperties": {"ANEDevicePropertyNumANECores": 16}}])
    (npu,) = probe.parse_ioreg_npus(raw) or []
    assert (npu["name"], npu["driver"], npu["stage"]) == ("Apple Neural Engine (16 cores)", "H11ANEIn", "usable")
    assert probe.parse_ioreg_npus(b"") == []
    assert probe.parse_ioreg_npus(b"\0\1") is None
    for printed, confidence in ((b"", Confidence.HIGH), (b"\0\1", Confidence.UNKNOWN), (None, Confidence.UNKNOWN)):
        found = Found("ioreg -a", printed, None if printed is not None else "ioreg -a: no such file")
        assert macos.mac_reading(found, probe.parse_ioreg_npus, 1.0).confidence is confidence
