"""What macOS's commands print: property lists of ``ioreg -a``, ``sysctl``, ``vm_stat``. Pure; the tree asks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xybridd.probes.probe import none_there, sure, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.core.capabilities import Reading
    from xybridd.probes.tree import Found

SYSCTL = ("/usr/sbin/sysctl", "hw.memsize", "hw.logicalcpu", "hw.model", "machdep.cpu.brand_string")
VM_STAT = ("/usr/bin/vm_stat",)

#: What a Mac that is read does not need to be asked by command, and one that is replayed does.
FOR_RECORDINGS = (SYSCTL, VM_STAT)


def ioreg_entries(raw: bytes) -> list[dict[str, Any]] | None:
    """The entries of an ``ioreg -a`` output, which is empty when there is none; None when it is no property list."""
    import plistlib  # noqa: PLC0415 - only a Mac needs it

    if not raw.strip():
        return []
    try:
        entries = plistlib.loads(raw)
    except Exception:  # noqa: BLE001 - plistlib raises half a dozen kinds, expat's and struct's among them
        return None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else None


def mac_reading(found: Found[bytes], parse: Callable[[bytes], list[dict[str, Any]] | None], now_s: float) -> Reading:
    """The reading of an ``ioreg`` output, by its parser."""
    if found.value is None:
        return unknown(now_s, found.problem, found.path)
    entries = parse(found.value)
    if entries is None:
        return unknown(now_s, "no property list", found.path)
    return sure(entries, now_s, found.path) if entries else none_there(now_s, found.path)


def parse_sysctl(text: str) -> dict[str, str]:
    """``hw.memsize: 38654705664``, a line each."""
    lines = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip() for name, there, value in lines if there}


def parse_vm_stat(text: str) -> int | None:
    """Bytes that can be had: free pages (the speculative ones are listed apart) and inactive ones, as psutil counts."""
    page = re.search(r"page size of (\d{1,8}) bytes", text)
    pages = dict(re.findall(r"^Pages (free|speculative|inactive): +(\d{1,15})\.", text, re.MULTILINE))
    if page is None or not {"free", "inactive"} <= pages.keys():
        return None
    return int(page[1]) * sum(map(int, pages.values()))
