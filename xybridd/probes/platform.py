"""Which of the reference's platforms this is, and what the board calls itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.core.capabilities import Platform, Reading
from xybridd.probes.macos import SYSCTL, parse_sysctl
from xybridd.probes.probe import Probe, Quantity, none_there, sure, unknown
from xybridd.probes.tree import MAC

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

_PLATFORMS = {"linux": Platform.LINUX, "darwin": Platform.MACOS, "android": Platform.ANDROID, "ios": Platform.IOS}

#: Where boards and machines say what they are: a device tree, else the firmware's tables.
_MODELS = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")


def read_platform(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``platform`` and ``machine``: the model's name, such as ``Raspberry Pi 5 Model B Rev 1.0``."""
    found = _PLATFORMS.get(tree.platform, Platform.UNKNOWN)
    source = "sys.platform" if tree.live else "the recorded tree"
    platform = unknown(now_s) if found is Platform.UNKNOWN else sure(found, now_s, source)
    return {"platform": platform, "machine": _machine(tree, now_s)}


def _machine(tree: Tree, now_s: float) -> Reading:
    if tree.platform == "darwin":
        tree.exists(MAC)  # so that a recording has it
        said = tree.output(*SYSCTL, constant=True)
        told = parse_sysctl((said.value or b"").decode(errors="replace"))
        names = [told[name] for name in ("hw.model", "machdep.cpu.brand_string") if told.get(name)]
        return sure(", ".join(names)[:128], now_s, said.path) if names else unknown(now_s, said.problem, said.path)
    for path in _MODELS:
        raw = tree.bytes(path).value
        name = (raw or b"").decode("utf-8", "replace").strip("\0\n ")
        if name:
            return sure(name[:128], now_s, path)
    return none_there(now_s, _MODELS[-1])


PLATFORM = Probe("platform", (Quantity("platform", "", "state"), Quantity("machine", "", "state")), read_platform)
