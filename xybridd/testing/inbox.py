"""What a receiver has, by its own count, and what it takes for well-formed.

A batch is known by its idempotency key. The same key again is a repeat: it is answered as before and counts nothing.
Only what was taken is remembered, so a batch that was refused may come again and be taken.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from typing import Any

import msgspec


class Rejected(Exception):
    """The batch is not what it should be; the text is the reason."""


class Event(msgspec.Struct, frozen=True):
    """The ingest format's event; all of its names must be there."""

    session_id: str
    event_type: str
    payload: dict[str, Any]
    device_id: str
    platform: str
    app_version: str
    timestamp: str
    pipeline_id: str | None
    trace_id: str | None
    stages: list[Any] | None

    @property
    def revision(self) -> int:
        """Of the session's export; 0 for what has none."""
        extensions = self.payload.get("extensions")
        found = extensions.get("revision") if isinstance(extensions, dict) else None
        return found if isinstance(found, int) else 0


class _Batch(msgspec.Struct, frozen=True):
    events: list[Event]
    idempotency_key: str


class Taken(msgspec.Struct, frozen=True):
    """A batch as it was taken: events from ``xybrid``, or metrics from ``otlp``."""

    key: str
    events: list[Event] = []
    metrics: list[dict[str, Any]] = []
    points: int = 0


class RequestLine(msgspec.Struct, frozen=True):
    """One request, as the log has it. ``status`` is None when none was answered; ``did`` is the misbehaviour."""

    path: str
    key: str
    status: int | None
    events: int
    body_bytes: int
    repeat: bool = False
    did: str | None = None
    reason: str = ""


class Inbox:
    """Not safe for threads."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.repeats = 0
        self.requests: list[RequestLine] = []
        #: Of the last batch that was new, before it was compressed.
        self.last_body = b""

    def take(self, batch: Taken, body: bytes = b"") -> bool:
        """False when it was there already. ``body`` is what it came in."""
        if batch.key and batch.key in self.taken:
            self.repeats += 1
            return False
        self.taken[batch.key or f"without a key {len(self.taken)}"] = batch
        self.last_body = body
        return True

    def counts(self) -> Counter[tuple[str, int, str]]:
        """How often each (session id, revision, event type) was counted; once is right."""
        return Counter(
            (event.session_id, event.revision, event.event_type)
            for batch in self.taken.values()
            for event in batch.events
        )

    def seen(self) -> dict[str, Any]:
        """Everything, for ``GET /seen``."""
        return {
            "batches": list(self.taken.values()),
            "counts": [
                {"session_id": session_id, "revision": revision, "event_type": event_type, "count": count}
                for (session_id, revision, event_type), count in self.counts().items()
            ],
            "deliveries": len(self.taken),
            "repeats": self.repeats,
            "requests": self.requests,
        }


def plain(body: bytes, encoding: str | None) -> bytes:
    """The body as it was before it was compressed. Raises Rejected."""
    if encoding in {None, "", "identity"}:
        return body
    if encoding != "gzip":
        raise Rejected(f"the content encoding {encoding} is not known here")
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"the body is not gzip: {error}") from error


def events_from(body: bytes, header_key: str | None) -> Taken:
    """Raises Rejected."""
    try:
        batch = msgspec.json.decode(body, type=_Batch)
    except msgspec.MsgspecError as error:
        raise Rejected(f"the body is not a batch of events: {error}") from error
    if not batch.events:
        raise Rejected("the batch holds no events")
    if not batch.idempotency_key or header_key not in {None, batch.idempotency_key}:
        raise Rejected("idempotency_key is missing, or is not the header's")
    return Taken(key=batch.idempotency_key, events=batch.events)


def metrics_from(body: bytes, content_type: str, header_key: str | None) -> Taken:
    """Metrics as OTLP's own JSON has them. Raises Rejected."""
    if content_type != "application/x-protobuf":
        raise Rejected(f"metrics are taken as application/x-protobuf, not as {content_type or 'nothing'}")
    # protobuf is large, and a receiver of events alone does not need it.
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsServiceRequest,
    )

    try:
        message = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise Rejected(f"the body is not an ExportMetricsServiceRequest: {error}") from error
    points = sum(
        len(getattr(metric, kind).data_points)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data")) is not None
    )
    return Taken(
        key=header_key or "", metrics=[MessageToDict(each) for each in message.resource_metrics], points=points
    )
