"""The sink ``xybrid``: the upstream SDK's own ingest format, ``POST {endpoint}/v1/events/batch``.

An item is an event; a session's payload is its TelemetryExport, byte for byte as it was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xybridd.core.export import iso8601
from xybridd.upload.request import Request, post

if TYPE_CHECKING:
    from xybridd.core.delivery import Item, Job

PATH = "/v1/events/batch"


class Event(msgspec.Struct, frozen=True):
    """The names and their order are the ingest format's; what a device does not know there is null."""

    session_id: str
    event_type: str
    payload: msgspec.Raw
    device_id: str
    platform: str
    app_version: str
    timestamp: str
    pipeline_id: None = None
    trace_id: None = None
    stages: None = None


class _Batch(msgspec.Struct, frozen=True):
    events: list[Event]
    idempotency_key: str


def event(item: Item) -> Event:
    """A deletion with no session id is of all that this device ever sent."""
    if item.kind == "deletion":
        event_type = "SessionDeletion" if item.session_id else "DeviceDeletion"
        payload = msgspec.json.encode({"session_id": item.session_id})
    else:
        event_type, payload = "SessionExport", item.body
    return Event(
        session_id=item.session_id,
        event_type=event_type,
        payload=msgspec.Raw(payload),
        device_id=item.device_id,
        platform=item.platform,
        app_version=item.app_version,
        timestamp=iso8601(item.made_at_ms),
    )


def body(job: Job) -> bytes:
    """The JSON that is sent, before it is compressed: what ``xybridd export --preview`` shows."""
    return msgspec.json.encode(_Batch([event(item) for item in job.items], job.key))


def request(job: Job) -> Request:
    return post(job, PATH, "application/json", body(job))
