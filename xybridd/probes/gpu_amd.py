"""Why an AMD GPU is held back: ``gpu_metrics``, a table in binary whose layout its header names.

Sources: the kernel's ``gpu/amdgpu/thermal`` documentation, ``kgd_pp_interface.h`` (the tables) and ``amdgpu_smu.h``
(the bits). Tables that only have a word whose bits differ from chip to chip tell nothing here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

#: Where the throttle status that is the same for all chips stands, by (format, content) revision; 64 bits.
_STATUS_AT = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}

#: Revision 3.0 counts instead for how long each limit held back: seven words from here on.
_RESIDENCY_AT = 228
_RESIDENCIES = ("prochot", "spl", "fppt", "sppt", "thermal_core", "thermal_gfx", "thermal_soc")

#: Bits of the status by what they mean: power limits, current limits, heat, and the rest.
_BITS = ((range(16), "power"), (range(16, 32), "current"), (range(32, 48), "thermal"), (range(48, 64), "other"))

_NOT_SUPPORTED = (2**64 - 1, 2**32 - 1)


class Throttle(NamedTuple):
    """``reasons``: what holds back now, None where the table does not tell; ``residencies``: counters to compare."""

    reasons: list[str] | None
    residencies: dict[str, int]


def parse_gpu_metrics(table: bytes) -> Throttle:
    if len(table) < 4:
        return Throttle(None, {})
    size, *revision = struct.unpack_from("<HBB", table)
    table = table[:size]
    status_at = _STATUS_AT.get((revision[0], revision[1]))
    if status_at is not None and len(table) >= status_at + 8:
        (status,) = struct.unpack_from("<Q", table, status_at)
        return Throttle(None if status in _NOT_SUPPORTED else reasons_of(status), {})
    if revision == [3, 0] and len(table) >= _RESIDENCY_AT + 4 * len(_RESIDENCIES):
        counts = struct.unpack_from(f"<{len(_RESIDENCIES)}I", table, _RESIDENCY_AT)
        return Throttle(None, dict(zip(_RESIDENCIES, counts, strict=True)))
    return Throttle(None, {})


def reasons_of(status: int) -> list[str]:
    return [name for bits, name in _BITS if any(status >> bit & 1 for bit in bits)]


def reasons_of_growth(grown: dict[str, int]) -> list[str]:
    """The reasons that held back since the last reading."""
    active = [name for name, by in grown.items() if by > 0]
    heat = any(name == "prochot" or name.startswith("thermal") for name in active)
    power = any(name in {"spl", "fppt", "sppt"} for name in active)
    return [*(["power"] if power else []), *(["thermal"] if heat else [])]
