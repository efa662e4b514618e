"""GPUs as the kernel shows them: DRM cards, the PCI bus, devfreq, and WSL's ``/dev/dxg``.

What is a GPU is decided by the driver and the vendor, not by there being a card: virtual outputs, firmware's frame
buffers, a server's management display and an NPU's render node are cards too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from xybridd.probes.gpu_figures import figures_of, load_of
from xybridd.probes.pci import (
    PciDevice,
    Stage,
    asleep,
    bus_address,
    driver_of,
    identity,
    pci_devices,
    uevent_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xybridd.probes.tree import Tree

DRM = "/sys/class/drm"
DEVFREQ = "/sys/class/devfreq"

VENDORS = {0x10DE: "NVIDIA", 0x1002: "AMD", 0x8086: "Intel", 0x1ED5: "Moore Threads", 0x1010: "Imagination"}

#: Drivers of GPUs on the PCI bus, and whose GPUs.
PCI_DRIVERS = {
    "amdgpu": "AMD",
    "radeon": "AMD",
    "i915": "Intel",
    "xe": "Intel",
    "nvidia": "NVIDIA",
    "nouveau": "NVIDIA",  # Tegra's as well
}

#: Drivers of GPUs on a system on chip, by the driver of the card's device.
SOC_DRIVERS = {
    "v3d": ("Broadcom", "VideoCore"),
    "vc4-drm": ("Broadcom", "VideoCore IV"),
    "panfrost": ("Arm", "Mali"),
    "panthor": ("Arm", "Mali"),
    "lima": ("Arm", "Mali"),
    "mali": ("Arm", "Mali"),
    "msm": ("Qualcomm", "Adreno"),
    "msm-mdss": ("Qualcomm", "Adreno"),
    "msm_mdss": ("Qualcomm", "Adreno"),
    "msm_mdp": ("Qualcomm", "Adreno"),
    "msm_dpu": ("Qualcomm", "Adreno"),
    "adreno": ("Qualcomm", "Adreno"),
    "kgsl-3d": ("Qualcomm", "Adreno"),
    "etnaviv": ("Vivante", "GC"),
    "asahi": ("Apple", "AGX"),
    "powervr": ("Imagination", "PowerVR"),
    "pvrsrvkm": ("Imagination", "PowerVR"),
}

#: Drivers that give a PCI display no rendering, or none of ours: virtual outputs, management displays, passed through.
_OUTPUTS_ONLY = frozenset(
    [
        "simple-framebuffer",
        "simpledrm",
        "vgem",
        "vkms",
        "ofdrm",
        "efidrm",
        "vesadrm",
        "bochs",
        "bochs-drm",
        "qxl",
        "vmwgfx",
        "cirrus",
        "cirrus-qemu",
        "ast",
        "mgag200",
        "hibmc",
        "hibmc-drm",
        "evdi",
        "udl",
        "gud",
        "hyperv_drm",
        "hyperv-drm",
        "vboxvideo",
        "RKNPU",
        "intel_vpu",
        "amdxdna",
        "rocket",
        "qaic",
        "habanalabs",
        "ethosu",
    ]
)

#: ga10b, gv11b and the like are Tegra's; bandwidth monitors (gpubw, kgsl-busmon) are not GPUs.
_DEVFREQ_GPU = re.compile(r"(?:.*[.:,])?(gpu|mali|g[a-z]\d{2}b|gk20a|kgsl-3d0)(?:-gpc-\d+)?")
_TEGRA = re.compile(r"(?:.*[.:])?g[a-z]\d{2}[ab]")
_TEGRA_NODES = ("/dev/nvhost-gpu", "/dev/nvgpu/igpu0/ctrl", "/dev/nvhost-ctrl-gpu", "/dev/nvmap")
_RENDER_HINT = "add the user to the group render"


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. What is not known is None; sizes in bytes, temperature in °C, power in W, utilisation in percent.

    ``unified``: its memory is the machine's, ``memory_total_bytes`` then what the driver may take of it.
    ``device`` is the name of the card, the devfreq device or the node; ``bus`` the PCI address.
    """

    name: str
    vendor: str | None = None
    driver: str | None = None
    device: str | None = None
    bus: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    unified: bool | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled: bool | None = None
    throttle_reasons: list[str] = []
    asleep: bool = False
    stage: Stage = Stage.PRESENT
    hint: str | None = None


