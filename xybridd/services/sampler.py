"""What the device is right now: has the probes run, and remembers what they said.

Who asks while the probes run shares their answer. Nobody waits long for it: when a sensor hangs, what was known before
is the answer, with its age; so a probe that hangs delays no record and no advice.

The probes are imported when somebody asks for the first time, after the daemon is ready: that takes a seventh of the
time that starting takes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.capabilities import DeviceState, Reading, ThermalState, capabilities_from
from xybridd.probes.probe import Probe, Quantity
from xybridd.services.probing import Probing, all_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.probes.thermal import Settled
    from xybridd.probes.tree import Tree
    from xybridd.services.clock import Clock

#: A state younger than this is not read again.
FRESH_S = 10.0

#: How long who asks waits for a new state: with an older one at hand, and with none.
_PATIENCE_S = 0.25
_FIRST_PATIENCE_S = 1.0


_LEFT = (Quantity("memory", "bytes", "table"), Quantity("cpu_cores", "cores", "number"))


class Sampler:
    """Nothing runs until somebody asks."""

    def __init__(
        self, clock: Clock, probes: Sequence[Probe] | None = None, open_tree: Callable[[], Tree] | None = None
    ) -> None:
        """Without ``probes`` all there are, without ``open_tree`` on this machine."""
        self._clock = clock
        self._open_tree = open_tree
        self._probes = probes
        self._probing = Probing(clock.monotonic_s)
        # On a thread of its own: who asks for advice waits for no sensor.
        self._processes = Probing(clock.monotonic_s)
        self._state: DeviceState | None = None
        self._taken_s = 0.0
        self._so_far: dict[str, dict[str, Reading]] = {}
        self._reading: asyncio.Task[DeviceState] | None = None
        self._settled: Settled | None = None

    async def state(self, fresh_s: float = FRESH_S) -> DeviceState:
        """The device's state, at most `fresh_s` old; an older one where a probe takes its time."""
        reading = self.read(fresh_s)
        if reading.done():
            return reading.result()
        patience_s = _FIRST_PATIENCE_S if self._state is None else _PATIENCE_S
        await asyncio.wait([reading], timeout=patience_s)
        if reading.done():
            return reading.result()
        return self._state or self._partly()

    def read(self, fresh_s: float) -> asyncio.Future[DeviceState]:
        """The state when every probe came back or was given up."""
        if self._state is not None and self._clock.monotonic_s() - self._taken_s < fresh_s:
            known: asyncio.Future[DeviceState] = asyncio.get_running_loop().create_future()
            known.set_result(self._state)
            return known
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="probes")
        return asyncio.shield(self._reading)

    def _all(self) -> Sequence[Probe]:
        if self._probes is None:
            from xybridd.probes.register import PROBES  # noqa: PLC0415 - see above

            self._probes = PROBES
        return self._probes

    def _tree(self) -> Tree:
        if self._open_tree is None:
            from xybridd.probes.tree import Tree  # noqa: PLC0415 - see above

            self._open_tree = Tree
        return self._open_tree()

    async def left_to(self, pid: int) -> dict[str, Reading]:
        """``memory`` and ``cpu_cores`` as they are left to that process, by its own cgroups and affinity."""
        from xybridd.probes.cpu import read_cores_of  # noqa: PLC0415 - see above
        from xybridd.probes.memory import read_memory  # noqa: PLC0415

        def read(tree: Tree, now_s: float) -> dict[str, Reading]:
            process = str(pid)
            return {**read_memory(tree, now_s, process), "cpu_cores": read_cores_of(tree, now_s, process)}

        return await self._processes.run([Probe(f"process {pid}", _LEFT, read)], self._tree(), {})

    def stop(self) -> None:
        self._probing.stop()
        self._processes.stop()

    def _partly(self) -> DeviceState:
        """Before there was ever a whole state: what is known so far."""
        from xybridd.probes.register import together  # noqa: PLC0415 - see above

        now_s = self._clock.monotonic_s()
        readings: dict[str, Reading] = {}
        for probe in self._all():
            readings |= self._so_far.get(probe.name) or all_unknown(probe, now_s, "still reading, for the first time")
        return together(readings)

    async def _read(self) -> DeviceState:
        from xybridd.probes.register import together  # noqa: PLC0415 - see above

        try:
            taken_s, self._so_far = self._clock.monotonic_s(), {}
            readings = await self._probing.run(self._all(), self._tree(), self._so_far)
            readings = together(readings).readings
            self._settle_heat(readings)
            self._state, self._taken_s = DeviceState(capabilities_from(readings), readings), taken_s
            return self._state
        finally:
            self._reading = None

    def _settle_heat(self, readings: dict[str, Reading]) -> None:
        """The thermal state rises at once and falls slowly; one that nobody could tell is passed on as it is."""
        from xybridd.probes.thermal import settle  # noqa: PLC0415 - see above

        judged = readings.get("thermal_state")
        if judged is None or judged.value is None:
            return
        table = (readings["thermal"].value if "thermal" in readings else None) or {}
        now, warmer = ThermalState(judged.value), ThermalState(table.get("state_if_5c_warmer", judged.value))
        self._settled = settle(self._settled, now, warmer, judged.taken_s)
        readings["thermal_state"] = msgspec.structs.replace(judged, value=self._settled.state)
