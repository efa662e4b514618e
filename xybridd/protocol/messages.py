"""The params of every method, one struct each, and the results that have a shape of their own.

Unknown keys are ignored: an older daemon must take a newer client. Results that are a session, an export or the
device's capabilities are defined where they are made, in `xybridd.core`.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from xybridd.protocol.records import (
    CategoryName,
    InferenceStats,
    Milliseconds,
    ModelId,
    ModelVersion,
    Record,
    TimestampMs,
)

PROTOCOL_VERSION = 1

#: What SQLite holds in an integer.
LARGEST_SEQ = 2**63 - 1

_Seq = Annotated[int, Meta(ge=1, le=LARGEST_SEQ)]
_AppName = Annotated[str, Meta(min_length=1, max_length=128)]
_Release = Annotated[str, Meta(max_length=128)]
_LabelKey = Annotated[str, Meta(min_length=1, max_length=128)]
_LabelValue = Annotated[str, Meta(max_length=1024)]
_Labels = Annotated[dict[_LabelKey, _LabelValue], Meta(max_length=64)]
_SessionName = Annotated[str, Meta(min_length=1, max_length=64)]


class NoParams(msgspec.Struct, frozen=True):
    pass


class HelloParams(msgspec.Struct, frozen=True):
    app: _AppName
    client_id: UUID
    app_version: _Release = ""
    sdk_version: _Release = ""
    session_id: _SessionName | None = None
    #: By the clock of which boot it tells times; default: this one.
    boot_id: Annotated[str, Meta(max_length=128)] = ""


class HelloResult(msgspec.Struct, frozen=True):
    protocol: int
    daemon_version: str
    device_id: str
    last_seq: int
    limits: dict[str, int]


class SessionStartParams(msgspec.Struct, frozen=True):
    session_id: UUID | None = None
    started_at_ms: TimestampMs | None = None
    labels: _Labels = {}


class SessionParams(msgspec.Struct, frozen=True):
    """For every method that takes a session and nothing else."""

    session_id: _SessionName | None = None


class SessionListParams(msgspec.Struct, frozen=True):
    active: bool | None = None
    app: _AppName | None = None
    since_ms: TimestampMs | None = None
    until_ms: TimestampMs | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class RecordInferenceParams(msgspec.Struct, frozen=True):
    model_id: ModelId
    version: ModelVersion
    latency_ms: Milliseconds
    timestamp_ms: TimestampMs | None = None
    stats: InferenceStats | None = None
    session_id: _SessionName | None = None


class RecordErrorParams(msgspec.Struct, frozen=True):
    error: str
    model_id: ModelId | None = None
    version: ModelVersion | None = None
    category: CategoryName | None = None
    timestamp_ms: TimestampMs | None = None
    session_id: _SessionName | None = None


class RecordBatchParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """``dropped`` is ours: how many records the producer had to drop since its last batch."""

    seq: _Seq
    records: list[Record]
    session_id: _SessionName | None = None
    flush: bool = False
    dropped: Annotated[int, Meta(ge=0, le=2**53)] = 0


class RingFlushParams(msgspec.Struct, frozen=True):
    """``seq``: the slot number up to which everything is to be on disk."""

    ring_id: UUID
    seq: Annotated[int, Meta(ge=0, le=LARGEST_SEQ)]


class RecordsWatchParams(msgspec.Struct, frozen=True):
    app: _AppName | None = None
    model_id: ModelId | None = None
    errors_only: bool = False


class DeviceAdviceParams(msgspec.Struct, frozen=True):
    model_size_mb: Annotated[float, Meta(ge=0, le=2**53)] | None = None
    safety_margin: Annotated[float, Meta(gt=0, le=1000)] = 1.5


class DeadLetterParams(msgspec.Struct, frozen=True):
    """Without an id: all of them."""

    export_id: Annotated[int, Meta(ge=1, le=LARGEST_SEQ)] | None = None


class ImportParams(msgspec.Struct, frozen=True):
    """Events as the file sink writes them, or bare exports."""

    exports: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=10_000)]


class ForgetParams(msgspec.Struct, frozen=True):
    session_id: _SessionName | None = None
    all: bool = False


class SamplesParams(msgspec.Struct, frozen=True):
    since_ms: TimestampMs = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class MinutesParams(msgspec.Struct, frozen=True):
    """``after`` is the `next` of the page before."""

    app: _AppName | None = None
    session_id: _SessionName | None = None
    since_ms: TimestampMs = 0
    until_ms: TimestampMs = 2**53
    after: tuple[TimestampMs, Annotated[int, Meta(ge=0, le=LARGEST_SEQ)]] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class SessionIdResult(msgspec.Struct, frozen=True):
    session_id: str


class RecordErrorResult(msgspec.Struct, frozen=True):
    session_id: str
    category: str


class BatchResult(msgspec.Struct, frozen=True):
    last_seq: int
    session_id: str | None


class Answer(msgspec.Struct, frozen=True):
    """A line that the daemon sent, as a client reads it."""

    id: int | str | float | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
