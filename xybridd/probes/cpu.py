"""Cores and load of the processor."""

from __future__ import annotations

import psutil

from xybridd.core.capabilities import Confidence, Reading


def read_cpu(now_s: float) -> dict[str, Reading]:
    """``cpu_cores``: logical cores. ``cpu_usage_percent``: 0 to 100, since the last reading of this process.

    The first reading has no interval to speak of, so its usage is 0.0 with low confidence.
    """
    cores = psutil.cpu_count(logical=True)
    usage = psutil.cpu_percent(interval=None)
    return {
        "cpu_cores": Reading(cores, Confidence.HIGH if cores else Confidence.UNKNOWN, "psutil.cpu_count", now_s),
        "cpu_usage_percent": Reading(
            min(max(usage, 0.0), 100.0),
            Confidence.MEDIUM if usage > 0 else Confidence.LOW,
            "psutil.cpu_percent",
            now_s,
        ),
    }
