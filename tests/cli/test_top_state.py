"""The live screen without a screen: polls in, rows and lines out, at any time and width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from tests.core.given import NOW_MS, call, error, session
from xybridd.cli.top_page import columns, device_lines, sparkline, title
from xybridd.cli.top_state import NO_MODEL, Poll, TopState, measures
from xybridd.core.minute import AppMinute
from xybridd.protocol.records import InferenceStats

if TYPE_CHECKING:
    from xybridd.core.session import Session
    from xybridd.protocol.records import Record


class App:
    """An app whose session records, minute by minute, and the polls of it."""

    def __init__(self, name: str = "kiosk") -> None:
        self.name = name
        self.session: Session = session(session_id=name)

    def record(self, *records: Record, at_s: float = 0.0) -> None:
        self.session.apply(records, NOW_MS + int(at_s * 1000))

    def minute(self) -> list[AppMinute]:
        minute = self.session.open_minute()
        return [] if minute is None else [AppMinute(self.name, "", minute)]


def poll(at_s: float, *minutes: AppMinute, device: dict[str, Any] | None = None) -> Poll:
    return Poll(NOW_MS + int(at_s * 1000), 1000 + at_s, minutes, 1, device)


def rates(state: TopState, window_s: float = 300) -> dict[str, float | None]:
    return {row["model"]: row["calls_per_second"] for row in state.rows(window_s)}


def test_the_rate_is_what_was_called_meanwhile() -> None:
    app, state = App(), TopState()
    for second in range(31):
        app.record(*[call()] * (5 if second <= 20 else 0), call("slow") if second == 0 else call(), at_s=second)
        state.take(poll(second, *app.minute()))
    assert rates(state) == {"m": 1.0, "slow": 0.0}
    assert state.trend("kiosk", "m")[-1] == pytest.approx(1.0)
    assert max(state.trend("kiosk", "m")) == pytest.approx(6.0)
    assert state.trend("kiosk", "unheard of") == [0.0] * 20


def test_before_there_is_a_second_poll_the_minute_tells_the_rate() -> None:
    app, state = App(), TopState()
    app.record(*[call()] * 30)
    state.take(poll(10, *app.minute()))
    assert rates(state) == {"m": 3.0}
    state.take(poll(10.5, *app.minute()))
    assert rates(state)["m"] == pytest.approx(30 / 10.5, abs=0.01)


def test_what_is_on_its_way_to_disk_is_not_lost_and_not_called_twice() -> None:
    """Between the end of a minute and its being written it is in neither answer."""
    app, state = App(), TopState()
    app.record(*[call()] * 10)
    state.take(poll(1, *app.minute()))
    (closed,) = app.minute()
    state.take(poll(2))
    assert state.rows(300)[0]["calls"] == 10
    state.take(poll(3, closed))
    assert (state.rows(300)[0]["calls"], rates(state)) == (10, {"m": 0.0})


def test_a_count_that_shrinks_is_no_negative_rate() -> None:
    app, state = App(), TopState()
    app.record(*[call()] * 10)
    state.take(poll(0, *app.minute()))
    fresh = App()
    fresh.record(call())
    state.take(poll(5, *fresh.minute()))
    assert rates(state) == {"m": 0.0}


def test_after_the_daemon_was_away_nothing_is_guessed() -> None:
    app, state = App(), TopState()
    app.record(call())
    state.take(poll(0, *app.minute()))
    assert state.since_ms(NOW_MS) == NOW_MS - 180_000
    state.forget_rates()
    assert rates(state) == {"m": None}
    assert state.since_ms(NOW_MS) == NOW_MS - 960_000
    app.record(*[call()] * 600, at_s=59)
    state.take(poll(60, *app.minute()))
    state.take(poll(62, *app.minute()))
    assert rates(state) == {"m": 0.0}


def test_a_window_is_the_minutes_that_it_touches_and_older_ones_go() -> None:
    state = TopState()
    old, new = App("old"), App("new")
    old.record(call())
    new.record(call(), at_s=200)
    state.take(poll(200, *old.minute(), *new.minute()))
    assert [row["app"] for row in state.rows(60)] == ["new"]
    assert [row["app"] for row in state.rows(300)] == ["new", "old"]
    state.take(poll(1100))
    assert [row["app"] for row in state.rows(900)] == ["new"]


def test_rows_are_sorted_and_filtered_and_an_error_without_a_model_has_one() -> None:
    app, state = App(), TopState()
    app.record(*[call("quick", latency_ms=1)] * 3, call("slow", latency_ms=9), error("x", "slow", "1"), error("y"))
    state.take(poll(1, *app.minute()))

    def order(sort: str, wanted: str = "", **more: Any) -> list[str]:
        return [row["model"] for row in state.rows(300, sort, wanted, **more)]

    assert order("calls") == ["quick", "slow", NO_MODEL]
    assert order("p50") == ["slow", "quick", NO_MODEL]
    assert order("name") == [NO_MODEL, "quick", "slow"]
    assert order("name", backwards=True) == ["slow", "quick", NO_MODEL]
    assert order("errors")[-1] == "quick"
    assert order("rate", "KIO slo") == ["slow"]
    assert order("rate", "nothing") == []
    errors = {row["model"]: row["errors"] for row in state.rows(300)}
    assert errors == {"quick": 0, "slow": 1, NO_MODEL: 1}


DEVICE = {
    "cpu_usage_percent": {"value": 34.0},
    "memory": {"value": {"available_bytes": 2**33, "total_bytes": 2**34}},
    "thermal_state": {"value": "Hot"},
    "thermal": {"value": {"max_c": 91.0, "throttling": [{"kind": "cooling"}]}},
    "power_source": {"value": "battery"},
    "battery": {"value": {"level_percent": 64.0, "charging": False}},
    "gpu": {
        "value": [
            {"name": "Radeon\x1b[31m", "utilization_percent": 97.0, "memory_used_bytes": 2**30, "memory_total_bytes": 2**33,
             "temperature_c": 71.0, "throttled": True, "throttle_reasons": ["thermal"], "asleep": False, "stage": "usable"},
            {"name": "Arc", "utilization_percent": None, "asleep": True, "stage": "usable"},
        ]
    },
    "npu": {"value": [{"name": "Intel NPU", "stage": "driver_bound"}]},
}  # fmt: skip


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_the_device_in_as_few_lines_as_it_takes(width: int) -> None:
    state = TopState()
    for second in range(3):
        state.take(poll(second, device=DEVICE))
    lines = [line.plain for line in device_lines(state, width)]
    assert max(map(cell_len, lines)) <= width
    if width >= 60:
        for said in (
            "CPU ▃▃▃ 34 %", "memory ▅▅▅ 8.0 GiB of 16.0 GiB", "91 °C, hot, throttled", "power battery", "64 %",
            "GPU Radeon·[31m", "97 %", "GPU Arc asleep", "NPU Intel NPU driver bound, not usable",
        ):  # fmt: skip
            assert said in "\n".join(lines)
    if width == 200:
        assert "1.0 GiB of 8.0 GiB, 71 °C, held back: thermal" in "\n".join(lines)
        assert len(lines) == 2
    assert cell_len(title(state, 300, width, ["by rate"]).plain) <= width


def test_what_is_unknown_of_a_device_is_not_shown() -> None:
    state = TopState()
    nothing = {name: {"value": None, "confidence": "unknown"} for name in DEVICE}
    state.take(poll(0, device=nothing))
    assert device_lines(state, 80) == []
    assert measures(nothing) == {}
    assert device_lines(TopState(), 80) == []


def test_sparklines() -> None:
    assert sparkline([0, 50, 100], 8, 0, 100) == "▁▅█"
    assert sparkline([1, 2, 3], 2) == "▆█"
    assert sparkline([0, 0], 8) == "▁▁"
    assert sparkline([-5, 900], 8, 0, 100) == "▁█"
    assert sparkline([], 8) == ""


def test_a_row_says_where_its_calls_ran() -> None:
    app, state = App(), TopState()
    app.record(*(call(stats=InferenceStats(hardware_used=name)) for name in ("gpu", "gpu", "gpu", "cpu")))
    state.take(poll(1, *app.minute()))
    (row,) = state.rows(300)
    shown = {column.title: column.shown(row) for column in columns(state)}
    assert (shown["hardware"], shown["target"], shown["calls"]) == ("gpu 75 %, cpu 25 %", "–", "4")
