"""How daemon and sender speak over a pipe: a length in four bytes, big-endian, then MessagePack.

Jobs go one way, outcomes the other, one for each job, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xybridd.core.delivery import Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH_BYTES = 4

#: A job is a batch of at most half a megabyte; more than this is no job but a broken pipe's noise.
MAX_FRAME_BYTES = 2**28


class BrokenFrame(Exception):
    """What came is no frame, or only a part of one."""


def framed(value: Job | Outcome) -> bytes:
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def length_of(head: bytes) -> int:
    """Raises BrokenFrame for a length that nobody would send."""
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {length} bytes")
    return length


def read_job(read: Callable[[int], bytes]) -> Job | None:
    """The next job, None at the end of the stream. ``read(n)`` gives at most n bytes, and none at the end."""
    head = _exactly(read, LENGTH_BYTES)
    if not head:
        return None
    length = length_of(head)
    data = _exactly(read, length)
    if len(head) < LENGTH_BYTES or len(data) < length:
        raise BrokenFrame("the stream ended within a job")
    try:
        return msgspec.msgpack.decode(data, type=Job)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BrokenFrame(f"not a job: {error}") from error


def outcome_from(data: bytes) -> Outcome:
    """Raises BrokenFrame."""
    try:
        return msgspec.msgpack.decode(data, type=Outcome)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BrokenFrame(f"not an outcome: {error}") from error


def _exactly(read: Callable[[int], bytes], size_bytes: int) -> bytes:
    """Less only at the end of the stream."""
    parts: list[bytes] = []
    while size_bytes and (part := read(size_bytes)):
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)
