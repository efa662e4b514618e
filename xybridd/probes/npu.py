"""NPUs: the kernel's accelerator class, and the makers who have a way of their own.

Rockchip's RKNPU (a render node, or ``/dev/rknpu``), Hailo, Google's Coral on PCI and USB, Qualcomm's fastrpc, and
the Apple Neural Engine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.macos import ioreg_entries, mac_reading
from xybridd.probes.pci import PciDevice, Stage, bus_address, driver_of, pci_devices, uevent_of
from xybridd.probes.probe import Probe, Quantity, none_there, unknown

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

_ACCEL = "/sys/class/accel"
_USB = "/sys/bus/usb/devices"

#: Drivers of the accelerator class: vendor and name.
_ACCEL_DRIVERS = {
    "intel_vpu": ("Intel", "Intel NPU"),
    "amdxdna": ("AMD", "AMD XDNA NPU"),
    "rocket": ("Rockchip", "Rockchip NPU"),
    "qaic": ("Qualcomm", "Qualcomm Cloud AI 100"),
    "habanalabs": ("Intel", "Intel Gaudi"),
    "ethosu": ("Arm", "Arm Ethos-U"),
}

#: NPUs on the PCI bus by (vendor, device): vendor, name, its driver, and how one gets that.
_PCI_NPUS = {
    **{
        (0x8086, device): ("Intel", name, "intel_vpu", "Linux 6.3 or newer has it, with its firmware")
        for device, name in {
            0x7D1D: "Intel NPU (Meteor Lake)",
            0xAD1D: "Intel NPU (Arrow Lake)",
            0x643E: "Intel NPU (Lunar Lake)",
            0xB03E: "Intel NPU (Panther Lake)",
            0xFD3E: "Intel NPU (Wildcat Lake)",
            0xD71D: "Intel NPU (Nova Lake)",
        }.items()
    },
    (0x1022, 0x1502): ("AMD", "AMD XDNA NPU (Phoenix)", "amdxdna", "Linux 6.14 or newer has it"),
    (0x1022, 0x17F0): ("AMD", "AMD XDNA NPU (Strix)", "amdxdna", "Linux 6.14 or newer has it"),
    (0x17CB, 0xA100): ("Qualcomm", "Qualcomm Cloud AI 100", "qaic", "Linux 6.4 or newer has it"),
    (0x1AC1, 0x089A): ("Google", "Coral Edge TPU", "apex", "install gasket-dkms"),
    (0x1E60, 0x2864): ("Hailo", "Hailo-8", "hailo", "install hailort-pcie-driver"),
    (0x1E60, 0x45C4): ("Hailo", "Hailo-10H", "hailo", "install hailort-pcie-driver"),
}

#: Processing accelerators, AMD's signal processing controller, co-processors, system peripherals, and unnamed ones.
_PCI_CLASSES = frozenset({0x1200, 0x1180, 0x0B40, 0x0880, 0xFF00, 0x0000})

_CORAL_USB = {("1a6e", "089a"): False, ("18d1", "9302"): True}


class Npu(msgspec.Struct, frozen=True):
    """``device`` is the node an app opens; ``hint`` what would take it to the next stage."""

    name: str
    vendor: str | None
    driver: str | None
    device: str | None
    stage: Stage
    hint: str | None = None


_IOREG = ("/usr/sbin/ioreg", "-a", "-rc", "H11ANEIn")


def stage_of(tree: Tree, node: str, group: str) -> tuple[Stage, str | None]:
    """The stage of an NPU whose driver is bound, by its device node."""
    if not tree.exists(node):
        return Stage.DRIVER_BOUND, f"{node} is not there: a container is given it by --device {node}"
    if not tree.permitted(node):
        return Stage.DRIVER_BOUND, f"add the user to the group {group}"
    return Stage.USABLE, None


def _accel_class(tree: Tree, names: list[str]) -> tuple[list[Npu], set[str]]:
    """The devices of ``/sys/class/accel``, and the PCI addresses that they have."""
    npus, buses = [], set()
    for name in names:
        if not re.fullmatch(r"accel[0-9]+", name):
            continue
        device = f"{_ACCEL}/{name}/device"
        uevent = uevent_of(tree, device)
        driver = driver_of(tree, device, uevent)
        bus = bus_address(uevent.get("PCI_SLOT_NAME")) or bus_address(tree.link(device))
        buses |= {bus} if bus else set()
        vendor, title = _ACCEL_DRIVERS.get(driver or "", (None, f"{driver or 'unknown'} accelerator"))
        stage, hint = stage_of(tree, f"/dev/accel/{name}", "render")
        npus.append(Npu(title, vendor, driver, f"/dev/accel/{name}", stage, hint))
    return npus, buses


def describe_pci(device: PciDevice) -> tuple[str, str, str, str] | None:
    """Vendor, name, driver and how to get it, of a PCI device that is an NPU; None for any other."""
    known = _PCI_NPUS.get((device.vendor_id, device.device_id))
    if known is None and device.vendor_id == 0x1E60:
        return "Hailo", f"Hailo {device.device_id:04x}", "hailo", "install hailort-pcie-driver"
    return known


def _on_pci(tree: Tree, taken: set[str]) -> tuple[list[Npu], list[str]]:
    devices, problems = pci_devices(tree, lambda class_code: class_code >> 8 in _PCI_CLASSES)
    npus = []
    nodes = {"hailo": _nodes(tree, "hailo_chardev"), "apex": _nodes(tree, "apex")}
    for device in devices:
        known = describe_pci(device)
        if known is None or device.bus in taken:
            continue
        vendor, name, driver, remedy = known
        node = nodes.get(driver, {}).pop(device.bus, None)
        if node is not None:
            npus.append(Npu(name, vendor, device.driver or driver, node, *stage_of(tree, node, _group(driver))))
        elif device.driver is not None:
            hint = f"{device.driver} made no device of it: see the kernel's log"
            npus.append(Npu(name, vendor, device.driver, None, Stage.DRIVER_BOUND, hint))
        else:
            npus.append(Npu(name, vendor, None, None, Stage.PRESENT, f"the driver {driver} is not loaded: {remedy}"))
    for driver, title, vendor in (("hailo", "Hailo", "Hailo"), ("apex", "Coral Edge TPU", "Google")):
        # Those whose PCI device is not to be seen.
        npus += [Npu(title, vendor, driver, n, *stage_of(tree, n, _group(driver))) for n in nodes[driver].values()]
    return npus, problems


def _group(driver: str) -> str:
    return "apex" if driver == "apex" else "hailo"


def _nodes(tree: Tree, kind: str) -> dict[str, str]:
    """The device nodes of a class by PCI address (by name where there is none)."""
    nodes = {}
    for name in tree.names(f"/sys/class/{kind}"):
        if re.fullmatch(r"[a-z_]+[0-9]+", name):
            device = f"/sys/class/{kind}/{name}/device"
            bus = bus_address(tree.link(device)) or bus_address(uevent_of(tree, device).get("PCI_SLOT_NAME"))
            bus = bus or bus_address(tree.text(f"/sys/class/{kind}/{name}/board_location").value)
            nodes[bus or name] = f"/dev/{name}"
    return nodes


def _rockchip(tree: Tree) -> list[Npu]:
    """RKNPU of the maker's kernel: its render node, else ``/dev/rknpu``; older ones show it in debugfs alone."""
    name, driver = "Rockchip NPU", "RKNPU"
    for card in tree.names("/sys/class/drm"):
        if re.fullmatch(r"renderD[0-9]+", card):
            device = f"/sys/class/drm/{card}/device"
            if driver_of(tree, device, uevent_of(tree, device)) == driver:
                node = f"/dev/dri/{card}"
                return [Npu(name, "Rockchip", driver, node, *stage_of(tree, node, "render"))]
    if tree.exists("/dev/rknpu"):
        return [Npu(name, "Rockchip", driver, "/dev/rknpu", *stage_of(tree, "/dev/rknpu", "video"))]
    for folder in ("/sys/class/devfreq", "/sys/bus/platform/devices"):
        for device in tree.names(folder):
            if not device.endswith(".npu"):
                continue
            inner = f"{folder}/{device}/device" if folder.endswith("devfreq") else f"{folder}/{device}"
            uevent = uevent_of(tree, inner)
            bound = driver_of(tree, inner, uevent)
            if bound == driver or uevent.get("OF_COMPATIBLE_0", "").startswith("rockchip,"):
                stage = Stage.DRIVER_BOUND if bound else Stage.PRESENT
                hint = "its device node is not there" if bound else "no driver is bound: RKNPU or rocket"
                return [Npu(name, "Rockchip", bound, None, stage, hint)]
    if tree.exists("/sys/kernel/debug/rknpu"):
        return [Npu(name, "Rockchip", driver, None, Stage.DRIVER_BOUND, "its device node is not there")]
    return []


