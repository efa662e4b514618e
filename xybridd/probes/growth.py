"""Counters that only mean something by how much they grew: throttling so far, time asleep so far."""

from __future__ import annotations

import threading


class Growth:
    """What this process last saw of some counters, by what they belong to."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, dict[str, int]]] = {}
        self._lock = threading.Lock()

    def since(self, owner: str, counts: dict[str, int], now_s: float) -> tuple[dict[str, int], float] | None:
        """By how much each grew since the last reading, and in how many seconds; None at the first reading.

        A counter that is new or went back (it wrapped, or its device was reset) is left out.
        """
        with self._lock:
            before = self._last.get(owner)
            self._last[owner] = (now_s, counts)
        if before is None:
            return None
        then_s, last = before
        grown = {name: count - last[name] for name, count in counts.items() if name in last and count >= last[name]}
        return grown, now_s - then_s
