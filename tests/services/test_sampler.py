"""Probes on a thread: shared, limited in time, and none costs another."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from tests.services.given import ManualClock
from xybridd.core.capabilities import Confidence, Reading, ThermalState
from xybridd.probes.probe import Probe, Quantity, sure
from xybridd.services.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.probes.tree import Tree


def probe(name: str, read: Callable[[], int], limit_s: float = 5.0) -> Probe:
    def readings(_: Tree, now_s: float) -> dict[str, Reading]:
        return {name: sure(read(), now_s, "a test")}

    return Probe(name, (Quantity(name, "", "number"),), readings, limit_s)


def test_who_asks_meanwhile_shares_the_answer_and_it_stays_fresh() -> None:
    calls: list[int] = []
    clock = ManualClock()

    def count() -> int:
        calls.append(1)
        return len(calls)

    async def test() -> None:
        sampler = Sampler(clock, probes=[probe("a", count)])
        states = await asyncio.gather(*(sampler.state() for _ in range(5)))
        assert len(calls) == 1
        assert all(state is states[0] for state in states)
        clock.move(9)
        assert await sampler.state() is states[0]
        clock.move(2)
        assert (await sampler.state()).readings["a"].value == 2
        sampler.stop()

    asyncio.run(test())


def test_a_probe_that_fails_costs_its_own_quantities() -> None:
    def fail() -> int:
        raise OSError("the bus is on fire")

    async def test() -> None:
        sampler = Sampler(ManualClock(), probes=[probe("bad", fail), probe("good", lambda: 7)])
        readings = (await sampler.state()).readings
        assert readings["good"].value == 7
        assert readings["bad"].confidence is Confidence.UNKNOWN
        assert "on fire" in (readings["bad"].reason or "")
        sampler.stop()

    asyncio.run(test())


def test_a_probe_that_hangs_is_left_behind_until_it_comes_back() -> None:
    gate = threading.Event()

    def hang() -> int:
        assert gate.wait(60)
        return 1

    async def test() -> None:
        clock = ManualClock()
        sampler = Sampler(clock, probes=[probe("slow", hang, 0.02), probe("good", lambda: 7)])
        first = (await sampler.state()).readings
        assert first["slow"].reason == "no answer within 0.02 s"
        assert first["good"].value == 7
        clock.move(20)
        second = (await sampler.state()).readings
        assert second["slow"].reason == "still reading, for 20 s"
        gate.set()
        while True:
            clock.move(20)
            if (await sampler.state()).readings["slow"].value == 1:
                break
            await asyncio.sleep(0)
        sampler.stop()

    asyncio.run(test())


def test_memory_of_a_process_that_is_gone_is_still_the_machines() -> None:
    async def test() -> None:
        sampler = Sampler(ManualClock())
        reading = await sampler.memory_of(2**22 + 1)
        assert reading.value is None or reading.value["available_bytes"] > 0
        sampler.stop()

    asyncio.run(test())


def test_heat_rises_at_once_and_falls_slowly() -> None:
    found = {"state": ThermalState.HOT, "warmer": ThermalState.CRITICAL}

    def heat(_: Tree, now_s: float) -> dict[str, Reading]:
        table = {"state_if_5c_warmer": found["warmer"]}
        return {"thermal_state": sure(found["state"], now_s, "a test"), "thermal": sure(table, now_s, "a test")}

    async def test() -> None:
        clock = ManualClock()
        probes = [Probe("heat", (Quantity("thermal_state", "", "state"), Quantity("thermal", "", "table")), heat)]
        sampler = Sampler(clock, probes=probes)
        told = [(await sampler.state()).capabilities.thermal_state]
        found.update(state=ThermalState.NORMAL, warmer=ThermalState.NORMAL)
        for _ in range(4):
            clock.move(11)
            told.append((await sampler.state()).capabilities.thermal_state)
        assert told == [ThermalState.HOT] * 4 + [ThermalState.NORMAL]
        sampler.stop()

    asyncio.run(test())
