from __future__ import annotations

import pytest

from tests.core.given import NOW_MS, call, error, session
from tests.core.test_minute import HOT, closed
from xybridd.core.conditions import Surroundings
from xybridd.core.grouping import DAY_MS, Group, group, slowed
from xybridd.core.minute import HOUR_MS, AppMinute
from xybridd.protocol.records import InferenceStats

COOL = Surroundings("normal", "ac")


def recorded() -> list[AppMinute]:
    """A kiosk's session cool in one hour and hot in the next, and a robot's."""
    kiosk = session(session_id="k")
    kiosk.apply([call("m", "1", 10), call("m", "1", 10), call("n", "1", 5)], NOW_MS, COOL)
    first = closed(kiosk, NOW_MS + 60_000)
    kiosk.apply(
        [
            call("m", "1", 30, stats=InferenceStats(hardware_used="gpu", tokens_per_second=20.0)),
            error("CUDA error: out of memory", "m", "1"),
            error("connection refused"),
        ],
        NOW_MS + HOUR_MS,
        HOT,
    )
    second = closed(kiosk, NOW_MS + HOUR_MS + 60_000)
    robot = session(call("m", "2", 20), session_id="r")
    return [
        *(AppMinute("kiosk", "1.0", minute) for minute in first + second),
        *(AppMinute("robot", "", minute) for minute in closed(robot, NOW_MS + 60_000)),
    ]


def summed(*by: str) -> dict[tuple[str, ...], tuple[int | None, int | None]]:
    return {one.key: (one.calls, one.errors) for one in group(recorded(), by)}


def test_everything_is_one_group_when_nothing_is_asked_for() -> None:
    (one,) = group(recorded(), ())
    assert (one.calls, one.errors, one.sessions) == (5, 2, {"k", "r"})
    assert (one.first_ms, one.last_ms) == (NOW_MS, NOW_MS + HOUR_MS + 60_000)
    assert one.error_rate == pytest.approx(100 * 2 / 7)
    assert one.stats is not None
    assert one.stats.rates["tokens_per_second"].count == 1


def test_groups_by_session_and_call_hold_calls_and_the_errors_that_can_be_told_apart() -> None:
    assert summed("app") == {("kiosk",): (4, 2), ("robot",): (1, 0)}
    assert summed("model") == {("m",): (4, 1), ("n",): (1, 0)}
    assert summed("model", "version") == {("m", "1"): (3, 1), ("m", "2"): (1, 0), ("n", "1"): (1, 0)}
    assert summed("session", "model") == {("k", "m"): (3, 1), ("k", "n"): (1, 0), ("r", "m"): (1, 0)}


def test_groups_by_condition_hold_calls_alone() -> None:
    assert summed("thermal", "power", "hardware") == {
        ("normal", "ac", "unknown"): (3, None),
        ("hot", "battery", "gpu"): (1, None),
        ("unknown", "unknown", "unknown"): (1, None),
    }
    assert summed("model", "thermal")["m", "hot"] == (1, None)


def test_groups_by_category_hold_errors_alone_with_their_model() -> None:
    assert summed("category", "model") == {("Hardware", "m"): (None, 1), ("Network", ""): (None, 1)}


def test_time_is_in_its_order_and_a_day_is_the_readers() -> None:
    hours = group(recorded(), ("hour",))
    assert [(int(one.key[0]) // HOUR_MS - NOW_MS // HOUR_MS, one.calls) for one in hours] == [(0, 4), (1, 1)]
    assert len(group(recorded(), ("minute", "app"))) == 3
    (day,) = group(recorded(), ("day",))
    assert int(day.key[0]) == NOW_MS // DAY_MS * DAY_MS
    split = group(recorded(), ("day",), midnight=lambda at_ms: NOW_MS + HOUR_MS if at_ms >= NOW_MS + HOUR_MS else 0)
    assert [(one.key[0], one.calls) for one in split] == [("0", 4), (str(NOW_MS + HOUR_MS), 1)]


def test_percentiles_of_a_group_are_those_of_all_its_calls() -> None:
    by_heat = {one.key[0]: one for one in group(recorded(), ("thermal",))}
    assert by_heat["normal"].latency is not None
    assert by_heat["normal"].latency.quantile(0.99) == pytest.approx(10, rel=0.011)
    times = {one.key[0]: times for one, times in slowed(by_heat.values())}
    assert times["normal"] == 1
    assert times["hot"] == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(
    "by", [("colour",), ("model", "model"), ("category", "thermal"), ("version", "category")], ids=", ".join
)
def test_what_cannot_be_told_apart_together_is_refused(by: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"no 'colour'|once|not told apart"):
        group(recorded(), by)


def test_nothing_recorded_is_no_group_and_slows_nothing() -> None:
    assert group([], ("model",)) == []
    assert list(slowed([])) == []
    assert Group((), 0, 0, set()).error_rate is None
