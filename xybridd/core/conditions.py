"""Under which conditions a model's calls were made: how hot the device was, on what power, on which hardware.

So one can ask how much slower a model is when the device is hot, or on battery. There are at most 60 conditions (five
thermal states, three power sources, four kinds of hardware, ``unknown`` counted in each), so memory is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd.core.histogram import Histogram

if TYPE_CHECKING:
    from xybridd.core.capabilities import DeviceState

UNKNOWN = "unknown"


class Surroundings(NamedTuple):
    """``thermal_state``: normal, warm, hot, critical or unknown; ``power_source``: ac, battery or unknown."""

    thermal_state: str = UNKNOWN
    power_source: str = UNKNOWN


def surroundings_of(state: DeviceState) -> Surroundings:
    def said(name: str) -> str:
        reading = state.readings.get(name)
        return UNKNOWN if reading is None or reading.value is None else str(reading.value).lower()

    return Surroundings(said("thermal_state"), said("power_source"))


class Conditions:
    """Latencies by condition: (thermal state, power source, hardware used)."""

    __slots__ = ("latencies",)

    def __init__(self) -> None:
        self.latencies: dict[tuple[str, str, str], Histogram] = {}

    def add(self, around: Surroundings, hardware_used: str, latencies: Histogram) -> None:
        self._of((*around, hardware_used)).merge(latencies)

    def merge(self, other: Conditions) -> None:
        for condition, latencies in other.latencies.items():
            self._of(condition).merge(latencies)

    def copy(self) -> Conditions:
        made = Conditions()
        made.merge(self)
        return made

    def since(self, base: Conditions) -> Conditions:
        """What was added to `base`, an earlier state of this one."""
        added = Conditions()
        for condition, latencies in self.latencies.items():
            before = base.latencies.get(condition)
            if before is None or latencies.count != before.count:
                added.latencies[condition] = latencies.copy() if before is None else latencies.since(before)
        return added

    def _of(self, condition: tuple[str, str, str]) -> Histogram:
        found = self.latencies.get(condition)
        if found is None:
            found = self.latencies[condition] = Histogram()
        return found

    def summary(self) -> list[dict[str, Any]]:
        """What an export shows; nothing when nothing was ever known of the conditions."""
        if all(set(condition) == {UNKNOWN} for condition in self.latencies):
            return []
        return [
            {
                "thermal_state": thermal_state,
                "power_source": power_source,
                "hardware_used": hardware_used,
                "calls": latencies.count,
                "latency_ms": latencies.summary(),
            }
            for (thermal_state, power_source, hardware_used), latencies in self.latencies.items()
        ]

    def to_bytes(self) -> bytes:
        if not self.latencies:
            return b""
        return msgspec.msgpack.encode([(*key, latencies.to_bytes()) for key, latencies in self.latencies.items()])

    @classmethod
    def from_bytes(cls, data: bytes) -> Conditions:
        self = cls()
        if data:
            for *key, latencies in msgspec.msgpack.decode(data, type=list[tuple[str, str, str, bytes]]):
                self.latencies[key[0], key[1], key[2]] = Histogram.from_bytes(latencies)
        return self