def _coral_usb(tree: Tree) -> list[Npu]:
    """A Coral stick. It changes its ids when the first program that uses it has loaded its firmware."""
    npus = []
    for name in tree.names(_USB):
        if ":" in name:  # an interface, not a device
            continue
        ids = tuple((tree.text(f"{_USB}/{name}/{what}").value or "").lower() for what in ("idVendor", "idProduct"))
        loaded = _CORAL_USB.get((ids[0], ids[1]))
        if loaded is None:
            continue
        bus, number = (tree.number(f"{_USB}/{name}/{what}").value for what in ("busnum", "devnum"))
        known = bus is not None and number is not None and 0 < bus < 1000 and 0 < number < 1000
        node = f"/dev/bus/usb/{bus:03d}/{number:03d}" if known else None
        if node is None or not tree.permitted(node):
            stage, hint = Stage.PRESENT, "add the user to the group plugdev"
        elif loaded:
            stage, hint = Stage.USABLE, None
        else:
            stage, hint = Stage.PERMITTED, "the first program that uses it loads its firmware"
        npus.append(Npu("Coral USB Accelerator", "Google", "usb", node, stage, hint))
    return npus


def _qualcomm(tree: Tree) -> list[Npu]:
    """The compute DSP (cDSP) runs networks; the audio and sensor DSPs beside it do not."""
    names = {*tree.names("/sys/class/fastrpc"), *tree.names("/sys/class/misc")}
    nodes = [f"/dev/{name}" for name in sorted(names) if name.startswith("fastrpc-cdsp")]
    nodes = nodes or [node for node in ("/dev/fastrpc-cdsp", "/dev/fastrpc-cdsp-secure") if tree.exists(node)]
    if not nodes:
        return []
    return [Npu("Qualcomm Hexagon", "Qualcomm", "fastrpc", nodes[0], *stage_of(tree, nodes[0], "fastrpc"))]


