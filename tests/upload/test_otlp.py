"""OTLP as another reads it: bodies parsed with the official classes and compared with the minutes they came from."""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from tests.core.given import NOW_MS, call, calls, head
from tests.upload.given import job, outcome, session_item, target
from xybridd.core.conditions import Surroundings
from xybridd.core.delivery import Item, Job
from xybridd.core.histogram import Histogram
from xybridd.core.minute import ErrorMinute, Minute, ModelMinute, Sample
from xybridd.core.session import Session, SessionLimits
from xybridd.protocol.records import InferenceRecord, InferenceStats
from xybridd.testing import Behaviour
from xybridd.upload import otlp
from xybridd.upload.request import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics

    from xybridd.testing import Receiver

HOT, COOL = Surroundings("hot", "battery"), Surroundings("normal", "ac")


def item(of: Minute | Sample, app: str = "kiosk", app_version: str = "1.2") -> Item:
    at_ms, session_id = (of.ended_at_ms, of.session_id) if isinstance(of, Minute) else (of.at_ms, "")
    kind: Any = "minute" if isinstance(of, Minute) else "sample"
    return Item(kind, session_id, 0, at_ms, "device", "macos", app, app_version, msgspec.msgpack.encode(of))


def otlp_job(*items: Item) -> Job:
    return job(target("http://127.0.0.1", "otlp"), *items, key="k")


def minute_of(session: Session, errors: Iterable[ErrorMinute] = (), **more: Any) -> Minute:
    models = [
        ModelMinute(
            model.model_id,
            model.version,
            model.call_count,
            model.error_count,
            model.latency.to_bytes(),
            model.stats.to_bytes(),
            model.conditions.to_bytes(),
        )
        for model in session.models.values()
    ]
    times = {"started_at_ms": NOW_MS, "ended_at_ms": NOW_MS + 59_250, **more}
    return Minute("s", models=models, errors=list(errors), **times)


def session_with(*batches: tuple[Surroundings, list[InferenceRecord]]) -> Session:
    made = Session(head(), SessionLimits())
    for around, records in batches:
        made.apply(records, NOW_MS, around)
    return made


def parsed(*items: Item) -> list[ResourceMetrics]:
    request = otlp.request(otlp_job(*items))
    assert request.headers["Content-Type"] == "application/x-protobuf"
    return list(ExportMetricsServiceRequest.FromString(gzip.decompress(request.body)).resource_metrics)


def metrics_in(resource: ResourceMetrics) -> dict[str, Metric]:
    (scope,) = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("xybridd", "0.1.0")
    return {metric.name: metric for metric in scope.metrics}


