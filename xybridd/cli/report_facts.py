"""What `xybridd report` and `xybridd dashboard` read from the daemon."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.cli.minutes import read_minutes
from xybridd.core.minute import Sample
from xybridd.core.report.facts import Facts, step_for
from xybridd.core.report.figures import SessionFigures
from xybridd.core.report.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.connection import Connection

#: A long list keeps the daemon's database thread for that long; others wait for it meanwhile.
_SESSIONS_AT_ONCE = 1000
_MOST_SAMPLES = 10_000


class Span(msgspec.Struct, frozen=True):
    """UTC milliseconds, and the offset of the reader's clock."""

    since_ms: int
    until_ms: int
    now_ms: int
    utc_offset_ms: int


def span_of(since_s: float, until_s: float = 0.0) -> Span:
    """From so long ago until so long ago."""
    now_ms = int(time.time() * 1000)
    offset = datetime.fromtimestamp(now_ms / 1000).astimezone().utcoffset()
    return Span(
        max(0, now_ms - int(since_s * 1000)),
        now_ms - int(until_s * 1000),
        now_ms,
        0 if offset is None else int(offset.total_seconds() * 1000),
    )


def empty_sums(span: Span) -> Sums:
    return Sums(step_for(span.since_ms, span.until_ms, span.now_ms), span.utc_offset_ms)


def read_sums(
    connection: Connection,
    into: Sums,
    since_ms: int,
    until_ms: int,
    app: str | None,
    told: Callable[[int], None] = lambda _at_ms: None,
) -> Sums:
    """Add up the minutes that began in that time; ``told`` hears how far in it the reading is."""
    for each in read_minutes(connection, since_ms=since_ms, until_ms=until_ms, app=app):
        into.add(each)
        told(min(each.minute.started_at_ms, until_ms))
    return into


def read_facts(connection: Connection, span: Span, app: str | None, sums: Sums) -> Facts:
    """All but the sums."""
    samples = connection.call("device.samples", {"since_ms": span.since_ms, "limit": _MOST_SAMPLES})["samples"]
    return Facts(
        made_at_ms=span.now_ms,
        since_ms=span.since_ms,
        until_ms=span.until_ms,
        utc_offset_ms=span.utc_offset_ms,
        app=app,
        status=connection.call("daemon.status"),
        capabilities=connection.call("device.capabilities"),
        sums=sums,
        samples=[each for each in msgspec.convert(samples, list[Sample]) if each.at_ms < span.until_ms],
        sessions=_sessions(connection, span, app),
    )


def _sessions(connection: Connection, span: Span, app: str | None) -> list[SessionFigures]:
    """Those that were open in that time, newest first; read in parts, each from where the last one ended."""
    found: dict[str, SessionFigures] = {}
    until_ms = span.until_ms
    while True:
        params: dict[str, Any] = {"since_ms": span.since_ms, "until_ms": until_ms, "limit": _SESSIONS_AT_ONCE}
        rows = connection.call("session.list", params | ({} if app is None else {"app": app}))["sessions"]
        new = [row for row in msgspec.convert(rows, list[SessionFigures]) if row.session_id not in found]
        found |= {row.session_id: row for row in new}
        if len(rows) < _SESSIONS_AT_ONCE or not new:
            return list(found.values())
        until_ms = rows[-1]["started_at"]
