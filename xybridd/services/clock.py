"""The clock, as something that a test can stand in for."""

import time
from typing import Protocol


class Clock(Protocol):
    def wall_ms(self) -> int:
        """UTC, milliseconds since 1970: for records. It may jump."""

    def monotonic_s(self) -> float:
        """Seconds since some moment of this boot: for deadlines. It never jumps."""


class SystemClock:
    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