class Card(msgspec.Struct, frozen=True):
    """A DRM card's device. ``key`` is the device's own name, by which its render node is found."""

    name: str
    path: str
    key: str | None
    bus: str | None
    vendor_id: int
    device_id: int
    driver: str | None
    compatible: str | None
    asleep: bool
    can_3d: bool = False  # virtio only
    problem: str | None = None  # why neither driver nor vendor is known


class Hardware(msgspec.Struct, frozen=True):
    """``doubts``: why something that may be a GPU could not be told; ``problems``: figures that could not be read."""

    gpus: list[Gpu]
    doubts: list[str]
    problems: list[str]


def is_gpu(card: Card, *, renders: bool) -> bool:
    """Whether a card is a GPU that could compute."""
    if card.driver in _OUTPUTS_ONLY:
        return False
    if card.driver in {"virtio_gpu", "virtio-pci"}:
        return card.can_3d
    if card.driver in SOC_DRIVERS:
        # From the Raspberry Pi 4 on, vc4 is the display alone, and v3d is the GPU.
        return renders or card.driver != "vc4-drm"
    if card.bus is not None:
        return card.vendor_id in VENDORS or card.driver in PCI_DRIVERS or (renders and card.driver is not None)
    return card.driver in PCI_DRIVERS and card.driver != "nvidia"  # which is a Tegra's display there


def is_pci_gpu(device: PciDevice, display_slots: Mapping[str, int]) -> bool:
    """Whether a PCI device without a card is a GPU: a display (0x03xx), or an AMD Instinct (0x1200).

    A later function of a slot with no driver is the second head of an old Intel chip, or a virtual function.
    """
    if device.vendor_id not in VENDORS or device.driver in _OUTPUTS_ONLY:
        return False
    return (
        device.driver is not None or not device.bus[-1:].isdecimal() or display_slots[device.slot] == _function(device)
    )


def _function(device: PciDevice) -> int:
    return int(device.bus[-1:], 16) if re.fullmatch(r"[0-7]", device.bus[-1:]) else 0


def _may_be_gpu(class_code: int) -> bool:
    return class_code >> 16 in {0x03, 0x12}


def name_of(vendor: str | None, vendor_id: int, device_id: int) -> str:
    return f"{vendor or 'unknown'} GPU {vendor_id:04x}:{device_id:04x}"


def missing_driver_hint(device: PciDevice) -> str | None:
    if device.driver == "vfio-pci":
        return "vfio-pci has it, for a virtual machine"
    if device.driver is not None:
        return None
    packages = {0x10DE: "nvidia", 0x1002: "amdgpu", 0x8086: "i915 or xe"}
    return f"no driver is bound: install or load {packages.get(device.vendor_id, 'its driver')}"


def stage_of(node: str | None, *, there: bool, permitted: bool) -> tuple[Stage, str | None]:
    """The stage of a GPU with a driver, by its render node, and what would take it further."""
    if node is None:
        return Stage.DRIVER_BOUND, "its driver has no render node"
    if not there:
        return Stage.DRIVER_BOUND, f"{node} is not there: a container is given it by --device /dev/dri"
    if not permitted:
        return Stage.DRIVER_BOUND, _RENDER_HINT
    return Stage.USABLE, None


def find_gpus(tree: Tree, now_s: float) -> Hardware:
    """Every GPU of the machine, in the order of its cards, then of the bus."""
    listed = tree.listing(DRM)
    names = listed.value or []
    cards = [read_card(tree, name) for name in names if re.fullmatch(r"card[0-9]+", name)]
    nodes = _render_nodes(tree, names)
    devices, doubts = pci_devices(tree, _may_be_gpu)
    doubts += [listed.problem] if listed.problem else []
    gpus: list[Gpu] = []
    problems: list[str] = []
    chosen = [card for card in cards if is_gpu(card, renders=card.key in nodes)]
    for card in chosen:
        node = nodes.get(card.key or "") or _only_node(tree, nodes, alone=len(chosen) == 1)
        gpus.append(_gpu_of(tree, card, node, problems, now_s))
    doubts += [card.problem for card in cards if card.problem is not None]
    gpus += _without_card(tree, devices, {card.bus for card in chosen}, cards)
    gpus = _with_devfreq(tree, gpus)
    if not gpus and (tree.exists("/dev/dxg") or tree.exists("/sys/class/misc/dxg")):
        gpus.append(_of_windows(tree))
    return Hardware(gpus, doubts, problems)


