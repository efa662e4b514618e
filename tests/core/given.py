"""Sessions and records to start from, and hypothesis strategies for them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from xybridd.core.changes import SessionHead
from xybridd.core.export import session_metrics
from xybridd.core.session import Session, SessionLimits
from xybridd.protocol.records import ErrorRecord, InferenceRecord, InferenceStats, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_MS = 1_700_000_000_000


def head(session_id: str = "s", **more: Any) -> SessionHead:
    return SessionHead(
        **{
            "session_id": session_id,
            "device_id": "d",
            "uid": 1000,
            "app": "app",
            "started_at_ms": NOW_MS,
            "started_mono_ms": 0,
            "boot_id": "boot",
            **more,
        }
    )


def session(*records: Record, limits: SessionLimits | None = None, **more: Any) -> Session:
    made = Session(head(**more), limits or SessionLimits())
    if records:
        made.apply(records, NOW_MS)
    return made


def call(model_id: str = "m", version: str = "1", latency_ms: float = 10, **more: Any) -> InferenceRecord:
    return InferenceRecord(model_id, version, latency_ms, **more)


def error(message: str = "boom", model_id: str | None = None, version: str | None = None, **more: Any) -> ErrorRecord:
    return ErrorRecord(message, model_id, version, **more)


def shown(of: Session) -> dict[str, Any]:
    """What a reader sees of a session, as plain values."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(session_metrics(of, {})))
    return plain


def chunks(items: Sequence[Record], cuts: Sequence[int]) -> list[Sequence[Record]]:
    """The items, cut at these places."""
    places = sorted({0, len(items), *(cut % (len(items) + 1) for cut in cuts)})
    return [items[start:end] for start, end in pairwise(places)]


# Few names, so that they meet again, and some whose joined spelling is the same: "a@b" at "c" and "a" at "b@c".
model_ids = st.sampled_from(["a", "b", "a@b", "other", "ünï"])
versions = st.sampled_from(["", "1", "c", "b@c"])
latencies = st.one_of(
    st.integers(0, 2**40).map(float),
    st.floats(0, 1e6),
    st.sampled_from([0.0, 0.5, 0.49999999999999994, 2.0**53, 2.0**-20, 1e-9]),
)
timestamps = st.none() | st.integers(0, 2**53)
rates = st.none() | st.integers(0, 2**20).map(float)
amounts = st.none() | st.integers(0, 2**40)

stats = st.builds(
    InferenceStats,
    tokens_per_second=rates,
    samples_per_second=rates,
    memory_peak_mb=amounts,
    execution_target=st.sampled_from([None, "local", "cloud", "fallback"]),
    hardware_used=st.sampled_from([None, "cpu", "gpu", "npu"]),
    input_tokens=amounts,
    output_tokens=amounts,
    time_to_first_token_ms=st.none() | latencies,
)
calls = st.builds(InferenceRecord, model_ids, versions, latencies, timestamps, st.none() | stats)
errors = st.builds(
    ErrorRecord,
    st.sampled_from(["boom", "load", "x", "other", "ada@example.org gone", "bob@example.org gone"]),
    st.none() | model_ids,
    st.none() | versions,
    st.sampled_from([None, "Memory", "network"]),
    timestamps,
)
records = st.lists(st.one_of(calls, errors), max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=5)
