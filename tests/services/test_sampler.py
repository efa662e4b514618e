"""Probes on a thread: shared, limited in time, and none costs another."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from tests.probes import machines_gpu_npu as gpus
from tests.probes import machines_power_thermal as powers
from tests.probes.given import tree
from tests.probes.machines import common
from tests.services.given import ManualClock
from xybridd.core.capabilities import Confidence, Reading, ThermalState
from xybridd.probes.probe import Probe, Quantity, sure
from xybridd.probes.recorded import RecordedTree
from xybridd.probes.register import PROBES, read_all
from xybridd.services.device import Device
from xybridd.services.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

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


def test_a_probe_that_hangs_delays_no_answer() -> None:
    """Its limit is longer than any test runs; the answers come while it hangs."""
    gate = threading.Event()
    hangs = False

    def perhaps() -> int:
        assert not hangs or gate.wait(120)
        return 1

    async def test() -> None:
        nonlocal hangs
        clock = ManualClock()
        sampler = Sampler(clock, [probe("good", lambda: 7), probe("slow", perhaps, 600.0), *PROBES])
        known = await sampler.state()
        hangs = True
        clock.move(60)
        assert await sampler.state() is known
        left = await sampler.left_to(os.getpid())
        assert left["memory"].value["available_bytes"] > 0
        assert left["cpu_cores"].value >= 1
        device = Device(sampler, clock, lambda _: None)
        shown = await device.capabilities(0)
        assert shown["details"]["slow"] == {
            "value": 1, "confidence": "high", "source": "a test", "age_s": 60.0
        }  # fmt: skip
        assert (await device.advice(os.getpid(), 1, 1.5)).can_load_model is True
        gate.set()
        assert (await sampler.read(0)).readings["slow"].taken_s == clock.monotonic_s()
        sampler.stop()

    asyncio.run(test())


def test_the_first_answer_of_all_does_not_wait_for_a_probe_that_hangs() -> None:
    gate = threading.Event()

    def hang() -> int:
        assert gate.wait(120)
        return 1

    async def test() -> None:
        sampler = Sampler(
            ManualClock(), [probe("good", lambda: 7), probe("slow", hang, 600.0), probe("next", lambda: 8)]
        )
        readings = (await sampler.state()).readings
        assert readings["good"].value == 7
        assert readings["slow"].reason == readings["next"].reason == "still reading, for the first time"
        gate.set()
        readings = (await sampler.read(0)).readings
        assert [readings[name].value for name in ("good", "slow", "next")] == [7, 1, 8]
        sampler.stop()

    asyncio.run(test())


def test_a_full_probe_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wakeups of the loop, however many probes there are: one to hand over, one when they are through."""
    handed: list[int] = []

    async def test() -> None:
        sampler = Sampler(ManualClock(), [probe(str(number), lambda: 1) for number in range(20)])
        await sampler.read(0)
        loop = asyncio.get_running_loop()
        post = loop.call_soon_threadsafe

        def counted(*args: Any, **more: Any) -> Any:
            handed.append(1)
            return post(*args, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        assert len((await sampler.read(0)).readings) == 20
        sampler.stop()

    asyncio.run(test())
    assert len(handed) == 1


class _Sick(RecordedTree):
    """A machine one of whose sensors hangs, fails with EIO, or is gone when it is read after it was listed.

    A file cannot be made to do so without a driver; the probes meet it at the same place, where a file is opened.
    """

    hangs = threading.Event()
    entered = threading.Event()

    def _open(self, path: str) -> int:
        if path.endswith("/thermal_zone1/temp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if path.endswith("/thermal_zone3/temp"):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if path.startswith("/sys/class/power_supply/BAT0"):
            self.entered.set()
            assert self.hangs.wait(120)
        return super()._open(path)


def test_sensors_that_hang_fail_or_go_away_cost_themselves_alone(tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for part in (common(), gpus.RK3588, powers.RK3588, powers.LYING_CAPACITY):
        files |= part
    well = read_all(tree(tmp_path, files), ManualClock().monotonic_s()).readings
    _Sick.hangs.clear()

    async def test() -> None:
        probes = [each if each.name != "power" else each._replace(limit_s=0.05) for each in PROBES]
        sampler = Sampler(ManualClock(), probes, lambda: _Sick(tmp_path))
        found = (await sampler.read(0)).readings
        assert _Sick.entered.is_set()
        for name in ("battery", "power_source", "power_profile"):
            assert found[name].confidence is Confidence.UNKNOWN
            assert found[name].reason == "no answer within 0.05 s"
        zones = {zone["name"]: zone for zone in found["thermal"].value["zones"]}
        assert zones["thermal_zone1"]["problem"] == "/sys/class/thermal/thermal_zone1/temp: Input/output error"
        assert zones["thermal_zone3"]["temp_c"] is None
        assert found["thermal"].confidence is Confidence.MEDIUM
        for name in ("memory", "gpu", "npu", "graphics_api", "default_route", "cpu_cores", "machine", "platform"):
            assert found[name] == well[name], name
        _Sick.hangs.set()
        while True:
            if (await sampler.read(0)).readings["battery"] == well["battery"]:
                break
            await asyncio.sleep(0)
        sampler.stop()

    asyncio.run(test())


def test_memory_of_a_process_that_is_gone_is_still_the_machines() -> None:
    async def test() -> None:
        sampler = Sampler(ManualClock())
        left = await sampler.left_to(2**22 + 1)
        assert left["memory"].value["available_bytes"] > 0
        assert left["cpu_cores"].confidence is Confidence.UNKNOWN
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
