from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.core.given import NOW_MS, call, error, session
from tests.core.test_minute import closed
from tests.report.given import facts, session_line, week, week_report
from xybridd.core.conditions import Conditions, Surroundings
from xybridd.core.histogram import Histogram
from xybridd.core.minute import HOUR_MS, MINUTE_MS, AppMinute, Sample
from xybridd.core.report.conditions import ENOUGH, dimensions_of, factor_words, findings
from xybridd.core.report.facts import DAY_MS, step_for
from xybridd.core.report.figures import Report
from xybridd.core.report.make import MOST_MODELS, MOST_SESSIONS, make_report
from xybridd.core.report.sums import Sums
from xybridd.protocol.records import InferenceStats

if TYPE_CHECKING:
    from xybridd.core.report.figures import ConditionFigures, ModelFigures
    from xybridd.protocol.records import Record

COOL, HOT = Surroundings("normal", "ac"), Surroundings("hot", "ac")


def calls(latency_ms: float, times: int, used: str | None = "gpu", **stats: Any) -> list[Record]:
    given = InferenceStats(hardware_used=used, **stats)  # type: ignore[arg-type]
    return [call("m", "1", latency_ms, stats=given) for _ in range(times)]


def recorded(
    *parts: tuple[Surroundings, list[Record]], app: str = "app", at_ms: int = NOW_MS - HOUR_MS
) -> list[AppMinute]:
    """A session whose parts were recorded under these conditions, a minute each."""
    made, found = session(session_id=app), list[AppMinute]()
    for number, (around, records) in enumerate(parts):
        start_ms = at_ms + number * MINUTE_MS
        made.apply(records, start_ms, around)
        found += [AppMinute(app, "", minute) for minute in closed(made, start_ms + MINUTE_MS)]
    return found


def reported(*parts: tuple[Surroundings, list[Record]], **more: Any) -> Report:
    return make_report(facts(recorded(*parts), **more))


def states(model: ModelFigures, dimension: str) -> dict[str, ConditionFigures]:
    (found,) = (each for each in model.dimensions if each.dimension == dimension)
    return {state.value: state for state in found.states}


# How latency changes


def test_a_state_is_compared_with_the_coolest_by_their_medians() -> None:
    (model,) = reported((COOL, calls(100, 50)), (HOT, calls(180, 40))).models
    heat = states(model, "thermal_state")
    assert (heat["normal"].calls, heat["normal"].factor) == (50, None)
    assert heat["hot"].factor == pytest.approx(1.8, rel=0.03)
    assert heat["hot"].words.endswith("× as long")
    assert heat["hot"].latency.p90_ms == pytest.approx(180, rel=0.011)


def test_a_state_with_too_few_calls_says_so_and_is_not_compared() -> None:
    (model,) = reported((COOL, calls(100, ENOUGH)), (HOT, calls(180, ENOUGH - 1))).models
    hot = states(model, "thermal_state")["hot"]
    assert (hot.enough, hot.factor, hot.factor_alike) == (False, None, None)
    assert hot.words == f"too few calls to tell ({ENOUGH - 1} of {ENOUGH})"
    enough = states(reported((COOL, calls(100, ENOUGH)), (HOT, calls(180, ENOUGH))).models[0], "thermal_state")["hot"]
    assert enough.factor is not None


def test_what_changed_besides_heat_is_told_apart() -> None:
    """Cool on the GPU, hot mostly on the CPU: of the factor of six, two are heat."""
    (model,) = reported(
        (COOL, calls(100, 200) + calls(300, 50, "cpu")),
        (HOT, calls(200, 50) + calls(600, 200, "cpu")),
    ).models
    hot = states(model, "thermal_state")["hot"]
    assert hot.factor == pytest.approx(6, rel=0.03)
    assert hot.factor_alike == pytest.approx(2, rel=0.03)
    assert "with all else alike" in hot.words
    cpu = states(model, "hardware_used")["cpu"]
    assert cpu.factor_alike == pytest.approx(3, rel=0.03)


def test_hardware_is_compared_with_what_is_used_most_and_mains_with_battery() -> None:
    battery = Surroundings("normal", "battery")
    (model,) = reported((COOL, calls(300, 90, "cpu") + calls(100, 40)), (battery, calls(450, 40, "cpu"))).models
    hardware = states(model, "hardware_used")
    assert hardware["cpu"].factor is None
    assert hardware["gpu"].factor == pytest.approx(1 / 3, rel=0.03)
    assert states(model, "power_source")["battery"].factor is not None


def test_what_nobody_knows_stands_last_and_is_not_compared() -> None:
    (model,) = reported((COOL, calls(100, 50)), (Surroundings(), calls(900, 50, None))).models
    for dimension in model.dimensions:
        assert dimension.states[-1].value == "unknown"
        assert (dimension.states[-1].factor, dimension.states[-1].words) == (None, "not known")


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.04, "as fast"),
        (0.96, "as fast"),
        (1.06, "1.06 × as long"),
        (0.5, "0.50 × as long"),
        (12.34, "12.3 × as long"),
    ],
)
def test_factors_in_words(factor: float, words: str) -> None:
    assert factor_words(factor) == words


