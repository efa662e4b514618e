"""Latencies stay apart by heat, power and hardware, and add up to what there is without them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.core.given import call, session
from xybridd.core.capabilities import Confidence, DeviceState, Reading, ThermalState, capabilities_from
from xybridd.core.columns import columns_of
from xybridd.core.conditions import UNKNOWN, Conditions, Surroundings, surroundings_of
from xybridd.core.export import session_metrics
from xybridd.core.histogram import Histogram
from xybridd.core.session import MOST_TRANSITIONS
from xybridd.protocol.records import InferenceRecord, InferenceStats

COOL, HOT = Surroundings("normal", "ac"), Surroundings("hot", "battery")


def on(hardware: Any, latency_ms: float) -> InferenceRecord:
    return InferenceRecord("m", "1", latency_ms, stats=InferenceStats(hardware_used=hardware))


def by_hardware(calls: list[tuple[Any, float]]) -> dict[str, list[float]]:
    columns, _ = columns_of([on(hardware, latency) for hardware, latency in calls], 0)
    return {each.hardware_used or UNKNOWN: each.latencies_ms for each in columns}


def test_one_can_ask_how_much_slower_it_is_when_hot() -> None:
    made = session()
    made.apply([on("gpu", 100), on("gpu", 100), on("cpu", 300)], 1, COOL)
    made.apply([on("gpu", 200)], 2, HOT)
    conditions = session_metrics(made, {}).extensions["models"]["m@1"]["conditions"]
    found = {
        (each["thermal_state"], each["power_source"], each["hardware_used"]): (each["calls"], each["latency_ms"].max)
        for each in conditions
    }
    assert found == {
        ("normal", "ac", "gpu"): (2, 100),
        ("normal", "ac", "cpu"): (1, 300),
        ("hot", "battery", "gpu"): (1, 200),
    }


def test_what_nobody_knew_is_left_out() -> None:
    made = session(call("m", "1", 5))
    assert "conditions" not in session_metrics(made, {}).extensions["models"]["m@1"]


AROUND = st.builds(
    Surroundings,
    st.sampled_from(["normal", "warm", "hot", "critical", "unknown"]),
    st.sampled_from(["ac", "battery", "unknown"]),
)
CALLS = st.lists(st.tuples(st.sampled_from(["cpu", "gpu", "npu", None]), st.floats(0, 1e6)), max_size=20)


@given(st.lists(st.tuples(AROUND, CALLS), max_size=8))
def test_conditions_keep_every_call_and_survive_the_disk(parts: list[tuple[Surroundings, Any]]) -> None:
    conditions = Conditions()
    for around, calls in parts:
        for used, latencies in by_hardware(calls).items():
            batch = Histogram()
            batch.extend(latencies)
            conditions.add(around, used, batch)
    assert sum(each.count for each in conditions.latencies.values()) == sum(len(calls) for _, calls in parts)
    again = Conditions.from_bytes(conditions.to_bytes())
    assert again.summary() == conditions.summary()
    merged = Conditions()
    merged.merge(conditions)
    merged.merge(again)
    assert all(merged.latencies[key].count == 2 * each.count for key, each in conditions.latencies.items())


def test_surroundings_are_spelled_as_in_an_export() -> None:
    readings = {
        "thermal_state": Reading(ThermalState.HOT, Confidence.HIGH, None, 0.0),
        "power_source": Reading("battery", Confidence.HIGH, None, 0.0),
    }
    assert surroundings_of(DeviceState(capabilities_from(readings), readings)) == HOT
    assert surroundings_of(DeviceState(capabilities_from({}), {})) == Surroundings()


def test_transitions_are_told_with_their_time_and_are_bounded() -> None:
    made = session()
    for number in range(MOST_TRANSITIONS + 5):
        made.change_over(number, HOT if number % 2 else COOL)
    told = session_metrics(made, {}).extensions["transitions"]
    assert told[1] == {"at_ms": 1, "thermal_state": "hot", "power_source": "battery"}
    assert len(told) == MOST_TRANSITIONS
