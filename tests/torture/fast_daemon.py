"""The daemon with a clock that goes ``FACTOR`` times as fast, and its periodic jobs as often: a day within minutes.

``fast_daemon.py FACTOR``. Everything that the daemon plans or measures goes by `xybridd.services.clock`, and its jobs by
the numbers in `xybridd.daemon.scheduler`; both are stood in for here, and nothing else.
"""

from __future__ import annotations

import sys
import time

from xybridd.daemon.lean import import_asyncio_without_ssl
from xybridd.services.clock import SystemClock


class FastClock(SystemClock):
    factor = 1.0
    _wall_ns = time.time_ns()
    _started_s = time.monotonic()

    def wall_ms(self) -> int:
        return self._wall_ns // 1_000_000 + int((time.monotonic() - self._started_s) * self.factor * 1000)

    def monotonic_s(self) -> float:
        return self._started_s + (time.monotonic() - self._started_s) * self.factor


def main(factor: float) -> None:
    import_asyncio_without_ssl()
    from xybridd.config import load  # noqa: PLC0415 - after the line above
    from xybridd.daemon import app, scheduler  # noqa: PLC0415

    FastClock.factor = factor
    setattr(app, "SystemClock", FastClock)  # noqa: B010 - what is stood in for is not ours to declare
    for name in ("MINUTE_S", "RETENTION_EVERY_S", "ORPHANS_EVERY_S", "BUSY_EVERY_S"):
        setattr(scheduler, name, getattr(scheduler, name) / factor)
    app.run(load(None), None)


if __name__ == "__main__":
    main(float(sys.argv[1]))
