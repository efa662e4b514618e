"""The device as its users see it: advice for the process that asks, and word of changes to those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.advice import Advice, advise

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.core.capabilities import DeviceState
    from xybridd.services.clock import Clock
    from xybridd.services.sampler import Sampler

#: How often temperature and utilisation are read while a session is active or somebody watches, and otherwise.
BUSY_EVERY_S = 10.0
IDLE_EVERY_S = 300.0

_MB = 2**20


class Device:
    def __init__(self, sampler: Sampler, clock: Clock, surround: Callable[[DeviceState], None]) -> None:
        self._sampler = sampler
        self._surround = surround
        self._clock = clock
        self._told: Advice | None = None
        self._shown: dict[str, Any] | None = None
        self._watchers: dict[int, Callable[[str, Any], object]] = {}

    @property
    def watched(self) -> bool:
        return bool(self._watchers)

    async def capabilities(self, fresh_s: float) -> dict[str, Any]:
        """The reference's fields, then ``details``: every reading by its quantity."""
        return self._capabilities(await self._sampler.state(fresh_s))

    def _capabilities(self, state: DeviceState) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(state.capabilities)
        shown["details"] = state.details(self._clock.monotonic_s())
        return shown

    async def advice(self, pid: int, model_size_mb: float | None, safety_margin: float) -> Advice:
        """For the process `pid`: with what its own cgroups and its affinity leave it."""
        state = await self._sampler.state()
        left = await self._sampler.left_to(pid)
        memory = left["memory"]
        if memory.value is None:
            memory = state.readings["memory"]
        available_mb = None if memory.value is None else memory.value["available_bytes"] // _MB
        return advise(
            state,
            available_mb=available_mb,
            cores=left["cpu_cores"].value,
            model_size_mb=model_size_mb,
            safety_margin=safety_margin,
            before=self._told,
        )

    async def watch(self, link_id: int, push: Callable[[str, Any], object]) -> dict[str, Any]:
        """What is so now; from then on `push` is called with ``device.changed`` when it changes."""
        now = self._now(await self._sampler.state(fresh_s=1.0))
        self._watchers[link_id] = push
        return now

    def unwatch(self, link_id: int) -> None:
        self._watchers.pop(link_id, None)

    async def sample(self, fresh_s: float) -> DeviceState:
        """Read the device, and tell those who watch what has changed."""
        before = self._states()
        now = self._now(await self._sampler.read(fresh_s))
        if before != self._states():
            for push in list(self._watchers.values()):
                push("device.changed", now)
        return await self._sampler.state(fresh_s)

    def _now(self, state: DeviceState) -> dict[str, Any]:
        self._surround(state)
        memory = state.readings["memory"].value
        self._told = advise(
            state,
            available_mb=None if memory is None else memory["available_bytes"] // _MB,
            before=self._told,
        )
        self._shown = self._capabilities(state)
        return {"capabilities": self._shown, "advice": msgspec.to_builtins(self._told)}

    def _states(self) -> tuple[Any, ...]:
        """What counts as a change; a percent more or less of anything does not, nor a reason that names it."""
        shown, told = self._shown, self._told
        if shown is None or told is None:
            return ()
        details = shown["details"]
        values = (
            details.get(name, {}).get("value") for name in ("power_source", "power_profile", "default_route", "metered")
        )
        plain = msgspec.structs.replace(told, reasons=[], available_mb=None)
        return (plain, shown["thermal_state"], shown["has_gpu"], shown["has_npu"], *values)
