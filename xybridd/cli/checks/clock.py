"""Facts about the clock: what it says, and whether somebody keeps it right."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from xybridd.core.health.clock import ClockFacts, judge

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding

#: adjtimex(2): the clock is not synchronised.
_TIME_ERROR = 5
#: Larger than any `struct timex`.
_TIMEX_BYTES = 512
_ANSWER_S = 2.0


def look(scene: Scene) -> list[Finding]:
    return judge(
        ClockFacts(
            now_ms=int(time.time() * 1000),
            synchronised=_synchronised(),
            kept=_kept(),
            moved_s=(scene.status or {}).get("clock_moved_s"),
        )
    )


def _synchronised() -> bool | None:
    """By the kernel, whoever keeps the clock (systemd-timesyncd, chrony, ntpd)."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError, AttributeError):
        # With modes = 0, which the zeros say, it only asks.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        return None if state < 0 else state != _TIME_ERROR
    return None


def _kept() -> bool | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(
            ["timedatectl", "show", "--property=NTP", "--value"],
            capture_output=True, text=True, timeout=_ANSWER_S, check=False,
        )  # fmt: skip
        return {"yes": True, "no": False}.get(told.stdout.strip())
    return None
