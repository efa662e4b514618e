"""What a producer says of one inference or one error.

Lengths, ranges and spellings are checked while decoding, by these types alone: behind this gate a record is sound.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

#: 2**53: the largest number up to which every integer has a float of its own.
LARGEST_EXACT = 2**53

ModelId = Annotated[str, Meta(min_length=1, max_length=256)]
ModelVersion = Annotated[str, Meta(max_length=128)]
Milliseconds = Annotated[float, Meta(ge=0, le=LARGEST_EXACT)]
TimestampMs = Annotated[int, Meta(ge=0, le=LARGEST_EXACT)]
_Rate = Annotated[float, Meta(ge=0, le=LARGEST_EXACT)]
_Amount = Annotated[int, Meta(ge=0, le=LARGEST_EXACT)]

CategoryName = Literal[
    "ModelLoading", "Preprocessing", "Inference", "Postprocessing", "Network", "Hardware", "Memory", "Unknown",
    "model_loading", "preprocessing", "inference", "postprocessing", "network", "hardware", "memory", "unknown",
]  # fmt: skip


class InferenceStats(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One inference's own figures; every one may be missing. The first five are the reference's."""

    tokens_per_second: _Rate | None = None
    samples_per_second: _Rate | None = None
    memory_peak_mb: _Amount | None = None
    execution_target: Literal["local", "cloud", "fallback"] | None = None
    hardware_used: Literal["cpu", "gpu", "npu"] | None = None
    input_tokens: _Amount | None = None
    output_tokens: _Amount | None = None
    time_to_first_token_ms: Milliseconds | None = None


class InferenceRecord(msgspec.Struct, tag="inference", tag_field="type", frozen=True, gc=False, omit_defaults=True):
    """A finished inference. ``latency_ms`` may have a fraction; ``timestamp_ms`` is the producer's wall clock."""

    model_id: ModelId
    version: ModelVersion
    latency_ms: Milliseconds
    timestamp_ms: TimestampMs | None = None
    stats: InferenceStats | None = None


class ErrorRecord(msgspec.Struct, tag="error", tag_field="type", frozen=True, gc=False, omit_defaults=True):
    """Something that went wrong; without a category the words of the message decide it."""

    error: str
    model_id: ModelId | None = None
    version: ModelVersion | None = None
    category: CategoryName | None = None
    timestamp_ms: TimestampMs | None = None


class CancelledRecord(msgspec.Struct, tag="cancelled", tag_field="type", frozen=True, gc=False, omit_defaults=True):
    """An inference that its caller gave up: neither finished nor failed. ``latency_ms``: how long it had run."""

    model_id: ModelId
    version: ModelVersion
    latency_ms: Milliseconds
    timestamp_ms: TimestampMs | None = None


Record = InferenceRecord | ErrorRecord | CancelledRecord
