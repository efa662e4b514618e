from __future__ import annotations

from tests.core.given import NOW_MS, call, error, session
from tests.core.test_minute import HOT, closed
from xybridd.core.metering import ErrorKey, ModelKey, Totals
from xybridd.core.minute import AppMinute, Minute, ModelMinute
from xybridd.protocol.records import InferenceStats


def minute_of(*models: tuple[str, int], app: str = "kiosk") -> AppMinute:
    made = session()
    made.apply([call(model) for model, calls in models for _ in range(calls)], NOW_MS)
    return AppMinute(app, "", closed(made)[0])


def calls(totals: Totals) -> dict[ModelKey, int]:
    return {key: model.calls for key, model in totals.models.items()}


def test_minutes_add_up_by_app_and_model_and_open_ones_stand_on_top() -> None:
    totals = Totals(10)
    totals.add(minute_of(("m", 2), ("n", 1)))
    totals.add(minute_of(("m", 3)))
    seen = totals.with_open([minute_of(("m", 4)), minute_of(("m", 1), app="robot")])
    assert calls(seen) == {
        ModelKey("kiosk", "m", "1"): 9,
        ModelKey("kiosk", "n", "1"): 1,
        ModelKey("robot", "m", "1"): 1,
    }
    assert calls(totals) == {ModelKey("kiosk", "m", "1"): 5, ModelKey("kiosk", "n", "1"): 1}
    (latencies,) = seen.models["kiosk", "m", "1"].conditions.latencies.values()  # type: ignore[index]
    assert latencies.count == 9


def test_conditions_stats_and_errors_are_kept_apart() -> None:
    made = session()
    made.apply(
        [
            call("m", stats=InferenceStats(output_tokens=7, hardware_used="gpu", execution_target="local")),
            error("connection refused", "m", "1"),
            error("connection refused"),
        ],
        NOW_MS,
        HOT,
    )
    totals = Totals(10)
    totals.add(AppMinute("kiosk", "", closed(made)[0]))
    model = totals.models[ModelKey("kiosk", "m", "1")]
    assert set(model.conditions.latencies) == {("hot", "battery", "gpu")}
    assert (model.stats.amounts["output_tokens"].total, model.stats.names["execution_target"]) == (7, {"local": 1})
    assert totals.errors == {ErrorKey("kiosk", "Network", "m"): 2}


def test_a_minute_of_a_version_that_kept_no_conditions_counts_all_the_same() -> None:
    given = minute_of(("m", 3)).minute.models[0]
    old = ModelMinute("m", "1", given.calls, 0, given.latency)
    totals = Totals(10)
    totals.add(AppMinute("kiosk", "", Minute("s", NOW_MS, NOW_MS, [old])))
    assert [
        latencies.count for latencies in totals.models[ModelKey("kiosk", "m", "1")].conditions.latencies.values()
    ] == [3]


def test_what_is_past_the_bound_counts_as_other() -> None:
    totals = Totals(2)
    totals.add(minute_of(*((f"m{number}", number) for number in range(1, 6))))
    totals.add(minute_of(("m1", 1), ("m9", 1)))
    assert calls(totals) == {
        ModelKey("kiosk", "m1", "1"): 2,
        ModelKey("kiosk", "m2", "1"): 2,
        ModelKey("other", "other", ""): 3 + 4 + 5 + 1,
    }
    made = session()
    made.apply([error("connection refused", f"m{number}") for number in range(50)], NOW_MS)
    totals.add(AppMinute("kiosk", "", closed(made)[0]))
    assert sum(totals.errors.values()) == 50
    assert len(totals.errors) <= 2 + 8
