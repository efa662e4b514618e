"""What is said of heat, power and hardware, and what is not."""

from __future__ import annotations

import random

import pytest

from tests.core.given import NOW_MS, call, session
from tests.core.test_minute import closed
from xybridd.core.conditions import Surroundings
from xybridd.core.minute import AppMinute
from xybridd.core.slower import ENOUGH, Comparison, compare, times_of
from xybridd.protocol.records import InferenceStats


def recorded(*parts: tuple[str, str, str, list[float]], app: str = "kiosk", model: str = "m") -> list[AppMinute]:
    """So many calls under each (heat, power, hardware), all in one session of a model."""
    made = session(session_id=app)
    for thermal, power, hardware, latencies in parts:
        stats = InferenceStats(hardware_used=hardware)  # type: ignore[arg-type]
        made.apply([call(model, "1", each, stats=stats) for each in latencies], NOW_MS, Surroundings(thermal, power))
    return [AppMinute(app, "", minute) for minute in closed(made)]


def around(middle: float, number: int = 100) -> list[float]:
    chance = random.Random(7)
    return [chance.gauss(middle, middle / 20) for _ in range(number)]


def only(minutes: list[AppMinute], *by: str) -> Comparison:
    (one,) = compare(minutes, by)
    return one


def test_a_hot_model_beside_itself_when_cool() -> None:
    one = only(recorded(("normal", "ac", "cpu", around(100)), ("hot", "ac", "cpu", around(210))), "thermal")
    assert (one.model, one.version, one.values, one.usual) == ("m", "1", ("hot",), ("normal",))
    assert (one.calls, one.usual_calls, one.told) == (100, 100, True)
    assert one.times == pytest.approx(2.1, rel=0.05)
    assert one.lost_ms == pytest.approx(100 * (one.p50_ms - one.usual_p50_ms))


def test_other_models_are_no_measure() -> None:
    """A model that runs only when it is hot, and is slow, makes heat no slower."""
    minutes = recorded(("normal", "ac", "cpu", around(10))) + recorded(("hot", "ac", "cpu", around(900)), model="n")
    assert compare(minutes, ("thermal",)) == []


@pytest.mark.parametrize(
    ("cool", "hot", "told"),
    [
        (around(100, ENOUGH - 1), around(300), False),  # too few
        (around(100), around(300, ENOUGH - 1), False),
        (around(100, ENOUGH), around(300, ENOUGH), True),
        (around(100, 100_000), around(104, 100_000), False),  # sure, and of no matter
        ([100.0, 1000.0] * 20, [100.0, 1000.0] * 19 + [1000.0] * 2, False),  # the medians differ by chance
        (around(300), around(100), True),  # faster is told too
    ],
    ids=["few cool", "few hot", "enough", "too little", "chance", "faster"],
)
def test_what_is_told(cool: list[float], hot: list[float], told: bool) -> None:
    one = only(recorded(("normal", "ac", "cpu", cool), ("hot", "ac", "cpu", hot)), "thermal")
    assert one.told is told


def test_what_is_usual() -> None:
    """The coolest state with enough calls, the mains, the hardware of most calls."""
    warm_device = recorded(
        ("normal", "ac", "cpu", around(10, 3)), ("warm", "ac", "cpu", around(10)), ("hot", "ac", "cpu", around(20))
    )
    assert {one.usual for one in compare(warm_device, ("thermal",))} == {("warm",)}
    power = recorded(("normal", "battery", "cpu", around(10, 300)), ("normal", "ac", "cpu", around(10)))
    assert only(power, "power").usual == ("ac",)
    assert compare(recorded(("normal", "battery", "cpu", around(10))), ("power",)) == []
    hardware = recorded(("normal", "ac", "gpu", around(10, 300)), ("normal", "ac", "cpu", around(30)))
    assert (only(hardware, "hardware").usual, only(hardware, "hardware").values) == (("gpu",), ("cpu",))
    assert only(hardware, "thermal", "hardware").values == ("normal", "cpu")


def test_where_nobody_knew_there_is_nothing_to_compare() -> None:
    assert (
        compare(recorded(("normal", "ac", "cpu", around(10)), ("unknown", "ac", "cpu", around(90))), ("thermal",)) == []
    )


def test_sessions_of_other_apps_are_kept_apart_when_asked_for() -> None:
    kiosk = recorded(("normal", "ac", "cpu", around(10)), ("hot", "ac", "cpu", around(20)))
    robot = recorded(("normal", "ac", "cpu", around(10)), ("hot", "ac", "cpu", around(10)), app="robot")
    found = compare(kiosk + robot, ("app", "thermal"))
    assert [(one.around, one.told) for one in found] == [({"app": "kiosk"}, True), ({"app": "robot"}, False)]
    assert times_of(found, {"app": "kiosk", "thermal": "hot"}, ["thermal"]) == pytest.approx(2, rel=0.03)
    assert times_of(found, {"app": "robot", "thermal": "hot"}, ["thermal"]) == pytest.approx(1, rel=0.03)


def test_a_group_of_several_models_is_as_slow_as_they_are_by_their_calls() -> None:
    minutes = recorded(("normal", "ac", "cpu", around(10, 300)), ("hot", "ac", "cpu", around(40, 300)))
    minutes += recorded(("normal", "ac", "cpu", around(1000, 100)), ("hot", "ac", "cpu", around(1000, 100)), model="n")
    found = compare(minutes, ("thermal",))
    assert times_of(found, {"thermal": "hot"}, ["thermal"]) == pytest.approx(4**0.75, rel=0.05)
    assert times_of(found, {"thermal": "normal"}, ["thermal"]) == 1.0
    assert times_of(found, {"thermal": "critical"}, ["thermal"]) is None
