"""The shapes people and servers read: a session's metrics and the export, version 2.0.

Names, their order and their spelling are the reference's; ``extensions`` is ours, one object at the end that the
reference's own parser ignores. A part of it that has nothing is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.capabilities import HardwareCapabilities
from xybridd.core.delivery import Item

if TYPE_CHECKING:
    from xybridd.core.session import ErrorEntry, ModelEntry, Session

EXPORT_VERSION = "2.0"


class ApiCallMetric(msgspec.Struct, frozen=True):
    model_id: str
    version: str
    call_count: int
    total_latency_ms: int
    avg_latency_ms: int
    error_count: int
    last_called: int


class ErrorSummary(msgspec.Struct, frozen=True):
    category: str
    message: str
    count: int
    first_seen: int
    last_seen: int
    model_id: str | None


class SessionMetrics(msgspec.Struct, frozen=True):
    """A session's whole state; times are UTC milliseconds since 1970."""

    session_id: str
    device_id: str
    started_at: int
    ended_at: int | None
    sdk_version: str
    total_inferences: int
    total_latency_ms: int
    avg_latency_ms: int
    models_used: list[str]
    error_count: int
    by_model: dict[str, ApiCallMetric]
    errors: list[ErrorSummary]
    hardware_capabilities: HardwareCapabilities | None
    extensions: dict[str, Any]


class SessionInfo(msgspec.Struct, frozen=True):
    """Times are ISO 8601 in UTC with milliseconds."""

    session_id: str
    device_id: str
    platform: str
    sdk_version: str
    started_at: str
    ended_at: str | None


class HardwareInfo(msgspec.Struct, frozen=True):
    has_gpu: bool
    gpu_type: str
    has_npu: bool
    npu_type: str
    memory_total_mb: int
    battery_level: int
    thermal_state: str
    platform: str


class MetricsSummary(msgspec.Struct, frozen=True):
    total_inferences: int
    total_latency_ms: int
    avg_latency_ms: int
    error_count: int
    by_model: list[ApiCallMetric]


class TelemetryExport(msgspec.Struct, frozen=True):
    version: str
    session: SessionInfo
    hardware: HardwareInfo | None
    metrics: MetricsSummary
    errors: list[ErrorSummary]
    extensions: dict[str, Any]


def iso8601(timestamp_ms: int) -> str:
    """UTC to the millisecond, ``2026-11-23T06:24:03.995Z``, also past the year 9999 (``+12026-…``).

    Written out because `datetime` ends at 9999, and a producer's broken clock must not make an export fail. Past the
    last year of the reference's date library it is seconds and milliseconds, as there.
    """
    seconds, ms = divmod(timestamp_ms, 1000)
    days, second_of_day = divmod(seconds, 86_400)
    # Civil from days: the era starts on 1 March 0000, so that the leap day is a year's last.
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    month = march_month + 3 if march_month < 10 else march_month - 9
    year = year_of_era + era * 400 + (month <= 2)
    if year > 262_142:
        return f"{seconds}.{ms:03}Z"
    shown_year = f"{year:04}" if year <= 9999 else f"+{year}"
    hour, rest = divmod(second_of_day, 3600)
    return f"{shown_year}-{month:02}-{day:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}.{ms:03}Z"


def session_metrics(session: Session, ledger: dict[str, Any]) -> SessionMetrics:
    head = session.head
    return SessionMetrics(
        session_id=head.session_id,
        device_id=head.device_id,
        started_at=head.started_at_ms,
        ended_at=head.ended_at_ms,
        sdk_version=head.sdk_version,
        total_inferences=session.total_inferences,
        total_latency_ms=session.total_latency_ms,
        avg_latency_ms=session.avg_latency_ms,
        models_used=list(head.models_used),
        error_count=session.error_count,
        by_model={key: _call_metric(entry) for key, entry in session.models.items()},
        errors=[_error_summary(error) for error in session.errors],
        hardware_capabilities=head.hardware,
        extensions=extensions(session, ledger),
    )


