"""What the device is right now: runs the probes on a thread and remembers what they said.

Each probe has a time limit of its own. One that does not come back in time is left on its thread, and the others go on
on a new one; it is not asked again until it has come back. Who asks while the probes run shares their answer.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.capabilities import DeviceState, Reading, ThermalState, capabilities_from
from xybridd.probes.memory import read_memory
from xybridd.probes.probe import Probe, unknown
from xybridd.probes.register import PROBES, together
from xybridd.probes.thermal import Settled, settle
from xybridd.probes.tree import Tree
from xybridd.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.services.clock import Clock

log = logging.getLogger(__name__)

#: A state younger than this is not read again.
FRESH_S = 10.0


class Sampler:
    """Nothing runs until somebody asks."""

    def __init__(self, clock: Clock, probes: Sequence[Probe] = PROBES, open_tree: Callable[[], Tree] = Tree) -> None:
        self._clock = clock
        self._open_tree = open_tree
        self._probes = probes
        self._state: DeviceState | None = None
        self._taken_s = 0.0
        self._reading: asyncio.Task[DeviceState] | None = None
        self._worker: Worker | None = None
        #: Probes that did not come back yet, and since when they are away.
        self._away: dict[str, float] = {}
        self._settled: Settled | None = None

    async def state(self, fresh_s: float = FRESH_S) -> DeviceState:
        """The device's state, at most `fresh_s` old."""
        if self._state is not None and self._clock.monotonic_s() - self._taken_s < fresh_s:
            return self._state
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="probes")
        return await asyncio.shield(self._reading)

    async def memory_of(self, pid: int) -> Reading:
        """Memory as it is left to that process, by its own cgroups."""
        tree = self._open_tree()
        probe = Probe(f"memory of {pid}", (), lambda _, now_s: read_memory(tree, now_s, str(pid)))
        readings = await self._run(probe, tree)
        return readings.get("memory") or unknown(self._clock.monotonic_s(), "the process is gone")

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    async def _read(self) -> DeviceState:
        try:
            tree = self._open_tree()
            readings: dict[str, Reading] = {}
            self._taken_s = self._clock.monotonic_s()
            for probe in self._probes:
                readings |= await self._run(probe, tree)
            readings = together(readings).readings
            self._settle_heat(readings)
            self._state = DeviceState(capabilities_from(readings), readings)
            return self._state
        finally:
            self._reading = None

    def _settle_heat(self, readings: dict[str, Reading]) -> None:
        """The thermal state rises at once and falls slowly; one that nobody could tell is passed on as it is."""
        judged = readings.get("thermal_state")
        if judged is None or judged.value is None:
            return
        table = readings["thermal"].value if "thermal" in readings else None
        table = table or {}
        now, warmer = ThermalState(judged.value), ThermalState(table.get("state_if_5c_warmer", judged.value))
        self._settled = settle(self._settled, now, warmer, judged.taken_s)
        readings["thermal_state"] = msgspec.structs.replace(judged, value=self._settled.state)

    async def _run(self, probe: Probe, tree: Tree) -> dict[str, Reading]:
        """A probe's readings; unknown, with the reason, when it fails or does not come back in time."""
        now_s = self._clock.monotonic_s()
        if probe.name in self._away:
            return _all_unknown(probe, now_s, f"still reading, for {now_s - self._away[probe.name]:.0f} s")
        if self._worker is None:
            self._worker = Worker(asyncio.get_running_loop(), "xybridd-probes")
            self._worker.start()
        answer = self._worker.run(partial(probe.read, tree, now_s))
        try:
            return await asyncio.wait_for(asyncio.shield(answer), probe.limit_s)
        except TimeoutError:
            self._leave(probe, answer, now_s)
            return _all_unknown(probe, now_s, f"no answer within {probe.limit_s:g} s")
        except Exception as error:  # whatever a probe of hardware runs into, the others go on
            log.exception("the probe %s failed", probe.name)
            return _all_unknown(probe, now_s, f"the probe failed: {error}")

    def _leave(self, probe: Probe, answer: asyncio.Future[dict[str, Reading]], now_s: float) -> None:
        log.warning("the probe %s does not come back; the others go on without it", probe.name)
        self._away[probe.name] = now_s
        if self._worker is not None:
            self._worker.stop()  # its thread ends when the probe comes back
            self._worker = None

        def back(answer: asyncio.Future[dict[str, Reading]]) -> None:
            self._away.pop(probe.name, None)
            answer.exception()

        answer.add_done_callback(back)


def _all_unknown(probe: Probe, now_s: float, reason: str) -> dict[str, Reading]:
    return {quantity.name: unknown(now_s, reason) for quantity in probe.quantities}
