"""Facts and reports to start from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tests.core.given import NOW_MS
from tests.report.week import DAY_MS, Week, make_week
from xybridd.core.report.facts import Facts, step_for
from xybridd.core.report.figures import Report, SessionFigures
from xybridd.core.report.make import make_report
from xybridd.core.report.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xybridd.core.minute import AppMinute, Sample

#: What tears a page, a table, a terminal or a spreadsheet apart when it is not made harmless.
HOSTILE = "=1+1</script><img src=x onerror=alert(1)>\"'`|*_[x](javascript:1)\u202e\x1b[31m\n& ünï"

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "state": "ok",
    "device_id": "421a6c18-80b2-4ffe-89c6-112914e4a62b",
    "ledger": {
        "received": 120, "counted": 100, "duplicates": 15, "rejected": {"invalid_params": 5}, "removed": {"retention": 7},
        "missing_batches": 2, "dropped_by_clients": 0,
        "exports": {"otlp": {"made": 9, "delivered": 5, "queued": 1, "superseded": 1, "dead": 1, "evicted": 1, "forgotten": 0}},
    },
}  # fmt: skip
CAPABILITIES = {
    "details": {
        "platform": {"value": "Linux"},
        "machine": {"value": "NVIDIA Jetson Orin Nano"},
        "cpu_cores": {"value": 6},
        "memory": {"value": {"total_bytes": 8 * 2**30}},
        "gpu": {"value": [{"name": "Orin"}]},
        "npu": {"value": None},
    }
}


def facts(
    minutes: Iterable[AppMinute] = (),
    samples: Iterable[Sample] = (),
    sessions: Iterable[SessionFigures] = (),
    *,
    since_ms: int = NOW_MS - DAY_MS,
    until_ms: int = NOW_MS,
    utc_offset_ms: int = 0,
    **more: Any,
) -> Facts:
    sums = Sums(step_for(since_ms, until_ms, NOW_MS), utc_offset_ms)
    for minute in minutes:
        sums.add(minute)
    status, capabilities = more.get("status", STATUS), more.get("capabilities", CAPABILITIES)
    return Facts(
        NOW_MS, since_ms, until_ms, utc_offset_ms, more.get("app"), status, capabilities, sums, list(samples), list(sessions)
    )  # fmt: skip


def session_line(session_id: str = "s", **more: Any) -> SessionFigures:
    line: dict[str, Any] = {
        "session_id": session_id,
        "app": "app",
        "started_at": NOW_MS - 3_600_000,
        "ended_at": NOW_MS - 60_000,
        "end_reason": "ended",
        "total_inferences": 3,
        "avg_latency_ms": 12,
        "error_count": 1,
        "models_used": ["m"],
    }
    return SessionFigures(**{**line, **more})


@cache
def week() -> Week:
    return make_week(NOW_MS)


def lines(of: Week) -> list[SessionFigures]:
    """As `session.list` answers, newest first."""
    heads = {head.session_id: head for head in of.changes.heads}.values()
    return [
        session_line(
            head.session_id, app=head.app, started_at=head.started_at_ms, ended_at=head.ended_at_ms,
            end_reason=head.end_reason, models_used=head.models_used,
        )
        for head in sorted(heads, key=lambda head: -head.started_at_ms)
    ]  # fmt: skip


@cache
def week_report() -> Report:
    made = week()
    return make_report(
        facts(made.minutes, made.samples, lines(made), since_ms=NOW_MS - 7 * DAY_MS, utc_offset_ms=3_600_000)
    )
