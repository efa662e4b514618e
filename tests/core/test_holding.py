from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from xybridd.core.capabilities import Confidence, DeviceState, HardwareCapabilities, Reading
from xybridd.core.holding import RULES, Facts, Holding, facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR_S = 3600

#: What holds, by the rule's name, and for how long at most.
HOLDS: Mapping[str, tuple[Facts, float]] = {
    "route": (Facts(routed=False), 24 * HOUR_S),
    "metered": (Facts(metered=True), 24 * HOUR_S),
    "battery": (Facts(battery_percent=19.9, charging=False), 24 * HOUR_S),
    "heat": (Facts(thermal_state="hot"), HOUR_S),
    "inference": (Facts(quiet_s=0.5), HOUR_S / 6),
}

FREE = [
    Facts(),
    Facts(routed=True, metered=False, battery_percent=20, charging=False, thermal_state="warm", quiet_s=1),
    Facts(battery_percent=3, charging=True),
    Facts(local=True, routed=False),
    Facts(local=True, metered=True),
]


def test_every_rule_is_tried_here() -> None:
    assert [rule.name for rule in RULES] == list(HOLDS)


@pytest.mark.parametrize("name", HOLDS)
def test_what_holds_holds_so_long_and_no_longer(name: str) -> None:
    facts, most_s = HOLDS[name]
    holding = Holding()
    first = holding.held(facts, 100)
    assert first is not None
    assert 0 < first.recheck_s <= most_s
    assert holding.held(facts, 100 + most_s - 1) is not None
    assert holding.held(facts, 100 + most_s) is None


@pytest.mark.parametrize("name", HOLDS)
def test_each_can_be_switched_off(name: str) -> None:
    assert Holding(frozenset({name})).held(HOLDS[name][0], 0) is None


@pytest.mark.parametrize("facts", FREE)
def test_what_does_not_hold(facts: Facts) -> None:
    assert Holding().held(facts, 0) is None


def test_critical_heat_and_an_unknown_charger_hold_too() -> None:
    assert Holding().held(Facts(thermal_state="critical"), 0) is not None
    assert Holding().held(Facts(battery_percent=5), 0) is not None


def test_one_that_was_over_in_between_begins_anew() -> None:
    holding, hot = Holding(), Facts(thermal_state="hot")
    assert holding.held(hot, 0) is not None
    assert holding.held(Facts(thermal_state="warm"), 1800) is None
    assert holding.held(hot, 3700) is not None


def test_when_nothing_is_due_nothing_is_held() -> None:
    holding, hot = Holding(), Facts(thermal_state="hot")
    assert holding.held(hot, 0) is not None
    holding.clear()
    assert holding.held(hot, 3700) is not None


def test_each_rule_has_its_own_time() -> None:
    holding = Holding()
    both = Facts(routed=False, thermal_state="hot")
    first = holding.held(both, 0)
    assert first is not None
    assert "route" in first.reason
    assert holding.held(both, 2 * HOUR_S) is not None
    hot_only = holding.held(Facts(thermal_state="hot"), 2 * HOUR_S)
    assert hot_only is None


def test_one_that_nobody_tells_of_is_looked_at_again_soon() -> None:
    held = Holding().held(Facts(quiet_s=0.1), 0)
    assert held is not None
    assert held.recheck_s <= 5


def state(**values: Any) -> DeviceState:
    readings = {name: Reading(value, Confidence.HIGH, "test", 0.0) for name, value in values.items()}
    return DeviceState(HardwareCapabilities(), readings)


def test_what_readings_make_facts() -> None:
    seen = state(
        default_route="wlan0",
        metered=True,
        battery={"level_percent": 12.5, "charging": False},
        power_source="battery",
        thermal_state="Hot",
    )
    assert facts_of(seen, local=False, quiet_s=3) == Facts(False, True, True, 12.5, False, "hot", 3)
    on_ac = state(battery={"level_percent": 12.5, "charging": False}, power_source="ac", default_route="")
    assert facts_of(on_ac, local=True, quiet_s=0) == Facts(True, False, None, 12.5, True, None, 0)
    assert facts_of(state(battery=None), local=False, quiet_s=9) == Facts(quiet_s=9)