def read_card(tree: Tree, name: str) -> Card:
    device = f"{DRM}/{name}/device"
    uevent = uevent_of(tree, device)
    key = _key(tree, device, uevent)
    vendor_id, device_id = identity(tree, device, uevent)
    driver = driver_of(tree, device, uevent)
    virtio = driver in {"virtio_gpu", "virtio-pci"}
    # The feature bits of a virtio device, lowest first; bit 0 of a GPU is VIRTIO_GPU_F_VIRGL.
    can_3d = virtio and (tree.text(f"{device}/features").value or "").startswith("1")
    bus = bus_address(uevent.get("PCI_SLOT_NAME")) or bus_address(key)
    compatible = uevent.get("OF_COMPATIBLE_0")
    # A card with neither is one of the kernel's own (vgem, vkms), unless reading failed.
    problem = None if driver or vendor_id else tree.text(f"{device}/vendor").problem
    return Card(name, device, key, bus, vendor_id, device_id, driver, compatible, asleep(tree, device), can_3d, problem)


def _key(tree: Tree, device: str, uevent: dict[str, str]) -> str | None:
    link = tree.link(device)
    if link is not None and link != "device":
        return link
    # A copy that followed the links has the device itself in each place, which is known by what it says of itself.
    return uevent.get("PCI_SLOT_NAME") or uevent.get("OF_FULLNAME") or (str(uevent) if "DRIVER" in uevent else None)


def _render_nodes(tree: Tree, names: list[str]) -> dict[str, str]:
    """The render node of each device, ``/dev/dri/renderD128``, by the device's name."""
    nodes = {}
    for name in names:
        if re.fullmatch(r"renderD[0-9]+", name):
            device = f"{DRM}/{name}/device"
            key = _key(tree, device, uevent_of(tree, device))
            if key is not None:
                nodes[key] = f"/dev/dri/{name}"
    return nodes


def _only_node(tree: Tree, nodes: dict[str, str], *, alone: bool) -> str | None:
    """The one node that no other device has, for the one GPU there is: sysfs does not always link them."""
    if not alone:
        return None
    free = [f"/dev/dri/{name}" for name in tree.names("/dev/dri") if name.startswith("renderD")]
    free = [node for node in free if node not in nodes.values()]
    return free[0] if len(free) == 1 else None


def _gpu_of(tree: Tree, card: Card, node: str | None, problems: list[str], now_s: float) -> Gpu:
    vendor, family = SOC_DRIVERS.get(card.driver or "", (VENDORS.get(card.vendor_id), ""))
    vendor = vendor or PCI_DRIVERS.get(card.driver or "")
    if card.bus is not None or not family:
        name = name_of(vendor, card.vendor_id, card.device_id)
        if card.driver in {"virtio_gpu", "virtio-pci"}:
            name = "virtio GPU (of the host)"
    else:
        name = f"{vendor} {family}" + (f" ({card.compatible})" if card.compatible else "")
    stage, hint = stage_of(
        node, there=node is not None and tree.exists(node), permitted=node is not None and tree.permitted(node)
    )
    gpu = Gpu(
        name, vendor, card.driver, card.name, card.bus, asleep=card.asleep, stage=stage, hint=hint,
        unified=True if card.driver in SOC_DRIVERS else None,
    )  # fmt: skip
    if card.asleep:
        return gpu
    figures, met = figures_of(tree, card.driver, f"{DRM}/{card.name}", card.bus, card.device_id, now_s)
    problems += met
    return msgspec.structs.replace(gpu, **figures)