def test_a_median_of_zero_cannot_be_compared_with() -> None:
    conditions = Conditions()
    for around, value in ((COOL, 0.0), (HOT, 5.0)):
        values = Histogram()
        values.extend([value] * ENOUGH)
        conditions.add(around, "gpu", values)
    hot = {state.value: state for state in dimensions_of(conditions)[0].states}["hot"]
    assert (hot.factor, hot.words) == (None, "cannot be compared")


def test_the_finding_of_a_dimension_is_its_largest_change() -> None:
    found = {one.dimension: one for one in week_report().findings}
    assert set(found) == {"thermal_state", "power_source", "hardware_used"}
    for dimension, one in found.items():
        factors = [
            state.factor for m in week_report().models for state in states(m, dimension).values() if state.factor
        ]
        assert one.factor == max(factors, key=lambda factor: max(factor, 1 / factor))
    assert "when critically hot as when cool" in found["thermal_state"].words
    assert findings([]) == []


def test_the_made_up_week_shows_what_was_put_into_it() -> None:
    """Its heat makes calls 1.6 × as long when hot and 2.5 × when critical, battery 1.3 ×, the CPU 2.9 × of the GPU."""
    whisper = next(model for model in week_report().models if model.model_id == "whisper-tiny")
    assert states(whisper, "thermal_state")["hot"].factor_alike == pytest.approx(1.6, rel=0.08)
    assert states(whisper, "thermal_state")["critical"].factor_alike == pytest.approx(2.5, rel=0.12)
    assert states(whisper, "power_source")["battery"].factor_alike == pytest.approx(1.3, rel=0.08)
    assert states(whisper, "hardware_used")["cpu"].factor_alike == pytest.approx(2.9, rel=0.12)


# Totals


def test_totals_are_those_of_everything_recorded() -> None:
    errors: list[Record] = [
        error("CUDA out of memory", "m", "1"),
        error("connection refused"),
        error("connection refused"),
    ]
    report = make_report(
        facts(
            [
                *recorded((COOL, calls(10, 4, input_tokens=5, output_tokens=7)), app="a"),
                *recorded((HOT, [*calls(30, 4), *errors]), app="b"),
            ],
            sessions=[
                session_line("1"), session_line("2", end_reason="client_lost"),
                session_line("3", ended_at=None, end_reason=None), session_line("4", end_reason="idle"),
            ],
        )
    )  # fmt: skip
    totals = report.totals
    assert (totals.calls, totals.errors, totals.models) == (8, 3, 1)
    assert totals.error_percent == pytest.approx(100 * 3 / 11, abs=1e-3)
    assert (totals.sessions, totals.active, totals.lost, totals.crash_free_percent) == (4, 1, 1, 66.6667)
    assert (totals.input_tokens, totals.output_tokens) == (20, 28)
    assert totals.latency is not None
    assert totals.latency.mean_ms == pytest.approx(20)
    assert totals.latency.p99_ms == pytest.approx(30, rel=0.011)
    assert [(one.category, one.count) for one in report.errors] == [("Network", 2), ("Hardware", 1)]
    assert [(one.app, one.calls, one.errors) for one in report.apps] == [("a", 4, 0), ("b", 4, 3)]
    assert sum(step.calls for step in report.over_time) == 8


def test_what_nobody_said_is_not_zero() -> None:
    report = reported((COOL, calls(10, 4)))
    assert (report.totals.input_tokens, report.models[0].tokens_per_second) == (None, None)
    assert report.models[0].time_to_first_token is None
    assert (report.device.throttled_samples, report.device.energy) == (None, [])
    empty = make_report(facts())
    assert empty.empty
    assert (empty.totals.latency, empty.totals.crash_free_percent, empty.totals.error_percent) == (None, None, None)


def test_a_model_at_two_versions_is_two() -> None:
    report = make_report(facts(recorded((COOL, [call("m", "1", 10), call("m", "2", 20), call("m", "2", 20)]))))
    assert [(model.name, model.calls) for model in report.models] == [("m 2", 2), ("m 1", 1)]


def test_what_is_too_much_is_counted_and_said() -> None:
    many: list[Record] = [call(f"m{number:03}", "1", 10) for number in range(MOST_MODELS + 5)]
    listed = [session_line(str(number)) for number in range(MOST_SESSIONS + 3)]
    report = make_report(facts(recorded((COOL, many)), sessions=listed))
    assert (len(report.models), report.models_left_out, report.calls_left_out) == (MOST_MODELS, 5, 5)
    assert (len(report.sessions), report.sessions_left_out, report.totals.sessions) == (
        MOST_SESSIONS,
        3,
        MOST_SESSIONS + 3,
    )


# Time


