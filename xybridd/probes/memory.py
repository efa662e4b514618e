"""Memory of the whole machine."""

from __future__ import annotations

import psutil

from xybridd.core.capabilities import Confidence, Reading


def read_memory(now_s: float) -> dict[str, Reading]:
    """``memory``: total and available bytes. Limits of cgroups are not looked at yet."""
    memory = psutil.virtual_memory()
    sizes = {"available_bytes": memory.available, "total_bytes": memory.total}
    return {"memory": Reading(sizes, Confidence.HIGH, "psutil.virtual_memory", now_s)}
