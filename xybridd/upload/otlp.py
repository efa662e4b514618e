"""The sink ``otlp``: OTLP/HTTP metrics in protobuf, ``POST {endpoint}/v1/metrics``, to any OpenTelemetry Collector.

What is sent are closed minutes as delta points with their true start and end, and samples as gauges, in one
ResourceMetrics for each app and version. Minutes of one app that ended at the same moment (two sessions of it ran) are
one minute here, and points are in the order of their ends, because a Collector that adds deltas up takes two points of
one series with the same end for a repetition.

OTLP has no idempotency: of a request whose answer was lost, a receiver counts the points twice unless it looks at our
``Idempotency-Key`` header, which the Collector does not. A ``partialSuccess`` with rejected points is no success, and
sending again would double what was taken: it is the failure ``partial``.

The sender imports this module, and `xybridd export --preview`: protobuf stays out of the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from xybridd import __version__
from xybridd.core import names
from xybridd.core.delivery import Job, Outcome
from xybridd.core.minute import Minute, Sample
from xybridd.upload.otlp_points import Points, attributes
from xybridd.upload.request import Answer, Request, outcome_of, post, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.delivery import Item

PATH = "/v1/metrics"


class _Resource(NamedTuple):
    device_id: str
    platform: str
    app: str
    app_version: str


def request(job: Job) -> Request:
    return post(job, PATH, "application/x-protobuf", body(job))


def body(job: Job) -> bytes:
    """The ExportMetricsServiceRequest that is sent, before it is compressed."""
    message = ExportMetricsServiceRequest(resource_metrics=[_metrics(*each) for each in _by_resource(job.items)])
    return message.SerializeToString(deterministic=True)


def readable(job: Job) -> str:
    """The same as JSON, as OTLP itself writes it, for people to read."""
    return MessageToJson(ExportMetricsServiceRequest.FromString(body(job)))


def judged(answer: Answer) -> Outcome:
    """A 200 may still say that points were rejected."""
    outcome = outcome_of(answer)
    if outcome.status != 200 or not answer.body:
        return outcome
    try:
        partial = _response(answer).partial_success
    except (DecodeError, ParseError, msgspec.MsgspecError, RecursionError):
        # It said 200, and receivers that answer with a line of text instead of the message are common.
        return outcome
    if partial.rejected_data_points <= 0:
        return outcome
    why = shown(partial.error_message.encode()) or "it does not say why"
    return Outcome(
        failure="partial", detail=f"the receiver rejected {partial.rejected_data_points} points for good: {why}"
    )


def _response(answer: Answer) -> ExportMetricsServiceResponse:
    if answer.content_type == "application/json":
        given: Any = msgspec.json.decode(answer.body, type=dict[str, Any])
        return ParseDict(given, ExportMetricsServiceResponse(), ignore_unknown_fields=True)
    return ExportMetricsServiceResponse.FromString(answer.body)


def _by_resource(items: Iterable[Item]) -> list[tuple[_Resource, list[Minute], list[Sample]]]:
    """In the order of first mention. Sessions and deletions are nothing that this sink takes."""
    found: dict[_Resource, tuple[dict[int, Minute], list[Sample]]] = {}
    for item in items:
        if item.kind not in {"minute", "sample"}:
            continue
        resource = _Resource(item.device_id, item.platform, item.app, item.app_version)
        minutes, samples = found.setdefault(resource, ({}, []))
        if item.kind == "sample":
            samples.append(msgspec.msgpack.decode(item.body, type=Sample))
            continue
        minute = msgspec.msgpack.decode(item.body, type=Minute)
        if (same_end := minutes.get(minute.ended_at_ms)) is not None:
            same_end.merge(minute)
        else:
            minutes[minute.ended_at_ms] = minute
    return [
        (resource, [minutes[end] for end in sorted(minutes)], sorted(samples, key=lambda sample: sample.at_ms))
        for resource, (minutes, samples) in found.items()
    ]


def _metrics(resource: _Resource, minutes: list[Minute], samples: list[Sample]) -> ResourceMetrics:
    points = Points()
    for minute in minutes:
        points.add_minute(minute)
    for sample in samples:
        points.add_sample(sample)
    found = ResourceMetrics(schema_url=names.SCHEMA_URL)
    found.resource.attributes.extend(
        attributes(
            {
                # What the device itself measured belongs to no app: it is the daemon's.
                "service.name": resource.app or "xybridd",
                "service.version": resource.app_version if resource.app else __version__,
                "device.id": resource.device_id,
                "os.type": names.OS_TYPES.get(resource.platform, resource.platform),
                "telemetry.sdk.name": "xybridd",
                "telemetry.sdk.language": "python",
                "telemetry.sdk.version": __version__,
            }
        )
    )
    scope = found.scope_metrics.add(schema_url=names.SCHEMA_URL)
    scope.scope.name, scope.scope.version = "xybridd", __version__
    scope.metrics.extend(points.metrics.values())
    return found