def read_npu(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``npu``: a list of what `Npu` holds, the accelerator class first."""
    if tree.platform == "darwin":
        return {"npu": mac_reading(tree.output(*_IOREG), parse_ioreg_npus, now_s)}
    listed = tree.listing(_ACCEL)
    found, taken = _accel_class(tree, listed.value or [])
    on_pci, problems = _on_pci(tree, taken)
    problems += [listed.problem] if listed.problem else []
    found += on_pci
    if not any(npu.vendor == "Rockchip" for npu in found):
        found += _rockchip(tree)
    found += [*_coral_usb(tree), *_qualcomm(tree)]
    reason = "; ".join(problems[:3]) or None
    if found:
        value = [_as_dict(npu) for npu in found]
        confidence = Confidence.MEDIUM if problems else Confidence.HIGH
        return {"npu": Reading(value, confidence, _source(found[0]), now_s, reason)}
    if problems:
        return {"npu": unknown(now_s, reason, _ACCEL)}
    if not (tree.exists("/sys/class") or tree.exists("/sys/bus")):
        return {"npu": unknown(now_s, "neither /sys/class nor /sys/bus is there")}
    return {"npu": none_there(now_s, _ACCEL)}


def _source(npu: Npu) -> str:
    if (npu.device or "").startswith("/dev/accel"):
        return _ACCEL
    return npu.device or "/sys/bus"


def _as_dict(npu: Npu) -> dict[str, Any]:
    return {**msgspec.structs.asdict(npu), "stage": npu.stage.value}


def parse_ioreg_npus(raw: bytes) -> list[dict[str, Any]] | None:
    """The Apple Neural Engine, from ``ioreg -a -rc H11ANEIn``; None when it is no such list."""
    entries = ioreg_entries(raw)
    if entries is None:
        return None
    npus = []
    for entry in entries:
        said = entry.get("DeviceProperties")
        cores = said.get("ANEDevicePropertyNumANECores") if isinstance(said, dict) else None
        name = f"Apple Neural Engine ({cores} cores)" if isinstance(cores, int) else "Apple Neural Engine"
        kind = entry.get("IOClass") or entry.get("IOObjectClass")
        npus.append(_as_dict(Npu(name, "Apple", str(kind or "H11ANEIn"), None, Stage.USABLE)))
    return npus


NPU = Probe("npu", (Quantity("npu", "", "list"),), read_npu)
