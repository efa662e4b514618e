from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xybridd.errors import FrameTooLong, InvalidParams, Overloaded, ParseError, WireError
from xybridd.protocol.framing import (
    NULL_ID,
    BadLine,
    LineSplitter,
    decode_params,
    encode_error,
    encode_request,
    encode_result,
    parse_request,
)
from xybridd.protocol.messages import Answer, HelloParams, RecordBatchParams, RecordInferenceParams

LIMIT = 8


def fed(parts: list[bytes], limit: int) -> tuple[list[bytes], bool]:
    """The lines that come out until the stream is ended, and whether it was."""
    splitter, lines = LineSplitter(limit), list[bytes]()
    for part in parts:
        found, error = splitter.feed(part)
        lines += found
        if error is not None:
            return lines, True
    return lines, False


@given(st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"a", b"\n"))))
@example([b"x", b"", b"\n", b"\n\n", b"yz", b"\nq"])
def test_cutting_the_stream_anywhere_gives_the_same_lines(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    splitter, lines = LineSplitter(10_000), list[bytes]()
    for part in parts:
        lines += splitter.feed(part)[0]
    *expected, rest = whole.split(b"\n")
    assert lines == expected
    assert splitter.held_bytes == len(rest)


@given(st.lists(st.text("xy\n", max_size=12).map(str.encode)))
def test_where_a_stream_is_ended_does_not_hang_on_the_cuts(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    *complete, rest = whole.split(b"\n")
    until_too_long: list[bytes] = []
    for line in complete:
        if len(line) > LIMIT:
            break
        until_too_long.append(line)
    ended = len(until_too_long) < len(complete) or len(rest) > LIMIT
    assert fed(parts, LIMIT) == (until_too_long, ended)


@pytest.mark.parametrize("cut", [0, 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize(("length", "ended"), [(LIMIT - 1, False), (LIMIT, False), (LIMIT + 1, True)])
def test_the_limit_does_not_count_the_newline(length: int, ended: bool, cut: int) -> None:
    stream = b"a\n" + b"x" * length + b"\n"
    lines, was_ended = fed([stream[: 2 + cut], stream[2 + cut :]], LIMIT)
    assert was_ended == ended
    assert lines == [b"a"] + ([] if ended else [b"x" * length])


def test_a_line_without_end_is_refused_before_it_is_kept() -> None:
    splitter = LineSplitter(LIMIT)
    assert splitter.feed(b"x" * LIMIT) == ([], None)
    lines, error = splitter.feed(b"x")
    assert lines == []
    assert isinstance(error, FrameTooLong)
    assert error.data == {"max_frame_bytes": LIMIT}
    assert "limits.max_frame_bytes" in error.message


# Requests


def bad(line: bytes) -> BadLine:
    with pytest.raises(BadLine) as caught:
        parse_request(line)
    return caught.value


BAD_LINES: list[tuple[bytes, bytes, int]] = [
    (b"", NULL_ID, -32700),
    (b"nonsense", NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m"', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m"} x', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":NaN}}', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","ignored":NaN}', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","ignored":"\xff"}', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xc3"}}', NULL_ID, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}", NULL_ID, -32700),
    (b'{"ignored":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", NULL_ID, -32700),
    (b"[]", NULL_ID, -32600),
    (b'[{"jsonrpc":"2.0","id":1,"method":"m"}]', NULL_ID, -32600),
    (b"1", NULL_ID, -32600),
    (b'"text"', NULL_ID, -32600),
    (b"null", NULL_ID, -32600),
    (b"{}", NULL_ID, -32600),
    (b'{"jsonrpc":"2.0","id":7}', b"7", -32600),
    (b'{"jsonrpc":"2.0","id":7,"method":5}', b"7", -32600),
    (b'{"jsonrpc":"2.0","id":"x","method":null}', b'"x"', -32600),
    (b'{"id":7,"method":"m"}', b"7", -32600),
    (b'{"jsonrpc":"1.0","id":7,"method":"m"}', b"7", -32600),
    (b'{"jsonrpc":2.0,"id":7,"method":"m"}', b"7", -32600),
    (b'{"jsonrpc":"2.0","id":{},"method":"m"}', NULL_ID, -32600),
    (b'{"jsonrpc":"2.0","id":[1],"method":"m"}', NULL_ID, -32600),
    (b'{"jsonrpc":"2.0","id":true,"method":"m"}', NULL_ID, -32600),
    (b'{"jsonrpc":"2.0","id":{},"method":5}', NULL_ID, -32600),
]


@pytest.mark.parametrize(("line", "request_id", "code"), BAD_LINES, ids=lambda value: repr(value)[:60])
def test_a_line_that_is_no_request(line: bytes, request_id: bytes, code: int) -> None:
    found = bad(line)
    assert (found.request_id, found.error.rpc_code) == (request_id, code)
    json.loads(encode_error(found.request_id, found.error))


@pytest.mark.parametrize(
    "request_id",
    [
        b"1",
        b"0",
        b"-7",
        b"1.50",
        b"1e3",
        b"null",
        b'""',
        b'"a\\u00e9"',
        '"é"'.encode(),
        b"123456789012345678901234567890",
        b"0.1234567890123456789012345",
    ],
)
def test_an_id_goes_back_as_it_came(request_id: bytes) -> None:
    request = parse_request(b'{"jsonrpc":"2.0","id": %b ,"method":"m"}' % request_id)
    assert request.request_id == request_id
    assert encode_result(request_id, {}).startswith(b'{"jsonrpc":"2.0","id":%b,' % request_id)


def test_without_an_id_it_is_a_notification() -> None:
    assert parse_request(b'{"jsonrpc":"2.0","method":"m","params":{"a":1}}').request_id is None


@pytest.mark.parametrize("keys", [["jsonrpc", "id", "method", "params"], ["params", "method", "id", "jsonrpc"]])
def test_keys_come_in_any_order_and_unknown_ones_are_ignored(keys: list[str]) -> None:
    values: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"a": [1]}}
    line = json.dumps({"before": [{}], **{key: values[key] for key in keys}, "after": None}).encode()
    request = parse_request(line)
    assert (request.method, request.request_id) == ("m", b"1")
    assert json.loads(bytes(request.params)) == {"a": [1]}


def test_params_may_be_left_out() -> None:
    assert bytes(parse_request(b'{"jsonrpc":"2.0","id":1,"method":"m"}').params) == b"{}"


# Params

_ONE = {"type": "inference", "model_id": "m", "version": "1", "latency_ms": 1}
_CLIENT = "0b2f6c2e-52f8-4d6a-9d4e-0d1f3f0f9c11"


def batch(**changed: Any) -> bytes:
    """A batch of four records, the last of them changed."""
    return json.dumps({"seq": 1, "records": [_ONE, _ONE, _ONE, {**_ONE, **changed}]}).encode()


BAD_PARAMS: list[tuple[Any, bytes, str, str]] = [
    (RecordBatchParams, batch(latency_ms="x"), "$.params.records[3].latency_ms", "expected `float`, got `str`"),
    (RecordBatchParams, batch(latency_ms=-1), "$.params.records[3].latency_ms", "expected `float` >= 0.0"),
    (RecordBatchParams, batch(latency_ms=None), "$.params.records[3].latency_ms", "expected `float`, got `null`"),
    (RecordBatchParams, batch(latency_ms=2**53 + 2), "$.params.records[3].latency_ms", "expected `float` <= 9007"),
    (RecordBatchParams, batch(latency_ms=2**64), "$.params.records[3].latency_ms", "expected `float` <= 9007"),
    (RecordBatchParams, batch(latency_ms=10**400), "$.params.records[3].latency_ms", ""),
    (RecordBatchParams, batch(model_id=""), "$.params.records[3].model_id", "expected `str` of length >= 1"),
    (RecordBatchParams, batch(model_id="m" * 257), "$.params.records[3].model_id", "expected `str` of length <= 256"),
    (RecordBatchParams, batch(version="v" * 129), "$.params.records[3].version", "expected `str` of length <= 128"),
    (RecordBatchParams, batch(timestamp_ms=1.5), "$.params.records[3].timestamp_ms", "expected `int"),
    (RecordBatchParams, batch(timestamp_ms=2**70), "$.params.records[3].timestamp_ms", ""),
    (RecordBatchParams, batch(type="inferred"), "$.params.records[3].type", "invalid value: none of those"),
    (RecordBatchParams, batch(stats={"hardware_used": "tpu"}), "$.params.records[3].stats.hardware_used", "invalid"),
    (RecordBatchParams, batch(stats={"input_tokens": -1}), "$.params.records[3].stats.input_tokens", "expected `int`"),
    (RecordBatchParams, batch(type="error"), "$.params.records[3].error", "required, but missing"),
    (RecordBatchParams, batch(type="error", error="x", category="Odd"), "$.params.records[3].category", "invalid"),
    (RecordBatchParams, b'{"seq":1}', "$.params.records", "required, but missing"),
    (RecordBatchParams, b'{"seq":0,"records":[]}', "$.params.seq", "expected `int` >= 1"),
    (RecordBatchParams, b'{"seq":9223372036854775808,"records":[]}', "$.params.seq", ""),
    (RecordBatchParams, b'{"seq":99999999999999999999999,"records":[]}', "$.params.seq", ""),
    (RecordBatchParams, b'{"seq":true,"records":[]}', "$.params.seq", "expected `int`, got `bool`"),
    (RecordBatchParams, b"[]", "$.params", "expected `object`, got `array`"),
    (RecordBatchParams, b"null", "$.params", "expected `object`, got `null`"),
    (RecordInferenceParams, b'{"version":"1","latency_ms":1}', "$.params.model_id", "required, but missing"),
    (HelloParams, b'{"app":"a","client_id":"no"}', "$.params.client_id", "invalid UUID"),
    (HelloParams, json.dumps({"app": "", "client_id": _CLIENT}).encode(), "$.params.app", "expected `str` of length"),
]


@pytest.mark.parametrize(("kind", "params", "path", "expected"), BAD_PARAMS, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named_by_its_path(kind: Any, params: bytes, path: str, expected: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        decode_params(msgspec.json.Decoder(kind), msgspec.Raw(params))
    assert caught.value.data["path"] == path
    assert caught.value.message.startswith(f"{path}: {expected}")
    assert len(caught.value.message) > len(path) + 2


@pytest.mark.parametrize("latency", [b"1e400", b"-1e400"])
def test_a_number_past_all_floats_is_refused(latency: bytes) -> None:
    params = b'{"model_id":"m","version":"1","latency_ms":%b}' % latency
    with pytest.raises(WireError) as caught:
        decode_params(msgspec.json.Decoder(RecordInferenceParams), msgspec.Raw(params))
    assert isinstance(caught.value, InvalidParams), "valid JSON is no parse error"
    assert caught.value.data["path"] == "$.params.latency_ms"


def test_half_a_character_is_a_parse_error() -> None:
    params = b'{"model_id":"\\ud800x","version":"1","latency_ms":1}'
    with pytest.raises(ParseError, match=r"\$\.params"):
        decode_params(msgspec.json.Decoder(RecordInferenceParams), msgspec.Raw(params))


@pytest.mark.parametrize("latency", [b"0", b"-0.0", b"0.5", b"9007199254740992", b"1e3"])
def test_a_latency_in_range_is_taken(latency: bytes) -> None:
    params = b'{"model_id":"m","version":"","latency_ms":%b,"newer":{"a":[1]}}' % latency
    decoded = decode_params(msgspec.json.Decoder(RecordInferenceParams), msgspec.Raw(params))
    assert decoded.latency_ms == float(latency)


def test_unknown_keys_are_ignored_everywhere() -> None:
    params = batch(stats={"hardware_used": "gpu", "newer": 1}, newer=[1])
    decoded = decode_params(msgspec.json.Decoder(RecordBatchParams), msgspec.Raw(params))
    assert len(decoded.records) == 4


# Answers


def test_an_error_carries_its_code_and_its_data() -> None:
    line = encode_error(b'"x"', Overloaded("wait", retry_after_ms=250))
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {"code": -32004, "message": "wait", "data": {"code": "overloaded", "retry_after_ms": 250}},
    }


@given(st.text(), st.none() | st.integers(0, 2**53))
def test_what_one_side_writes_the_other_reads(text: str, request_id: int | None) -> None:
    params = json.dumps({"text": text}).encode()
    line = encode_request(request_id, "record.error", params)
    assert line.count(b"\n") == 1
    request = parse_request(line.rstrip(b"\n"))
    assert request.method == "record.error"
    assert request.request_id == (None if request_id is None else str(request_id).encode())
    assert json.loads(bytes(request.params)) == {"text": text}


@given(st.text())
def test_a_result_is_one_line_that_a_client_reads(text: str) -> None:
    line = encode_result(b"7", {"text": text})
    assert line.count(b"\n") == 1
    answer = msgspec.json.decode(line, type=Answer)
    assert answer.id == 7
    assert json.loads(bytes(answer.result)) == {"text": text}