def _without_card(tree: Tree, devices: list[PciDevice], seen: set[str | None], cards: list[Card]) -> list[Gpu]:
    """The GPUs on the bus that no DRM driver made a card of."""
    refused = {card.bus for card in cards if card.driver in _OUTPUTS_ONLY}
    displays = [d for d in devices if d.class_code >> 16 == 0x03 or (d.vendor_id == 0x1002)]
    first: dict[str, int] = {}
    for device in displays:
        first[device.slot] = min(first.get(device.slot, 7), _function(device))
    gpus = []
    for device in displays:
        if device.bus in seen | refused or not is_pci_gpu(device, first):
            continue
        if device.driver in {None, "vfio-pci"} and tree.link(f"{device.path}/physfn"):
            continue  # a virtual function, kept for guests
        vendor = VENDORS[device.vendor_id]
        bound = device.driver is not None and device.driver != "vfio-pci"
        sleeping = asleep(tree, device.path)
        gpu = Gpu(
            name_of(vendor, device.vendor_id, device.device_id), vendor, device.driver, device.bus, device.bus,
            asleep=sleeping, stage=Stage.DRIVER_BOUND if bound else Stage.PRESENT, hint=missing_driver_hint(device),
        )  # fmt: skip
        gpus.append(gpu)
    return gpus


def _with_devfreq(tree: Tree, gpus: list[Gpu]) -> list[Gpu]:
    """Add what devfreq knows: the load of a GPU found already, or a GPU that has no card (Jetson, Arm's own driver)."""
    for name in tree.names(DEVFREQ):
        if not _DEVFREQ_GPU.fullmatch(name):
            continue
        found = _devfreq_gpu(tree, name)
        at = next((i for i, gpu in enumerate(gpus) if _is_same(gpu, found)), None)
        if at is None:
            gpus = [*gpus, found]
        elif gpus[at].bus is None and gpus[at].utilization_percent is None and not gpus[at].asleep:
            gpus[at] = msgspec.structs.replace(gpus[at], utilization_percent=found.utilization_percent)
    return gpus


def _is_same(gpu: Gpu, found: Gpu) -> bool:
    """A chip has one GPU on the system's bus, so one whose maker devfreq does not tell is that one."""
    return gpu.vendor == found.vendor if found.vendor is not None else gpu.bus is None


def _devfreq_gpu(tree: Tree, name: str) -> Gpu:
    device = f"{DEVFREQ}/{name}/device"
    uevent = uevent_of(tree, device)
    driver = driver_of(tree, device, uevent)
    compatible = uevent.get("OF_COMPATIBLE_0")
    vendor, family = SOC_DRIVERS.get(driver or "", (None, "GPU"))
    for part, by_tree in (("mali", SOC_DRIVERS["mali"]), ("adreno", SOC_DRIVERS["adreno"])):
        if vendor is None and part in (compatible or ""):
            vendor, family = by_tree
    nodes: tuple[str, ...] = {"Arm": ("/dev/mali0",), "Qualcomm": ("/dev/kgsl-3d0",)}.get(vendor or "", ())
    group = "render"
    if vendor is None and _is_tegra(tree, name, compatible):
        vendor, family, nodes, group = "NVIDIA", "Tegra GPU", _TEGRA_NODES, "video"
        driver = driver or "nvgpu"
    sleeping = asleep(tree, device)
    there = [node for node in nodes if tree.exists(node)]
    stage, hint = Stage.DRIVER_BOUND, "its device node is not there" if nodes else None
    if there:
        usable = tree.permitted(there[0])
        stage, hint = (Stage.USABLE, None) if usable else (Stage.DRIVER_BOUND, f"add the user to the group {group}")
    title = f"{vendor} {family}" if vendor else family
    return Gpu(
        f"{title} ({compatible or name})", vendor, driver, name, None, unified=True, asleep=sleeping, stage=stage,
        hint=hint, **({} if sleeping else load_of(tree, f"{DEVFREQ}/{name}")),
    )  # fmt: skip


def _is_tegra(tree: Tree, name: str, compatible: str | None) -> bool:
    if _TEGRA.fullmatch(name) or (compatible or "").startswith("nvidia,"):
        return True
    boards = tree.bytes("/proc/device-tree/compatible").value or b""
    return compatible is None and b"nvidia,tegra" in boards


def _of_windows(tree: Tree) -> Gpu:
    usable = tree.permitted("/dev/dxg")
    return Gpu(
        "GPU of the Windows host (WSL)", None, "dxgkrnl", "dxg", None,
        stage=Stage.USABLE if usable else Stage.DRIVER_BOUND, hint=None if usable else _RENDER_HINT,
    )  # fmt: skip