def said(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def quantile(points: Iterable[Any], q: float) -> float:
    """Of exponential points together, in seconds, read as OTLP's data model says: no code of ours."""
    counts: dict[int, int] = {}
    zeros = 0
    for point in points:
        assert point.scale == 5
        zeros += point.zero_count
        for number, count in enumerate(point.positive.bucket_counts):
            index = point.positive.offset + number
            counts[index] = counts.get(index, 0) + count
    rank, seen = max(1, -(-q * (zeros + sum(counts.values())) // 1)), zeros
    if rank <= seen:
        return 0.0
    for index in sorted(counts):
        seen += counts[index]
        if rank <= seen:
            return float(2 ** ((index + 0.5) / 32))
    raise AssertionError("the counts do not add up")


def test_percentiles_survive_the_way_into_seconds() -> None:
    spread = random.Random(4)
    latencies = sorted(spread.lognormvariate(4, 2) for _ in range(5000))
    session = session_with(
        (HOT, [call(latency_ms=each) for each in latencies[::2]]),
        (COOL, [call(latency_ms=each) for each in latencies[1::2]]),
    )
    (resource,) = parsed(item(minute_of(session)))
    points = metrics_in(resource)["gen_ai.client.operation.duration"].exponential_histogram.data_points
    for q in (0.001, 0.1, 0.5, 0.9, 0.99, 1.0):
        true_s = latencies[max(0, -int(-q * 5000 // 1) - 1)] / 1000
        assert quantile(points, q) == pytest.approx(true_s, rel=0.013)


def test_a_duration_for_each_condition() -> None:
    session = session_with(
        (HOT, [call("whisper", "1.0", 500, stats=InferenceStats(hardware_used="npu")), call("whisper", "1.0", 700)]),
        (Surroundings(), [call("whisper", "1.0", 0)]),
    )
    (resource,) = parsed(item(minute_of(session)))
    metric = metrics_in(resource)["gen_ai.client.operation.duration"]
    assert metric.unit == "s"
    assert metric.exponential_histogram.aggregation_temporality == 1  # delta
    always = {
        "gen_ai.operation.name": "inference",
        "gen_ai.provider.name": "xybrid",
        "gen_ai.request.model": "whisper",
        "xybrid.model.version": "1.0",
    }
    hot = {**always, "xybrid.thermal.state": "hot", "xybrid.power.source": "battery"}
    on_npu, unsaid, nothing_known = metric.exponential_histogram.data_points
    assert said(on_npu) == {**hot, "xybrid.inference.accelerator": "npu"}
    assert said(unsaid) == hot
    assert said(nothing_known) == always
    assert (on_npu.count, on_npu.sum, on_npu.min, on_npu.max) == (1, 0.5, 0.5, 0.5)
    assert (nothing_known.count, nothing_known.zero_count, nothing_known.max) == (1, 1, 0)
    assert not nothing_known.positive.bucket_counts
    assert nothing_known.zero_threshold == pytest.approx(2**-20 / 1000)
    for point in (on_npu, unsaid, nothing_known):
        assert point.start_time_unix_nano == NOW_MS * 1_000_000
        assert point.time_unix_nano == (NOW_MS + 59_250) * 1_000_000


def test_a_minute_that_began_and_ended_at_once_is_a_span_all_the_same() -> None:
    minute = msgspec.structs.replace(
        minute_of(session_with((COOL, [call()]))), started_at_ms=NOW_MS, ended_at_ms=NOW_MS
    )
    (resource,) = parsed(item(minute))
    for metric in metrics_in(resource).values():
        points: list[Any] = [*metric.exponential_histogram.data_points, *metric.sum.data_points]
        for point in points:
            assert (point.start_time_unix_nano, point.time_unix_nano) == (NOW_MS * 1_000_000, (NOW_MS + 1) * 1_000_000)


def test_tokens_first_tokens_rates_and_targets() -> None:
    session = session_with(
        (
            COOL,
            [
                call(stats=InferenceStats(input_tokens=100, output_tokens=7, time_to_first_token_ms=90)),
                call(stats=InferenceStats(input_tokens=50, execution_target="local", tokens_per_second=40.5)),
                call(stats=InferenceStats(execution_target="local", tokens_per_second=20.5)),
                call(stats=InferenceStats(execution_target="cloud")),
            ],
        )
    )
    found = metrics_in(parsed(item(minute_of(session)))[0])
    usage = found["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    tokens = {said(point)["gen_ai.token.type"]: point for point in usage.histogram.data_points}
    assert {kind: (point.count, point.sum, point.max) for kind, point in tokens.items()} == {
        "input": (2, 150, 100),
        "output": (1, 7, 7),
    }
    assert not tokens["input"].bucket_counts
    assert not tokens["input"].explicit_bounds
    (first,) = found["gen_ai.server.time_to_first_token"].exponential_histogram.data_points
    assert (first.count, first.sum) == (1, 0.09)
    (rate,) = found["xybrid.inference.token_rate"].histogram.data_points
    assert (rate.count, rate.sum, rate.min, rate.max) == (2, 61, 20.5, 40.5)
    made = found["xybrid.inference.calls"].sum
    assert made.is_monotonic
    assert made.aggregation_temporality == 1
    counted = {said(point).get("xybrid.inference.target"): point.as_int for point in made.data_points}
    assert counted == {"local": 2, "cloud": 1, None: 1}


def test_errors_by_category_and_model() -> None:
    errors = [
        ErrorMinute("ModelLoading", "whisper", 2),
        ErrorMinute("model_loading", "whisper", 1),
        ErrorMinute("Memory", None, 4),
        ErrorMinute("Unknown", None, 5),
        ErrorMinute("of a later version", None, 6),
    ]
    metric = metrics_in(parsed(item(minute_of(session_with(), errors)))[0])["xybrid.inference.errors"]
    assert metric.sum.is_monotonic
    counted = {
        (said(point)["error.type"], said(point).get("gen_ai.request.model")): point.as_int
        for point in metric.sum.data_points
    }
    assert counted == {("model_loading", "whisper"): 3, ("memory", None): 4, ("_OTHER", None): 11}


def test_a_resource_for_each_app_and_version() -> None:
    minute = minute_of(session_with((COOL, [call()])))
    sample = Sample(NOW_MS, 0, "boot", temperature_c=40)
    found = parsed(item(minute), item(minute, app_version="1.3"), item(minute, app="other"), item(sample, "", ""))
    resources = [said(resource.resource) for resource in found]
    assert resources[0] == {
        "service.name": "kiosk",
        "service.version": "1.2",
        "device.id": "device",
        "os.type": "darwin",
        "telemetry.sdk.name": "xybridd",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": "0.1.0",
    }
    assert [each["service.name"] for each in resources] == ["kiosk", "kiosk", "other", "xybridd"]
    assert all("session.id" not in str(resource) for resource in found)


def test_minutes_that_end_together_are_one_and_all_are_in_order() -> None:
    """Two points of a series with one end would be taken for a repetition by who adds deltas up."""
    one = session_with((COOL, [call(latency_ms=10)]))
    ends = [NOW_MS + 120_000, NOW_MS + 60_000, NOW_MS + 60_000]
    found = parsed(*(item(minute_of(one, ended_at_ms=end)) for end in ends))
    points = metrics_in(found[0])["gen_ai.client.operation.duration"].exponential_histogram.data_points
    assert [(point.time_unix_nano // 1_000_000, point.count) for point in points] == [
        (NOW_MS + 60_000, 2),
        (NOW_MS + 120_000, 1),
    ]


def test_samples_are_gauges_with_their_surroundings() -> None:
    sample = Sample(
        NOW_MS,
        0,
        "boot",
        thermal_state="Hot",
        temperature_c=71.5,
        throttled=True,
        power_source="Battery",
        battery_percent=42,
        battery_w=9,
        cpu_percent=12.5,
        memory_available_bytes=2**33,
        gpus=[{"name": "Orin", "utilization_percent": 50, "memory_used_bytes": 2**30, "temperature_c": 66}],
        npus=[{"name": "DLA", "power_w": 1.5, "utilization_percent": 0}],
    )
    found = metrics_in(parsed(item(sample))[0])

    def values(name: str) -> dict[str, float]:
        points = found[name].gauge.data_points
        assert all(point.time_unix_nano == NOW_MS * 1_000_000 for point in points)
        assert all(said(point)["xybrid.thermal.state"] == "hot" for point in points)
        assert all(said(point)["xybrid.power.source"] == "battery" for point in points)
        return {said(point)["hw.id"]: point.as_int or point.as_double for point in points}

    assert values("hw.temperature") == {"device": 71.5, "gpu0": 66}
    assert values("hw.power") == {"device": 9, "npu0": 1.5}
    assert values("hw.battery.charge") == {"battery": 0.42}
    assert values("hw.gpu.utilization") == {"gpu0": 0.5}
    assert values("hw.gpu.memory.usage") == {"gpu0": 2**30}
    assert values("xybrid.npu.utilization") == {"npu0": 0}
    assert values("xybrid.cpu.utilization") == {"cpu": 0.125}
    assert values("xybrid.memory.available") == {"memory": 2**33}
    assert values("xybrid.thermal.level") == {"device": 2}
    assert values("xybrid.thermal.throttled") == {"device": 1}
    assert "xybrid.npu.memory.usage" not in found
    (gpu,) = found["hw.gpu.utilization"].gauge.data_points
    assert (said(gpu)["hw.name"], said(gpu)["hw.type"]) == ("Orin", "gpu")


def test_what_nobody_knows_is_left_out() -> None:
    assert metrics_in(parsed(item(Sample(NOW_MS, 0, "boot")))[0]) == {}


@given(st.lists(calls, min_size=1, max_size=30), st.integers(-(2**62), 2**62))
@settings(max_examples=50)
def test_nothing_is_lost_on_the_way(records: list[InferenceRecord], at_ms: int) -> None:
    """Also with the maddest of latencies and clocks."""
    session = session_with((HOT, records))
    (resource,) = parsed(item(minute_of(session, started_at_ms=at_ms, ended_at_ms=at_ms)))
    found = metrics_in(resource)
    points = found["gen_ai.client.operation.duration"].exponential_histogram.data_points
    assert sum(point.count for point in points) == len(records)
    for point in points:
        assert point.count == point.zero_count + sum(point.positive.bucket_counts)
    assert sum(point.sum for point in points) == pytest.approx(sum(each.latency_ms for each in records) / 1000)
    assert sum(point.as_int for point in found["xybrid.inference.calls"].sum.data_points) == len(records)
    expected = Histogram()
    expected.extend([each.latency_ms for each in records])
    assert quantile(points, 0.5) == pytest.approx(expected.quantile(0.5) / 1000, rel=0.013, abs=1e-9)


def test_the_same_job_gives_the_same_bytes() -> None:
    session = session_with((HOT, [call(stats=InferenceStats(hardware_used="gpu"))]), (COOL, [call(), call("n")]))
    given_job = otlp_job(item(minute_of(session)), item(Sample(NOW_MS, 0, "b", temperature_c=50)))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(given_job), type=Job)
    assert otlp.request(again) == otlp.request(given_job)


def test_a_session_is_nothing_for_this_sink() -> None:
    assert parsed(session_item()) == []


def partial_answer(rejected: int, content_type: str = "application/x-protobuf") -> Answer:
    said = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message="too old\x1b[31m")
    body = ExportMetricsServiceResponse(partial_success=said).SerializeToString()
    if content_type == "application/json":
        # 64-bit numbers are strings in OTLP's JSON.
        body = msgspec.json.encode({"partialSuccess": {"rejectedDataPoints": str(rejected), "errorMessage": "too old"}})
    return Answer(200, content_type, body=body)


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json"])
def test_a_partial_success_is_none(content_type: str) -> None:
    found = otlp.judged(partial_answer(3, content_type))
    assert (found.status, found.failure) == (None, "partial")
    assert "rejected 3 points" in found.detail
    assert "too old" in found.detail
    assert found.detail.isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        Answer(200, "text/plain", body=b"ok"),
        Answer(200, "application/json", body=b"{}"),
        Answer(200, "application/json", body=b"not json"),
        Answer(200, "application/json", body=b'{"partialSuccess": 7}'),
        Answer(200, "application/x-protobuf", body=b"\xff\xff\xff"),
        partial_answer(0),
        partial_answer(0, "application/json"),
    ],
)
def test_a_plain_success_is_one(answer: Answer) -> None:
    assert (otlp.judged(answer).status, otlp.judged(answer).failure) == (200, None)


def test_to_a_receiver_and_back(receiver: Receiver) -> None:
    session = session_with((HOT, [call(), call("n")]))
    first = job(target(receiver.url, "otlp"), item(minute_of(session)))
    second = job(target(receiver.url, "otlp"), item(minute_of(session)))
    assert outcome(first).status == 200
    receiver.misbehave(Behaviour("partial", limit=2))
    assert outcome(second).failure == "partial"
    batches = {batch["key"]: batch for batch in receiver.seen()["batches"]}
    assert batches[first.key]["points"] == 4
    (resource,) = batches[first.key]["metrics"]
    names = [metric["name"] for metric in resource["scopeMetrics"][0]["metrics"]]
    assert names == ["gen_ai.client.operation.duration", "xybrid.inference.calls"]