def telemetry_export(session: Session, ledger: dict[str, Any]) -> TelemetryExport:
    head = session.head
    caps = head.hardware
    return TelemetryExport(
        version=EXPORT_VERSION,
        session=SessionInfo(
            session_id=head.session_id,
            device_id=head.device_id,
            platform=caps.platform.lower() if caps else "unknown",
            sdk_version=head.sdk_version,
            started_at=iso8601(head.started_at_ms),
            ended_at=None if head.ended_at_ms is None else iso8601(head.ended_at_ms),
        ),
        hardware=_hardware_info(caps) if caps else None,
        metrics=MetricsSummary(
            total_inferences=session.total_inferences,
            total_latency_ms=session.total_latency_ms,
            avg_latency_ms=session.avg_latency_ms,
            error_count=session.error_count,
            by_model=[_call_metric(entry) for entry in session.models.values()],
        ),
        errors=[_error_summary(error) for error in session.errors],
        extensions=extensions(session, ledger),
    )


def export_item(session: Session, ledger: dict[str, Any], made_at_ms: int) -> Item:
    """The export as it is queued: frozen, whatever becomes of the session."""
    head = session.head
    export = telemetry_export(session, ledger)
    return Item(
        kind="session",
        session_id=head.session_id,
        revision=head.revision,
        made_at_ms=made_at_ms,
        device_id=head.device_id,
        platform=export.session.platform,
        app=head.app,
        app_version=head.app_version,
        body=msgspec.json.encode(export),
    )


def extensions(session: Session, ledger: dict[str, Any]) -> dict[str, Any]:
    head = session.head
    out: dict[str, Any] = {"revision": head.revision, "app": head.app}
    if head.app_version:
        out["app_version"] = head.app_version
    if head.labels:
        out["labels"] = head.labels
    out["end_reason"] = head.end_reason
    if head.processes:
        out["processes"] = head.processes
    if head.calls_in_progress:
        out["calls_in_progress"] = head.calls_in_progress
    out["boot_id"] = head.boot_id
    out["ledger"] = ledger
    if head.details:
        out["hardware"] = head.details
    if head.transitions:
        out["transitions"] = head.transitions
    if session.models:
        out["models"] = {key: _model_details(entry) for key, entry in session.models.items()}
    return out


def _model_details(entry: ModelEntry) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if entry.latency.count:
        out["latency_ms"] = entry.latency.summary()
    if entry.cancelled_count:
        out["cancelled"] = entry.cancelled_count
    if stats := entry.stats.summary():
        out["stats"] = stats
    if conditions := entry.conditions.summary():
        out["conditions"] = conditions
    return out


def _call_metric(entry: ModelEntry) -> ApiCallMetric:
    return ApiCallMetric(
        model_id=entry.model_id,
        version=entry.version,
        call_count=entry.call_count,
        total_latency_ms=entry.total_latency_ms,
        avg_latency_ms=entry.avg_latency_ms,
        error_count=entry.error_count,
        last_called=entry.last_called_ms,
    )


def _error_summary(error: ErrorEntry) -> ErrorSummary:
    return ErrorSummary(
        category=error.category.value,
        message=error.message,
        count=error.count,
        first_seen=error.first_seen_ms,
        last_seen=error.last_seen_ms,
        model_id=error.model_id,
    )


def _hardware_info(caps: HardwareCapabilities) -> HardwareInfo:
    return HardwareInfo(
        has_gpu=caps.has_gpu,
        gpu_type=caps.gpu_type.lower(),
        has_npu=caps.has_npu,
        npu_type=caps.npu_type.lower(),
        memory_total_mb=caps.memory_total_mb,
        battery_level=caps.battery_level,
        thermal_state=caps.thermal_state.lower(),
        platform=caps.platform.lower(),
    )