def test_steps_are_whole_ones_of_the_readers_clock() -> None:
    half_past = 5 * HOUR_MS + HOUR_MS // 2
    report = make_report(
        facts(recorded((COOL, calls(10, 3))), since_ms=NOW_MS - 7 * DAY_MS, utc_offset_ms=half_past)
    )  # fmt: skip
    (step,) = report.over_time
    assert report.step_ms == HOUR_MS
    assert (step.at_ms + half_past) % HOUR_MS == 0
    assert step.at_ms <= NOW_MS - HOUR_MS < step.at_ms + HOUR_MS
    assert [each.at_ms for each in report.models[0].over_time] == [step.at_ms]


@pytest.mark.parametrize(
    ("length_ms", "step_ms"),
    [(HOUR_MS, MINUTE_MS), (DAY_MS, 15 * MINUTE_MS), (2 * DAY_MS, 15 * MINUTE_MS), (2 * DAY_MS + 1, HOUR_MS),
     (7 * DAY_MS, HOUR_MS), (30 * DAY_MS, 6 * HOUR_MS), (5 * 365 * DAY_MS, 10 * DAY_MS)],
)  # fmt: skip
def test_a_step_is_what_a_chart_can_take_and_never_finer_than_what_is_kept(length_ms: int, step_ms: int) -> None:
    assert step_for(NOW_MS - length_ms, NOW_MS, NOW_MS) == step_ms
    assert length_ms / step_for(NOW_MS - length_ms, NOW_MS, NOW_MS) <= 200


def test_a_copy_of_sums_goes_its_own_way() -> None:
    minutes = recorded((COOL, calls(10, 4)), (HOT, [*calls(20, 4), error("boom")]))
    whole, base = Sums(MINUTE_MS), Sums(MINUTE_MS)
    base.add(minutes[0])
    grown = base.copy()
    grown.add(minutes[1])
    for minute in minutes:
        whole.add(minute)
    assert told(grown) == told(whole) != told(base)


def told(sums: Sums) -> bytes:
    made = facts()
    made.sums = sums
    return msgspec.json.encode(make_report(made))


# The device


def sample(at_min: float, **more: Any) -> Sample:
    at_ms = int(NOW_MS - HOUR_MS + at_min * MINUTE_MS)
    return Sample(at_ms=at_ms, mono_ms=int(at_min * MINUTE_MS), **{"boot_id": "b", **more})


def test_energy_is_the_integral_of_power_between_close_samples() -> None:
    powers = [(0, 10.0), (1, 20.0), (2, 20.0), (30, 60.0), (31, 60.0)]
    samples = [sample(at, battery_w=watts, power_source="battery", charging=False) for at, watts in powers]
    (energy,) = make_report(facts(samples=samples)).device.energy
    # 15 W, 20 W and, after the gap, 60 W for a minute each.
    assert energy.watt_hours == pytest.approx((15 + 20 + 60) / 60, abs=1e-3)
    assert energy.covered_s == 180
    assert energy.mean_w == pytest.approx(95 / 3, abs=1e-3)


def test_energy_is_not_taken_from_a_battery_that_is_charged() -> None:
    charging = [sample(at, battery_w=30.0, power_source="ac", charging=True) for at in range(5)]
    assert make_report(facts(samples=charging)).device.energy == []
    gpus = [sample(at, gpus=[{"name": "a", "power_w": 30.0}, {"name": "b", "power_w": 30.0}]) for at in range(61)]
    (energy,) = make_report(facts(samples=gpus)).device.energy
    assert energy.what == "GPU"
    assert energy.watt_hours == pytest.approx(60)


def test_energy_does_not_run_through_a_jump_of_the_clock() -> None:
    before = sample(0, battery_w=10.0, power_source="battery")
    after = msgspec.structs.replace(sample(1, battery_w=10.0, power_source="battery"), at_ms=NOW_MS + DAY_MS)
    (energy,) = make_report(facts(samples=[before, after])).device.energy
    assert energy.covered_s == 60
    rebooted = msgspec.structs.replace(after, boot_id="another")
    assert make_report(facts(samples=[before, rebooted])).device.energy == []


def test_a_step_of_the_history_has_the_worst_of_heat_and_the_last_of_power() -> None:
    samples = [
        sample(0, thermal_state="normal", temperature_c=50.0, throttled=False, power_source="ac", battery_percent=90.0, cpu_percent=10.0),
        sample(1, thermal_state="critical", temperature_c=95.0, throttled=True, power_source="ac", battery_percent=90.0, cpu_percent=30.0),
        sample(2, thermal_state="warm", temperature_c=70.0, throttled=False, power_source="battery", battery_percent=89.0),
    ]  # fmt: skip
    report = make_report(facts(samples=samples, since_ms=NOW_MS - 7 * DAY_MS))
    (step,) = report.device.history
    assert (step.samples, step.thermal_state, step.temperature_c, step.throttled) == (3, "critical", 95.0, 1)
    assert (step.power_source, step.battery_percent, step.cpu_percent) == ("battery", 89.0, 20.0)
    assert (step.gpu_percent, step.power_w) == (None, None)
    assert report.device.throttled_samples == 1


def test_the_report_reads_back_from_its_own_json() -> None:
    report = week_report()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert report.totals.calls + report.totals.errors == week().records
