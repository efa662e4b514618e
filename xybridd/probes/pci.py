"""What the GPU and NPU probes share: devices on the PCI bus, their drivers, and how far an accelerator got.

Vendor, device, class, driver, uevent and runtime_status answer from the kernel's memory; no other attribute is read
of a device that sleeps, since most of them wake it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.probes.tree import Tree

PCI_DEVICES = "/sys/bus/pci/devices"

_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2}\.[0-7])", re.IGNORECASE)


class Stage(StrEnum):
    """How far an accelerator got, each stage with all before it."""

    PRESENT = "present"
    DRIVER_BOUND = "driver_bound"
    PERMITTED = "permitted"
    USABLE = "usable"


class PciDevice(msgspec.Struct, frozen=True):
    """``class_code`` is of 24 bits, as in ``0x030000``; ``bus`` is the address, ``0000:01:00.0``."""

    bus: str
    path: str
    class_code: int
    vendor_id: int
    device_id: int
    driver: str | None

    @property
    def slot(self) -> str:
        return self.bus.rpartition(".")[0]


def parse_uevent(text: str) -> dict[str, str]:
    """The ``KEY=value`` lines of a device's uevent."""
    return {key: value for key, is_there, value in (line.partition("=") for line in text.splitlines()) if is_there}


def bus_address(text: str | None) -> str | None:
    """A PCI address in sysfs's spelling, ``0000:01:00.0``, also from NVML's ``00000000:01:00.0``; else None."""
    found = _ADDRESS.fullmatch(text or "")
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}".lower() if found else None


def uevent_of(tree: Tree, device: str) -> dict[str, str]:
    return parse_uevent(tree.text(f"{device}/uevent").value or "")


def driver_of(tree: Tree, device: str, uevent: dict[str, str]) -> str | None:
    """The bound driver: the link, else what the uevent says, which a flat copy of the tree still has."""
    return tree.link(f"{device}/driver") or uevent.get("DRIVER")


def asleep(tree: Tree, device: str) -> bool:
    return tree.text(f"{device}/power/runtime_status").value in {"suspended", "suspending"}


def identity(tree: Tree, device: str, uevent: dict[str, str]) -> tuple[int, int]:
    """Vendor and device id; 0 where unknown."""
    vendor, model = tree.number(f"{device}/vendor").value, tree.number(f"{device}/device").value
    said = re.fullmatch(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})", uevent.get("PCI_ID", ""))
    if said:
        vendor = vendor if vendor is not None else int(said[1], 16)
        model = model if model is not None else int(said[2], 16)
    return _id(vendor), _id(model)


def _id(number: int | None) -> int:
    return number if number is not None and 0 <= number <= 0xFFFF else 0


def pci_devices(tree: Tree, wanted: Callable[[int], bool]) -> tuple[list[PciDevice], list[str]]:
    """The devices on the bus whose class is wanted, and the problems met."""
    listed = tree.listing(PCI_DEVICES)
    problems = [listed.problem] if listed.problem else []
    devices = []
    for name in listed.value or []:
        path = f"{PCI_DEVICES}/{name}"
        found = tree.number(f"{path}/class")
        class_code = found.value
        uevent: dict[str, str] = {}
        if class_code is None:
            uevent = uevent_of(tree, path)
            class_code = _hex(uevent.get("PCI_CLASS", ""))
        if class_code is None:
            problems += [found.problem] if found.problem else []
        elif wanted(class_code):
            uevent = uevent or uevent_of(tree, path)
            vendor_id, device_id = identity(tree, path, uevent)
            driver = driver_of(tree, path, uevent)
            devices.append(PciDevice(bus_address(name) or name, path, class_code, vendor_id, device_id, driver))
    return devices, problems


def _hex(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"[0-9A-Fa-f]{1,6}", text) else None
