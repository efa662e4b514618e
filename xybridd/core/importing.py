"""Exports that another device wrote into a file, as items to send from here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from xybridd.core.delivery import Item
from xybridd.core.export import EXPORT_VERSION
from xybridd.protocol.records import LARGEST_EXACT


class _Session(msgspec.Struct):
    session_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    device_id: str
    platform: str = "unknown"


class _Extensions(msgspec.Struct):
    revision: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_EXACT)] = 0
    app: str = ""
    app_version: str = ""


class _Export(msgspec.Struct):
    version: str
    session: _Session
    extensions: _Extensions = msgspec.field(default_factory=_Extensions)


class _Event(msgspec.Struct):
    event_type: str
    session_id: str
    payload: msgspec.Raw
    device_id: str = ""
    platform: str = "unknown"
    app_version: str = ""
    timestamp: str = ""


class _Kind(msgspec.Struct):
    event_type: str | None = None


def item_from(line: bytes, now_ms: int) -> Item:
    """One line: an event as the file sink writes it, or a bare TelemetryExport.

    Raises ValueError, which says what is wrong with it. ``now_ms`` is its time when it carries none.
    """
    try:
        line.decode()  # what is passed on as it came is not looked at, so it is looked at here
        if msgspec.json.decode(line, type=_Kind).event_type is None:
            return _session_item(line, "", now_ms)
        event = msgspec.json.decode(line, type=_Event)
        made_at_ms = _milliseconds(event.timestamp, now_ms)
        if event.event_type == "SessionExport":
            return _session_item(bytes(event.payload), event.app_version, made_at_ms)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not an export: {error}") from error
    if event.event_type in {"SessionDeletion", "DeviceDeletion"}:
        # "" means the whole device: one who asks for a session that has no name does not mean that.
        if (event.event_type == "DeviceDeletion") != (event.session_id == ""):
            raise ValueError(f"a {event.event_type} with the session id {event.session_id[:64]!r}")
        return Item("deletion", event.session_id, 0, made_at_ms, event.device_id, event.platform, "", event.app_version)
    raise ValueError(f"no export, but an event of type {event.event_type[:64]!r}")


def _session_item(export: bytes, app_version: str, made_at_ms: int) -> Item:
    found = msgspec.json.decode(export, type=_Export)
    if found.version != EXPORT_VERSION:
        raise ValueError(f"an export of version {found.version[:16]!r}; this xybridd knows {EXPORT_VERSION}")
    said = found.extensions
    return Item(
        kind="session",
        session_id=found.session.session_id,
        revision=said.revision,
        made_at_ms=made_at_ms,
        device_id=found.session.device_id,
        platform=found.session.platform,
        app=said.app,
        app_version=app_version or said.app_version,
        body=export,
    )


def _milliseconds(timestamp: str, now_ms: int) -> int:
    try:
        when = datetime.fromisoformat(timestamp)
    except ValueError:
        return now_ms
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
