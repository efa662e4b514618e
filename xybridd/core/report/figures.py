"""The report as values: a tree of structs, printed as JSON as it is.

Times are UTC milliseconds since 1970, latencies milliseconds, rates percentages from 0 to 100. None means that nobody
can tell, and is never a zero in disguise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from xybridd.core.histogram import Histogram

#: Of this tree; it grows when a name changes its meaning.
FORMAT = 1


class Latency(msgspec.Struct, frozen=True):
    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def latency_of(values: Histogram) -> Latency | None:
    """None when there are no values."""
    if not values.count:
        return None
    middle, high, highest = (round(values.quantile(share), 4) for share in (0.5, 0.9, 0.99))
    return Latency(values.count, round(values.sum / values.count, 4), middle, high, highest, round(values.max, 4))


class ConditionFigures(msgspec.Struct, frozen=True):
    """The calls of one model in one state of one dimension.

    ``enough``: whether there are so many of them that their median says something. ``factor``: their median as a
    multiple of the one they are compared with; ``factor_alike`` the same among calls alike in the two other dimensions.
    """

    value: str
    calls: int
    latency: Latency
    enough: bool
    factor: float | None
    factor_alike: float | None
    words: str


class DimensionFigures(msgspec.Struct, frozen=True):
    """``dimension``: thermal_state, power_source or hardware_used. ``compared_with``: the state that is 1.0."""

    dimension: str
    compared_with: str | None
    states: list[ConditionFigures]


class ModelStep(msgspec.Struct, frozen=True):
    """One model in one step of time."""

    at_ms: int
    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


class ModelFigures(msgspec.Struct, frozen=True):
    """``hardware_used`` and ``execution_target``: how many calls said so; the rest said nothing.

    ``cancelled``: calls that their caller gave up, neither finished nor failed.
    """

    model_id: str
    version: str
    calls: int
    errors: int
    error_percent: float | None
    latency: Latency | None
    time_to_first_token: Latency | None
    tokens_per_second: float | None
    input_tokens: int | None
    output_tokens: int | None
    memory_peak_mb: int | None
    hardware_used: dict[str, int]
    execution_target: dict[str, int]
    dimensions: list[DimensionFigures]
    over_time: list[ModelStep]
    cancelled: int = 0

    @property
    def name(self) -> str:
        return f"{self.model_id} {self.version}".rstrip()


class Finding(msgspec.Struct, frozen=True):
    """What stands out most in one dimension, in a sentence."""

    dimension: str
    model_id: str
    version: str
    value: str
    factor: float
    words: str


class Step(msgspec.Struct, frozen=True):
    at_ms: int
    calls: int
    errors: int
    input_tokens: int
    output_tokens: int


class CategoryFigures(msgspec.Struct, frozen=True):
    """Errors of one category; ``models`` by the model that each named first, ``""`` where none was named."""

    category: str
    count: int
    models: dict[str, int]


class AppFigures(msgspec.Struct, frozen=True):
    app: str
    calls: int
    errors: int


class DeviceStep(msgspec.Struct, frozen=True):
    """The samples of one step of time: the worst of heat, the last of power, the mean of the rest.

    ``throttled``: how many of the ``samples`` said that something was throttled; None when none could tell.
    """

    at_ms: int
    samples: int
    thermal_state: str | None
    temperature_c: float | None
    throttled: int | None
    power_source: str | None
    battery_percent: float | None
    cpu_percent: float | None
    gpu_percent: float | None
    power_w: float | None


class EnergyFigures(msgspec.Struct, frozen=True):
    """``what`` was integrated over ``covered_s`` seconds; ``how`` says from what."""

    what: str
    watt_hours: float
    mean_w: float
    covered_s: float
    how: str


class DeviceFigures(msgspec.Struct, frozen=True):
    """What the machine is. ``history`` has one entry for each step in which there are samples."""

    device_id: str
    platform: str | None
    machine: str | None
    cpu_cores: int | None
    memory_total_bytes: int | None
    gpus: list[str]
    npus: list[str]
    samples: int
    throttled_samples: int | None
    history: list[DeviceStep]
    energy: list[EnergyFigures]


class CallInProgress(msgspec.Struct, frozen=True):
    """A call that had started when its process disappeared. ``running_ms``: how long it had been running."""

    model_id: str
    version: str
    running_ms: int


class InterruptedCall(msgspec.Struct, frozen=True):
    """A call in progress of one session. ``ended_at``: when that session ended; None while it continues."""

    model_id: str
    version: str
    app: str
    session_id: str
    ended_at: int | None
    running_ms: int


class SessionFigures(msgspec.Struct, frozen=True):
    """A line of `session.list`."""

    session_id: str
    app: str
    started_at: int
    ended_at: int | None
    end_reason: str | None
    total_inferences: int
    avg_latency_ms: int
    error_count: int
    models_used: list[str]
    processes: dict[str, int] = {}
    calls_in_progress: list[CallInProgress] = []


class Totals(msgspec.Struct, frozen=True):
    """``sessions`` are those that were open at any time of the report; ``lost`` those whose app vanished.

    ``crash_free_percent`` is of those that ended: what goes on has no verdict yet.
    """

    sessions: int
    active: int
    lost: int
    crash_free_percent: float | None
    calls: int
    errors: int
    error_percent: float | None
    latency: Latency | None
    input_tokens: int | None
    output_tokens: int | None
    models: int
    end_reasons: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """``step_ms`` is the length of a step of time; steps begin at whole ones of the reader's clock."""

    format: int
    made_at_ms: int
    since_ms: int
    until_ms: int
    utc_offset_ms: int
    step_ms: int
    app: str | None
    daemon_version: str
    daemon_state: str
    device: DeviceFigures
    totals: Totals
    findings: list[Finding]
    apps: list[AppFigures]
    models: list[ModelFigures]
    models_left_out: int
    calls_left_out: int
    over_time: list[Step]
    errors: list[CategoryFigures]
    sessions: list[SessionFigures]
    sessions_left_out: int
    ledger: dict[str, object]
    enough_calls: int
    interrupted_calls: list[InterruptedCall]
    interrupted_left_out: int

    @property
    def empty(self) -> bool:
        return not (self.totals.sessions or self.totals.calls or self.totals.errors)
