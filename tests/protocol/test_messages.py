from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from tests.core import given as some
from xybridd.protocol import messages
from xybridd.protocol.messages import LARGEST_SEQ, RecordBatchParams
from xybridd.protocol.records import ErrorRecord, InferenceRecord, Record

_PARAMS = [
    kind
    for name, kind in vars(messages).items()
    if name.endswith("Params") and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
]


@pytest.mark.parametrize("kind", _PARAMS, ids=lambda kind: kind.__name__)
def test_an_older_daemon_takes_a_newer_client(kind: type[msgspec.Struct]) -> None:
    assert not kind.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("kind", "given_params", "filled"),
    [
        (messages.SessionStartParams, {}, {"session_id": None, "started_at_ms": None, "labels": {}}),
        (messages.SessionParams, {}, {"session_id": None}),
        (
            messages.SessionListParams,
            {},
            {"active": None, "app": None, "since_ms": None, "until_ms": None, "limit": 100},
        ),
        (
            messages.RecordErrorParams,
            {"error": "x"},
            {
                "error": "x",
                "model_id": None,
                "version": None,
                "category": None,
                "timestamp_ms": None,
                "session_id": None,
            },
        ),
    ],
)
def test_what_may_be_left_out(kind: type[msgspec.Struct], given_params: Any, filled: Any) -> None:
    decoded = msgspec.json.decode(json.dumps(given_params), type=kind)
    assert msgspec.to_builtins(decoded) == filled


def test_a_batch_is_not_flushed_unless_it_says_so() -> None:
    decoded = msgspec.json.decode(f'{{"seq":{LARGEST_SEQ},"records":[]}}', type=RecordBatchParams)
    assert (decoded.seq, decoded.flush, decoded.dropped, decoded.session_id) == (LARGEST_SEQ, False, 0, None)


@given(some.records)
def test_records_are_the_same_on_the_other_side(records: list[Record]) -> None:
    batch = RecordBatchParams(1, records)
    assert msgspec.json.decode(msgspec.json.encode(batch), type=RecordBatchParams) == batch


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            InferenceRecord("m", "1", 2.5),
            '{"type":"inference","model_id":"m","version":"1","latency_ms":2.5}',
        ),
        (ErrorRecord("x"), '{"type":"error","error":"x"}'),
    ],
)
def test_what_nobody_gave_is_not_written(record: Record, line: str) -> None:
    assert msgspec.json.encode(record).decode() == line
