"""What the device is right now: runs the probes on a thread and remembers what they said."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xybridd.core.capabilities import Confidence, DeviceState, Reading, capabilities_from
from xybridd.probes.cpu import read_cpu
from xybridd.probes.memory import read_memory
from xybridd.probes.platform import read_platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.services.clock import Clock

log = logging.getLogger(__name__)

#: Every probe there is. Each returns readings by quantity.
PROBES: tuple[Callable[[float], dict[str, Reading]], ...] = (read_platform, read_cpu, read_memory)

#: Quantities that no probe reads yet; they are shown, as unknown.
_WITHOUT_PROBE = ("gpu", "npu", "battery", "thermal")

#: A state younger than this is not read again.
FRESH_S = 10.0


class Sampler:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state: DeviceState | None = None
        self._taken_s = 0.0
        self._reading: asyncio.Task[DeviceState] | None = None

    async def state(self, fresh_s: float = FRESH_S) -> DeviceState:
        """The device's state, at most `fresh_s` old. Who asks while the probes run shares their answer."""
        if self._state is not None and self._clock.monotonic_s() - self._taken_s < fresh_s:
            return self._state
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="probes")
        return await asyncio.shield(self._reading)

    async def _read(self) -> DeviceState:
        try:
            now_s = self._clock.monotonic_s()
            self._state = await asyncio.to_thread(probe_all, now_s)
            self._taken_s = now_s
            return self._state
        finally:
            self._reading = None


def probe_all(now_s: float) -> DeviceState:
    """Run every probe; one that fails costs its own quantities and nothing else."""
    readings: dict[str, Reading] = {}
    for probe in PROBES:
        try:
            readings |= probe(now_s)
        except Exception:  # whatever a probe of hardware runs into, the others go on
            log.exception("the probe %s failed", probe.__name__)
    for name in _WITHOUT_PROBE:
        readings[name] = Reading(None, Confidence.UNKNOWN, None, now_s)
    return DeviceState(capabilities_from(readings), readings)
