from __future__ import annotations

import time

from xybridd.services.clock import SystemClock


def test_wall_time_is_utc_and_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    before_ms, first_s = time.time() * 1000, clock.monotonic_s()
    assert before_ms - 1 <= clock.wall_ms() <= time.time() * 1000 + 1
    assert clock.monotonic_s() >= first_s
