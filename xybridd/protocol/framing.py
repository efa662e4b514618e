r"""Bytes to lines, lines to requests, answers to lines. JSON-RPC 2.0, one UTF-8 JSON object a line, ``\n`` at its end.

What is wrong with a line, and what is said of it:

- longer than the limit: an error with ``id`` null, and the connection is closed after it;
- not UTF-8, not JSON, nested too deep: -32700 with ``id`` null, and the connection goes on;
- JSON but no request (an array, no method, an id that is an object): -32600, with the id if there is one.

An ``id`` is kept as the bytes it came in and goes back as it came: no number loses a digit. Without an ``id`` a
request is a notification, and nothing is ever said of it.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from xybridd.errors import FrameTooLong, InvalidParams, InvalidRequest, ParseError, WireError

T = TypeVar("T")

NULL_ID = b"null"

_encode = msgspec.json.encode


class LineSplitter:
    """Cuts a stream into lines; keeps what has no end yet, up to ``max_bytes`` (the newline not counted)."""

    __slots__ = ("_max_bytes", "_parts", "held_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self.held_bytes = 0

    def feed(self, data: bytes) -> tuple[list[bytes], FrameTooLong | None]:
        """The lines that are whole now, and the error that ends the stream, if it came to that."""
        *lines, rest = data.split(b"\n")
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts, self.held_bytes = [], 0
        if rest:
            self._parts.append(rest)
            self.held_bytes += len(rest)
        for number, line in enumerate(lines):
            if len(line) > self._max_bytes:
                return lines[:number], self._too_long()
        return lines, self._too_long() if self.held_bytes > self._max_bytes else None

    def _too_long(self) -> FrameTooLong:
        return FrameTooLong(
            f"a line is longer than limits.max_frame_bytes ({self._max_bytes} bytes); the connection is closed",
            max_frame_bytes=self._max_bytes,
        )


class Request(msgspec.Struct, frozen=True):
    """``request_id`` is JSON as it came, None for a notification; ``params`` is JSON not decoded yet."""

    method: str
    params: msgspec.Raw
    request_id: bytes | None


class _Envelope(msgspec.Struct):
    method: str
    jsonrpc: str
    id: msgspec.Raw = msgspec.Raw(b"")
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _AnyId(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"")


_envelope = msgspec.json.Decoder(_Envelope)
_any_id = msgspec.json.Decoder(_AnyId)


class BadLine(Exception):
    """What to answer to a line that is no request, and under which id."""

    def __init__(self, request_id: bytes, error: WireError) -> None:
        super().__init__(str(error))
        self.request_id = request_id
        self.error = error


def parse_request(line: bytes) -> Request:
    """Raises BadLine."""
    try:
        line.decode()  # what is skipped while decoding JSON is not looked at, so it is looked at here
        envelope = _envelope.decode(line)
    except msgspec.ValidationError as error:
        _require_json(line)  # a wrong type is noticed before the end of the line was looked at
        raise BadLine(_id_of(line), InvalidRequest(f"not a JSON-RPC 2.0 request: {_sentence(error, '$')}")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error) from error
    request_id = bytes(envelope.id).strip() or None
    if request_id is not None and not _is_id(request_id):
        raise BadLine(NULL_ID, InvalidRequest("$.id: expected a string, a number or null"))
    if envelope.jsonrpc != "2.0":
        raise BadLine(request_id or NULL_ID, InvalidRequest('$.jsonrpc: expected "2.0"'))
    return Request(envelope.method, envelope.params, request_id)


def _require_json(line: bytes) -> None:
    try:
        msgspec.json.decode(line)
    except msgspec.ValidationError:
        return  # a number that is too large for a float is still JSON
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error) from error


def _no_json(error: Exception) -> BadLine:
    return BadLine(NULL_ID, ParseError(f"the line is not JSON: {error}"))


def _is_id(raw: bytes) -> bool:
    return raw == NULL_ID or raw[:1] in b'"-0123456789'


def _id_of(line: bytes) -> bytes:
    try:
        request_id = bytes(_any_id.decode(line).id).strip()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NULL_ID
    return request_id if request_id and _is_id(request_id) else NULL_ID


_AT = re.compile(r" - at `(\$[^`]*)`$")
_ECHOED = re.compile(r"(Invalid (?:enum )?value) '.*'", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `([^`]+)`$")


def _place(error: msgspec.ValidationError, base: str) -> tuple[str, str]:
    """The path that msgspec names, under `base`, and what it expected there."""
    text = str(error)
    match = _AT.search(text)
    path = base + (match[1].removeprefix("$") if match else "")
    expected = text[: match.start()] if match else text
    missing = _MISSING.match(expected)
    if missing:
        path, expected = f"{path}.{missing[1]}", "required, but missing"
    # What was said is not said again: answers end in logs, and a prompt or a key may stand in a wrong place.
    expected = _ECHOED.sub(r"\1: none of those that docs/protocol.md lists", expected)
    return path, expected[:1].lower() + expected[1:]


def _sentence(error: msgspec.ValidationError, base: str) -> str:
    path, expected = _place(error, base)
    return f"{path}: {expected}"


def decode_params(decoder: msgspec.json.Decoder[T], params: msgspec.Raw) -> T:
    """Raises InvalidParams that names the parameter by its path, or ParseError."""
    try:
        return decoder.decode(params)
    except msgspec.ValidationError as error:
        path, expected = _place(error, "$.params")
        raise InvalidParams(f"{path}: {expected}", path=path) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"$.params cannot be read: {error}") from error


def encode_result(request_id: bytes, result: Any) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (request_id, _encode(result))


def encode_error(request_id: bytes, error: WireError) -> bytes:
    body = {"code": error.rpc_code, "message": error.message, "data": {"code": error.code, **error.data}}
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (request_id, _encode(body))


def encode_notification(method: str, params: Any) -> bytes:
    return b'{"jsonrpc":"2.0","method":"%b","params":%b}\n' % (method.encode(), _encode(params))


def encode_request(request_id: int | None, method: str, params: bytes) -> bytes:
    """A request line; ``params`` is JSON already. Without an id it is a notification."""
    number = b"" if request_id is None else b'"id":%d,' % request_id
    return b'{"jsonrpc":"2.0",%b"method":"%b","params":%b}\n' % (number, method.encode(), params)
