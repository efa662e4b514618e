"""The layout of a ring file: numbers and structures, no I/O. `docs/ring.md` is its specification.

    0                       header, one page
    HEADER_BYTES            table: strings, appended, never changed
    HEADER_BYTES + table    slots of 64 bytes, a power of two of them; slot number n lies at (n mod count)

All integers are little-endian. This module imports nothing but `struct`, because an app imports it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"XYBRING1"
HEADER_BYTES = 4096
SLOT_BYTES = 64
SUFFIX = ".ring"

#: Slots of a ring: the default, and the fewest and most that a reader accepts.
SLOTS, LEAST_SLOTS, MOST_SLOTS = 2**14, 2**6, 2**18
#: Bytes of the table, a multiple of a page: the default, and the most that a reader accepts.
TABLE_BYTES, MOST_TABLE_BYTES = 2**20, 2**23

#: Header, written once: magic, header bytes, table bytes, slots, flags, ring id, time of creation (Unix seconds),
#: process id, start time of the process (clock ticks since boot; 0 unknown).
IDENTITY = struct.Struct("<8sIIII16sdQQ")

#: Process id and its start, in the header: zeros when the process goes on and the ring does not.
OWNER, OWNER_AT = struct.Struct("<QQ"), 48

#: `flags`: the writer publishes a slot's number with a release store, so a reader need not wait on weakly ordered CPUs.
ORDERED = 1

#: Header words (64 bits) by index. The writer's, then the reader's.
TABLE_USED, RETIRED = 8, 9
LIMIT, DURABLE, COUNTED, REJECTED, ASLEEP = 16, 17, 18, 19, 20

#: A slot: latency (ms), time (Unix seconds), descriptor, three words of stats, call, number.
SLOT = struct.Struct("<ddQ24sQQ")
LATENCY, TIME, DESCRIPTOR, STATS, CALL, NUMBER = 0, 1, 2, 3, 6, 7
WORDS = SLOT_BYTES // 8
STAT_WORDS = 3

# The descriptor: entry (32 bits), kind (8), hardware (4), target (4), stats that are present (8), category (8).
KIND_SHIFT, HARDWARE_SHIFT, TARGET_SHIFT, STATS_SHIFT, CATEGORY_SHIFT = 32, 40, 44, 48, 56

#: Kinds of slots. `MORE_STATS` continues the call whose slot `call` names; `VOID` holds nothing.
INFERENCE, STARTED, ERROR, MORE_STATS, CANCELLED, SESSION_STARTED, SESSION_ENDED, LEFT, DROPPED, VOID = range(1, 11)

#: Kinds that are a record each.
RECORDS = frozenset({INFERENCE, ERROR, CANCELLED})

HARDWARE = {"cpu": 1, "gpu": 2, "npu": 3}
TARGETS = {"local": 1, "cloud": 2, "fallback": 3}

#: The numeric stats, by bit. The two counts of tokens share one word (32 bits each, input first); each other one has a
#: word, a 64-bit float. Words stand in the order of the bits.
STAT_BITS = {
    "input_tokens": 1,
    "output_tokens": 2,
    "tokens_per_second": 4,
    "time_to_first_token_ms": 8,
    "samples_per_second": 16,
    "memory_peak_mb": 32,
}
TOKENS = 3
MOST_TOKENS = 2**32 - 1

#: Categories of errors, from 1, in the order of the reference.
CATEGORIES = (
    "ModelLoading", "Preprocessing", "Inference", "Postprocessing", "Network", "Hardware", "Memory", "Unknown",
)  # fmt: skip

#: An entry of the table: bytes of its strings, kind, number of strings, flags; then each string with its length
#: before it (32 bits), and zeros up to a multiple of eight. An entry is named by its offset in the table divided by
#: eight; the first is 1.
ENTRY = struct.Struct("<IBBH")
LENGTH = struct.Struct("<I")
#: Kinds of entries: client id, app, app version, SDK version, boot id; model id, version (may be missing); error text;
#: session id, start (ms), then labels, name and value.
PRODUCER, MODEL, ERROR_TEXT, SESSION = range(1, 5)
#: Flag of a session entry: another process started the session, this one takes part.
JOINED = 1

#: Bytes of an error's text in a ring: eight times what is stored, so that a redacted text still fills it.
MOST_ERROR_BYTES = 8192


class Geometry(NamedTuple):
    """The sizes of one ring file."""

    slots: int = SLOTS
    table_bytes: int = TABLE_BYTES

    @property
    def slots_at(self) -> int:
        return HEADER_BYTES + self.table_bytes

    @property
    def size_bytes(self) -> int:
        return self.slots_at + self.slots * SLOT_BYTES


def encode_entry(kind: int, strings: list[bytes], flags: int = 0) -> bytes:
    """The bytes of a table entry, a multiple of eight."""
    body = b"".join([LENGTH.pack(len(each)) + each for each in strings])
    return ENTRY.pack(len(body), kind, len(strings), flags) + body + bytes(-len(body) % 8)


def describe(kind: int, entry: int = 0) -> int:
    """A descriptor without hardware, target, stats and category."""
    return kind << KIND_SHIFT | entry
