"""One open ring file: how far it was read, what can be read now, and the words that its producer is told.

A ring is read with `pread`, never mapped: a file that shrinks is an end of file, not a signal. `docs/ring.md` has the
rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import struct
from collections import deque
from itertools import compress
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

from xybridd.core import ring as format_
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from xybridd.core.registry import Producer
    from xybridd.services.sessions import Link

#: Slots that one ring may have read before the others have their turn: two to three milliseconds.
TURN_SLOTS = 8192

#: The first look at a ring: a page.
_FEW_SLOTS = layout.HEADER_BYTES // layout.SLOT_BYTES

#: How far behind a missing slot others are looked for, while the writer lives.
_LOOK_AHEAD = 4096

#: Processors on which stores become visible in their order.
_STRONG = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686", "s390x"}

_WORDS = struct.Struct("<4Q")
_WORD = struct.Struct("<Q")


class Position(NamedTuple):
    """What had been taken when the reader had read up to `number`."""

    number: int
    counted: int
    rejected: int


class Ring:
    """``producer`` has the durable position; ``link`` is the connection that the ring came over."""

    def __init__(self, fd: int, header: format_.Header, table: format_.Table, link: Link, producer: Producer) -> None:
        self.fd = fd
        self.header = header
        self.table = table
        self.link = link
        self.producer = producer
        self.lock = asyncio.Lock()
        #: The next slot number to read.
        self.next = producer.applied_seq + 1
        #: On a weakly ordered processor: the last slot that was there at the previous look.
        self.seen = 0
        #: Where the last visit that found nothing left off.
        self.quiet_at = -1
        #: The newest time of what was read.
        self.latest_ms = 0
        self.counted, self.rejected = header.counted, header.rejected
        self.positions: deque[Position] = deque([Position(self.next - 1, self.counted, self.rejected)])
        self.hole_since_s: float | None = None
        #: Its process is gone: what is missing was never written.
        self.final = False
        #: Since when its connection is broken, on the monotonic clock.
        self.detached_at_s: float | None = None
        #: Whether the process has said that it leaves its session, or ends it.
        self.left = False
        self.asleep = False

    @property
    def ring_id(self) -> str:
        return self.header.ring_id

    @property
    def client(self) -> tuple[int, str]:
        """The user and the client that the ring belongs to: a client may have several."""
        producer = self.link.producer
        return self.link.uid, producer.client_id if producer is not None else ""

    @property
    def slots(self) -> int:
        return self.header.geometry.slots

    @property
    def read_whole(self) -> bool:
        """Whether its writer went on in another ring, and everything before that was read."""
        return self.header.last is not None and self.next > self.header.last

    @property
    def limit(self) -> int:
        """The highest slot number that may be written: what is not on disk must not be overwritten."""
        return min([self.producer.durable_seq + 1, *self.producer.durable_holes]) - 1 + self.slots

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # Reading

    def refresh(self) -> None:
        """Read the header's words. Raises InvalidParams when the file changed its form."""
        self.header = format_.parse_header(os.pread(self.fd, layout.HEADER_BYTES, 0), self.header.geometry.size_bytes)

    def refresh_table(self) -> None:
        """Read what is new in the table: after the slots, since an entry is complete before a slot names it."""
        self.refresh()
        header = self.header
        if (new := header.table_used - len(self.table)) > 0:
            self.table.feed(os.pread(self.fd, new, layout.HEADER_BYTES + len(self.table)))

    def slots_from(self, number: int, most: int) -> bytes:
        """Up to `most` slots from `number` on, as they lie in the file: not past its last slot."""
        index = number & (self.slots - 1)
        most = min(most, self.slots - index)
        data = os.pread(self.fd, most * layout.SLOT_BYTES, self.header.geometry.slots_at + index * layout.SLOT_BYTES)
        return data[: len(data) - len(data) % layout.SLOT_BYTES]

    def ready(self, most: int) -> bytes:
        """The slots that can be taken now, in a row from `next` on."""
        if self.header.last is not None:
            most = min(most, self.header.last + 1 - self.next)
        if not (_STRONG or self.header.ordered or self.final):
            # The numbers that are there now were there at the last look at the earliest: their contents are there too.
            most, self.seen = min(most, self.seen + 1 - self.next), self._last_in_row()
        if most <= 0:
            return b""
        number = self.next
        found = format_.present(format_.numbers_in(self.slots_from(number, min(most, _FEW_SLOTS))), number)
        if found == _FEW_SLOTS < most:
            found = format_.present(format_.numbers_in(self.slots_from(number, most)), number)
        # A number that was there in the first read has its content in the second.
        return self.slots_from(number, found) if found else b""

    def _last_in_row(self) -> int:
        return self.next - 1 + format_.present(format_.numbers_in(self.slots_from(self.next, TURN_SLOTS)), self.next)

    def later(self) -> int | None:
        """The first slot after a missing one that is there; None when none is, among the next few or, finally, all."""
        number, end = self.next, self.next + (self.slots if self.final else min(self.slots, _LOOK_AHEAD))
        while number < end:
            numbers = format_.numbers_in(self.slots_from(number, end - number))
            if not numbers:
                return None
            there = map(eq, numbers, range(number, number + len(numbers)))
            if (found := next(compress(numbers, there), None)) is not None:
                return found
            number += len(numbers)
        return None

    def recount(self, data: bytes, first: int) -> None:
        """Add slots that are on disk and that the producer was not told of: the last run of the daemon was killed."""
        if (untold := first + len(data) // layout.SLOT_BYTES - 1 - self.header.durable) > 0:
            self.counted += format_.records_in(data[-untold * layout.SLOT_BYTES :])
            self.positions = deque([Position(self.next - 1, self.counted, self.rejected)])

    # Writing: three words for the producer

    def publish(self) -> None:
        """Tell the producer what is on disk, and what may be overwritten."""
        durable = self.producer.durable_seq
        while self.positions and self.positions[0].number <= durable:
            reached = self.positions.popleft()
            self._write(layout.LIMIT, _WORDS.pack(self.limit, reached.number, reached.counted, reached.rejected))

    def sleep(self, asleep: bool) -> None:
        self.asleep = asleep
        self._write(layout.ASLEEP, _WORD.pack(asleep))

    def _write(self, word: int, data: bytes) -> None:
        # A file that cannot be written is its owner's loss: nothing more fits into it.
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, data, 8 * word)
