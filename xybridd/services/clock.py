"""The clock, as something that a test can stand in for."""

import time
from typing import Protocol


class Clock(Protocol):
    def wall_ms(self) -> int:
        """UTC, milliseconds since 1970: for records. It may jump."""

    def monotonic_s(self) -> float:
        """Seconds since some moment of this boot: for deadlines. It never jumps."""


#: A clock that is never set and goes on while the machine sleeps; `time.monotonic` stops then.
_AWAKE_OR_NOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _started_at_s() -> float:
    return time.time() - time.clock_gettime(_AWAKE_OR_NOT)


def since_boot_ms() -> int:
    """Milliseconds since the boot, sleep included."""
    return int(time.clock_gettime(_AWAKE_OR_NOT) * 1000)


class SystemClock:
    def __init__(self) -> None:
        self._started_at_s = _started_at_s()

    def moved_s(self) -> float:
        """How far the wall clock was set, forward or back, since this was made."""
        return _started_at_s() - self._started_at_s

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
