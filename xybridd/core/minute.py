"""What one session gathered in one minute, and how the device was meanwhile.

A minute is the difference of a session's aggregates between two moments: what is recorded costs no more for it, a crash
loses none of it (the difference is taken again), and the minutes of a session add up to the session, always.

Minutes merge: sixty of them into an hour, or any into what a report asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd.core.conditions import Conditions
from xybridd.core.histogram import Histogram
from xybridd.core.stats import StatsTotals

if TYPE_CHECKING:
    from xybridd.core.capabilities import DeviceState

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


class ModelMinute(msgspec.Struct):
    """One model at one version: ``calls`` with their latencies, by condition too, and errors laid at its door.

    ``latency``, ``stats`` and ``conditions`` are the MessagePack of `Histogram`, `StatsTotals` and `Conditions`.
    """

    model_id: str
    version: str
    calls: int
    errors: int
    latency: bytes
    stats: bytes = b""
    conditions: bytes = b""
    cancelled: int = 0

    def merge(self, other: ModelMinute) -> None:
        latency, stats = Histogram.from_bytes(self.latency), StatsTotals.from_bytes(self.stats)
        conditions = Conditions.from_bytes(self.conditions)
        latency.merge(Histogram.from_bytes(other.latency))
        stats.merge(StatsTotals.from_bytes(other.stats))
        conditions.merge(Conditions.from_bytes(other.conditions))
        self.calls += other.calls
        self.errors += other.errors
        self.cancelled += other.cancelled
        self.latency, self.stats, self.conditions = latency.to_bytes(), stats.to_bytes(), conditions.to_bytes()


class ErrorMinute(msgspec.Struct):
    """``model_id`` is the one that the first error of that text named, as in the reference's summary."""

    category: str
    model_id: str | None
    count: int


class Minute(msgspec.Struct):
    """``started_at_ms`` to ``ended_at_ms``, UTC milliseconds: when it truly began and ended; an hour's are its ends."""

    session_id: str
    started_at_ms: int
    ended_at_ms: int
    models: list[ModelMinute] = []
    errors: list[ErrorMinute] = []

    @property
    def calls(self) -> int:
        return sum(model.calls for model in self.models)

    @property
    def error_count(self) -> int:
        return sum(error.count for error in self.errors)

    def merge(self, other: Minute) -> None:
        """Another minute of the same session, added to this one."""
        self.started_at_ms = min(self.started_at_ms, other.started_at_ms)
        self.ended_at_ms = max(self.ended_at_ms, other.ended_at_ms)
        models = {(model.model_id, model.version): model for model in self.models}
        for model in other.models:
            if (mine := models.get((model.model_id, model.version))) is not None:
                mine.merge(model)
            else:
                self.models.append(msgspec.structs.replace(model))
        errors = {(error.category, error.model_id): error for error in self.errors}
        for error in other.errors:
            if (same := errors.get((error.category, error.model_id))) is not None:
                same.count += error.count
            else:
                self.errors.append(msgspec.structs.replace(error))


class AppMinute(NamedTuple):
    """A minute and whose it is. ``open``: it still goes on, so that more may come into it."""

    app: str
    app_version: str
    minute: Minute
    open: bool = False


class MinuteFilter(msgspec.Struct, frozen=True):
    """Which minutes: those that began from ``since_ms`` to before ``until_ms``; ``uid`` None means everybody's.

    ``after``: the beginning and the row of the last one read before; a page begins behind it.
    """

    uid: int | None = None
    app: str | None = None
    session_id: str | None = None
    since_ms: int = 0
    until_ms: int = 2**53
    after: tuple[int, int] = (-1, 0)
    limit: int = 200


def minute_from(body: bytes) -> Minute:
    """Raises ValueError when it, or what is packed in it, cannot be read."""
    try:
        minute = _minute.decode(body)
        for model in minute.models:
            Histogram.from_bytes(model.latency)
            StatsTotals.from_bytes(model.stats)
            Conditions.from_bytes(model.conditions)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise ValueError(f"no minute: {error}") from error
    return minute


_minute = msgspec.msgpack.Decoder(Minute)


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """The device at one moment. What nobody could tell is None; percentages are 0 to 100, powers watts.

    ``gpus`` and ``npus``: of each its ``name`` and those of `FIGURES` that are known.
    """

    at_ms: int
    mono_ms: int
    boot_id: str
    thermal_state: str | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    power_source: str | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    battery_w: float | None = None
    cpu_percent: float | None = None
    memory_available_bytes: int | None = None
    gpus: list[dict[str, Any]] = []
    npus: list[dict[str, Any]] = []


FIGURES = (
    "utilization_percent", "memory_used_bytes", "memory_total_bytes", "temperature_c", "power_w", "throttled",
)  # fmt: skip


def sample_of(state: DeviceState, at_ms: int, mono_ms: int, boot_id: str) -> Sample:
    """What is kept of the readings of one moment."""

    def value(name: str) -> Any:
        reading = state.readings.get(name)
        return None if reading is None else reading.value

    def listed(name: str) -> list[dict[str, Any]]:
        return [
            {key: each[key] for key in ("name", *FIGURES) if each.get(key) is not None} for each in value(name) or []
        ]

    heat, battery, memory = value("thermal") or {}, value("battery") or {}, value("memory") or {}
    thermal, source = value("thermal_state"), value("power_source")
    flows = [each["power_w"] for each in battery.get("batteries", ()) if each.get("power_w") is not None]
    return Sample(
        at_ms=at_ms,
        mono_ms=mono_ms,
        boot_id=boot_id,
        thermal_state=None if thermal is None else str(thermal).lower(),
        temperature_c=heat.get("max_c"),
        throttled=bool(heat["throttling"]) if "throttling" in heat else None,
        power_source=source,
        battery_percent=battery.get("level_percent"),
        charging=battery.get("charging"),
        battery_w=round(sum(flows), 3) if flows else None,
        cpu_percent=value("cpu_usage_percent"),
        memory_available_bytes=memory.get("available_bytes"),
        gpus=listed("gpu"),
        npus=listed("npu"),
    )
