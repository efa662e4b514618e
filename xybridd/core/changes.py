"""What a commit writes, as values.

The aggregates go on changing while the database thread writes; so it is handed these, never the live objects.
One `ModelImage` or `ErrorImage` is one row, whole: writing it again changes nothing, so a commit that failed half
way can simply be written again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xybridd.core.capabilities import HardwareCapabilities
from xybridd.core.delivery import Item, SinkName
from xybridd.core.minute import Minute, Sample
from xybridd.core.timeline import Correction, Stretch


class SessionHead(msgspec.Struct):
    """What a session is, without what was counted in it.

    Times named ``_at_ms`` are UTC milliseconds since 1970; ``started_mono_ms`` is the monotonic clock of the boot
    ``boot_id``. ``client_id`` is the producer it is bound to, if it is bound to one. ``revision`` is the number of
    the export that was made of it last, 0 before the first. ``transitions``: when heat or power changed while it ran.
    """

    session_id: str
    device_id: str
    uid: int
    app: str
    started_at_ms: int
    started_mono_ms: int
    boot_id: str
    app_version: str = ""
    sdk_version: str = ""
    client_id: str | None = None
    implicit: bool = False
    ended_at_ms: int | None = None
    end_reason: str | None = None
    successor: str | None = None
    revision: int = 0
    labels: dict[str, str] = {}
    models_used: list[str] = []
    hardware: HardwareCapabilities | None = None
    details: dict[str, Any] = {}
    transitions: list[dict[str, Any]] = []
    #: How many of the processes that shared it ended in order, and how many disappeared.
    processes: dict[str, int] = {}
    #: Calls that had started and not ended when their process disappeared.
    calls_in_progress: list[dict[str, Any]] = []


class ModelImage(msgspec.Struct, frozen=True):
    session_id: str
    position: int
    model_id: str
    version: str
    call_count: int
    total_latency_ms: int
    error_count: int
    last_called_ms: int
    touched: int
    latency: bytes
    stats: bytes
    conditions: bytes = b""
    cancelled: int = 0


class ErrorImage(msgspec.Struct, frozen=True):
    session_id: str
    position: int
    category: str
    message: str
    count: int
    first_seen_ms: int
    last_seen_ms: int
    model_id: str | None


class ProducerImage(msgspec.Struct, frozen=True):
    uid: int
    client_id: str
    app: str
    last_seq: int
    heard_at_ms: int
    #: Of a ring: its session and its holes, in MessagePack.
    ring: bytes = b""


class ClockImage(msgspec.Struct, frozen=True):
    """What the wall clock did in this boot, and the corrections that follow from it, to be made in the rows on disk.

    ``now_ms``: on a clock that is right, None while there is none. ``ledger``: as exports carry it.
    """

    boot_id: str
    stretches: list[Stretch]
    corrections: list[Correction]
    now_ms: int | None
    ledger: dict[str, Any] = {}


class Changes(msgspec.Struct):
    """Everything that one transaction writes."""

    heads: list[SessionHead] = []
    models: list[ModelImage] = []
    errors: list[ErrorImage] = []
    producers: list[ProducerImage] = []
    ledger: dict[str, int] = {}
    deleted_sessions: list[str] = []
    forgotten_sessions: list[str] = []
    minutes: list[Minute] = []
    samples: list[Sample] = []
    #: To be queued for those of these sinks that take them; minutes and samples likewise.
    exports: list[Item] = []
    sinks: tuple[SinkName, ...] = ()
    clock: ClockImage | None = None
