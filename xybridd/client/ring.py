"""One ring: a file, or memory where no file can be made, mapped into this process, and what writes into it.

`docs/ring.md` specifies it. Everything here may be called from any thread that holds the client's lock; the calls that
need no lock are the recorder's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from xybridd.client.orphans import process_started
from xybridd.client.own_file import OwnFile
from xybridd.client.recorder import PythonRecorder, best_recorder, now_s
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

#: Linux 4.14: a page that reads as zeros in a forked child. Unknown to the module `mmap`.
_WIPE_ON_FORK = 18

#: Linux 5.14: fetch the pages of a mapping, to be written.
_POPULATE = 23


#: Slots, and bytes of the table, that are allocated at once. Memory that is mapped and not allocated could be missing
#: when it is written (a full tmpfs), and that is a signal which kills the app.
_SLOTS_AT_ONCE = 1024
_TABLE_AT_ONCE = 2**16


#: The recorder in C publishes slots with release stores.
_FLAGS = 0 if best_recorder() is PythonRecorder else layout.ORDERED


class RingFull(Exception):
    """The table has no room for an entry."""


class Ring:
    """``limit`` is the private word: the highest number that may be written, as far as this process has looked."""

    def __init__(
        self, ring_id: bytes, geometry: layout.Geometry, path: Path | None, fd: int, mapped: mmap.mmap
    ) -> None:
        self.id = ring_id
        self._own = OwnFile(fd)
        self.name = text_of(ring_id)
        self.path = path
        self.fd = fd
        self.geometry = geometry
        self.pid = os.getpid()
        self.created_s = now_s()
        self.entries: dict[tuple[int, tuple[bytes, ...], int], int] = {}
        #: The descriptor of an inference of each model and version that the table holds.
        self.models: dict[tuple[Any, Any], int] = {}
        self._mapped, self._view = mapped, memoryview(mapped)
        self._header = self._view[: layout.HEADER_BYTES].cast("Q")
        private = mmap.mmap(-1, mmap.PAGESIZE, **_private())
        with contextlib.suppress(OSError, AttributeError):  # forks by Python are seen without it
            private.madvise(_WIPE_ON_FORK)
        self.limit = memoryview(private).cast("Q")
        self.retired = False
        self.recorder: Any = None
        #: Slots and bytes of the table that are allocated.
        self._allocated = geometry.slots if fd < 0 else 0
        self._allocated_table = geometry.table_bytes if fd < 0 else 0

    @classmethod
    def create(
        cls, folder: Path | None, producer: Sequence[bytes], slots: int = layout.SLOTS, table: int = layout.TABLE_BYTES
    ) -> Ring:
        """A new ring in `folder`, or in memory alone. Raises OSError."""
        geometry, ring_id = layout.Geometry(slots, table), _uuid4()
        if folder is None:
            fd = _memory_file(geometry.size_bytes)
            mapped = mmap.mmap(fd, geometry.size_bytes, **_private()) if fd < 0 else mmap.mmap(fd, geometry.size_bytes)
            self = cls(ring_id, geometry, None, fd, mapped)
            self._begin(producer)
            return self
        draft, path = folder / f".{ring_id.hex()}", folder / f"{text_of(ring_id)}{layout.SUFFIX}"
        fd = _new_file(draft)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, geometry.size_bytes)
            _allocate(fd, 0, layout.HEADER_BYTES)
            self = cls(ring_id, geometry, path, fd, mmap.mmap(fd, geometry.size_bytes))
            self._begin(producer)
            os.rename(draft, path)  # noqa: PTH104 - cheaper
        except BaseException:
            os.close(fd)
            os.unlink(draft)  # noqa: PTH108
            raise
        return self

    def _begin(self, producer: Sequence[bytes]) -> None:
        geometry, pid = self.geometry, self.pid
        layout.IDENTITY.pack_into(
            self._view, 0, layout.MAGIC, layout.HEADER_BYTES, geometry.table_bytes, geometry.slots, _FLAGS, self.id,
            self.created_s, pid, process_started(pid),
        )  # fmt: skip
        self._header[layout.TABLE_USED] = 8
        self._header[layout.LIMIT] = geometry.slots
        self.enter(layout.PRODUCER, producer)
        self.limit[0] = min(geometry.slots, self._allocate_up_to(1))
        if not self._allocated:
            raise OSError(errno.ENOSPC, "there is no room for the slots of a ring")

    def start(self, slow: Any) -> None:
        """Have records written; `slow` gets those that need more than that."""
        slots = self._view[self.geometry.slots_at :]
        self.recorder = best_recorder()(slots, self.geometry.slots, self.limit, self.models, slow)

    # The table

    def enter(self, kind: int, strings: Sequence[bytes], flags: int = 0) -> int:
        """The number of an entry, made if it is new. Raises RingFull."""
        key = kind, tuple(strings), flags
        number = self.entries.get(key)
        if number is None:
            data = layout.encode_entry(kind, list(strings), flags)
            used = self._header[layout.TABLE_USED]
            if used + len(data) > self.geometry.table_bytes:
                raise RingFull
            if used + len(data) > self._allocated_table:
                self._allocate_table(used + len(data))
            at = layout.HEADER_BYTES + used
            self._view[at : at + len(data)] = data
            self._header[layout.TABLE_USED] = used + len(data)
            number = used // 8
            if kind != layout.ERROR_TEXT:  # each text is most likely new, and long
                self.entries[key] = number
        return number

    def _allocate_table(self, size: int) -> None:
        """Raises RingFull when there is no room for it on the disk."""
        start = self._allocated_table
        end = min(-(-size // _TABLE_AT_ONCE) * _TABLE_AT_ONCE, self.geometry.table_bytes)
        try:
            _allocate(self.fd, layout.HEADER_BYTES + start, end - start)
        except OSError as error:
            raise RingFull from error
        self._allocated_table = end

    # The limit

    def may_write(self, number: int) -> bool:
        """Whether a number may be written; takes the limit of the header over into the private word."""
        if self.retired:
            return number < self._header[layout.RETIRED]
        self.limit[0] = limit = min(self._limit_of_reader(), self._allocate_up_to(number))
        return number <= limit

    def _limit_of_reader(self) -> int:
        limit = self._header[layout.LIMIT]
        while limit != (again := self._header[layout.LIMIT]):
            limit = again
        return int(limit)

    def _allocate_up_to(self, number: int) -> int:
        """The highest number whose slot is allocated, after an attempt to allocate that of `number`."""
        while self._allocated < min(number + 1, self.geometry.slots):
            # Twice as many each time, so that few calls come here; as few as possible where there is little room.
            least = min(_SLOTS_AT_ONCE, self.geometry.slots)
            if not (self._allocate_slots(max(least, self._allocated)) or self._allocate_slots(least)):
                break
        return self._allocated - 1 if self._allocated < self.geometry.slots else 2**63

    def _allocate_slots(self, count: int) -> bool:
        start, size = self.geometry.slots_at + self._allocated * layout.SLOT_BYTES, count * layout.SLOT_BYTES
        try:
            _allocate(self.fd, start, size)
        except OSError:
            return False
        with contextlib.suppress(OSError, ValueError):  # else each page is fetched by the call that touches it first
            self._mapped.madvise(_POPULATE, start, size)
        self._allocated += count
        return True

    def alert_at_half(self, number: int) -> None:
        """Have the slow path taken when half of what may be written is, unless that is past already."""
        half = self._header[layout.DURABLE] + self.geometry.slots // 2
        if number < half:
            self.limit[0] = min(self.limit[0], half)

    def alert_at_next(self) -> None:
        """Have the slow path taken by the next record."""
        self.limit[0] = 0

    @property
    def reader_sleeps(self) -> bool:
        return bool(self._header[layout.ASLEEP])

    def half_full(self, number: int) -> bool:
        return number >= self._header[layout.DURABLE] + self.geometry.slots // 2

    def retire(self) -> None:
        """Nothing new is written: numbers that threads have reserved, at or below the limit, still are."""
        self.limit[0] = 0
        self._header[layout.RETIRED] = 1 + min(
            self.recorder.reserve() - 1, self._limit_of_reader(), self._allocate_up_to(0)
        )
        self.retired = True

    # What became of it

    @property
    def last(self) -> int:
        """The last number that is, or will be, written."""
        reserved = self.recorder.reserved()
        return int(min(reserved, self._header[layout.RETIRED] - 1) if self.retired else reserved)

    @property
    def durable(self) -> int:
        """The number up to which a daemon has everything on disk."""
        return int(self._header[layout.DURABLE])

    @property
    def read_whole(self) -> bool:
        return self.durable >= self.last

    def counts(self) -> tuple[int, int, int]:
        """Records on a daemon's disk, those it rejected, and those that wait here."""
        counted, rejected, durable = (self._header[each] for each in (layout.COUNTED, layout.REJECTED, layout.DURABLE))
        words, mask = self._view[self.geometry.slots_at :].cast("Q"), self.geometry.slots - 1
        waiting = 0
        for number in range(max(durable, self.last - mask - 1) + 1, self.last + 1):
            at = (number & mask) * layout.WORDS
            kind = words[at + layout.DESCRIPTOR] >> layout.KIND_SHIFT & 0xFF
            waiting += kind in layout.RECORDS and words[at + layout.NUMBER] == number
        return counted, rejected, waiting

    # Files

    @property
    def complete(self) -> bool:
        """Whether every slot up to the last is written: no thread is between reserving and writing one."""
        words, mask = self._view[self.geometry.slots_at :].cast("Q"), self.geometry.slots - 1
        last = self.last
        recent = range(max(self.durable, last - mask - 1) + 1, last + 1)
        return all(words[(number & mask) * layout.WORDS + layout.NUMBER] == number for number in recent)

    def persist(self, folder: Path) -> None:
        """Move what was written into a file of `folder`, on disk when this returns. Of a retired ring. Raises OSError.

        A ring that lies there already is synced.
        """
        if self.path is not None and self.path.parent == folder:
            os.fsync(self.fd)
            _sync_folder(folder)
            return
        draft, path = folder / f".{self.id.hex()}", folder / f"{self.name}{layout.SUFFIX}"
        fd = _new_file(draft)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, self.geometry.size_bytes)
            for start, end in self._used():
                os.pwrite(fd, self._view[start:end], start)
            os.fsync(fd)
            mapped = mmap.mmap(fd, self.geometry.size_bytes)
            os.rename(draft, path)  # noqa: PTH104
        except BaseException:
            os.close(fd)
            os.unlink(draft)  # noqa: PTH108
            raise
        _sync_folder(folder)
        self.remove()
        self.path, self.fd, self._own = path, fd, OwnFile(fd)
        self._mapped, self._view = mapped, memoryview(mapped)
        self._header = self._view[: layout.HEADER_BYTES].cast("Q")

    def _used(self) -> list[tuple[int, int]]:
        """The parts of the file that hold something."""
        slots_at, slots = self.geometry.slots_at, self.geometry.slots
        used = slots if self.last >= slots else self.last + 1
        table = layout.HEADER_BYTES + int(self._header[layout.TABLE_USED])
        return [(0, table), (slots_at, slots_at + used * layout.SLOT_BYTES)]

    def open_file(self) -> int | None:
        """The descriptor to hand to a daemon, opened again if the app closed it; None for a ring in memory alone."""
        if self.fd >= 0 and not self._own.intact and self.path is not None:
            # The lock is still held: it belongs to the file as it was opened first, which the mapping keeps open.
            self.fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._own = OwnFile(self.fd)
        return self.fd if self.fd >= 0 else None

    def disown(self) -> None:
        """Leave the ring to others: this process writes no more."""
        layout.OWNER.pack_into(self._view, layout.OWNER_AT, 0, 0)
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        self.close()

    def remove(self) -> None:
        """Nothing in it is needed any more."""
        if self.path is not None:
            with contextlib.suppress(OSError):  # its next finder removes it
                self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file; the memory stays mapped while a thread may write into it."""
        if self.fd >= 0:
            if self._own.intact:
                os.close(self.fd)
            self.fd = -1


def text_of(ring_id: bytes) -> str:
    text = ring_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _uuid4() -> bytes:
    """A random UUID (version 4), without importing `uuid`."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def new_id() -> str:
    return text_of(_uuid4())


def _private() -> dict[str, int]:
    return {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _memory_file(size_bytes: int) -> int:
    """A file without a folder, which a daemon can be given all the same; -1 where none can be had."""
    try:
        fd = os.memfd_create("xybridd-ring", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        return -1
    os.ftruncate(fd, size_bytes)
    return fd


def _allocate(fd: int, start: int, size: int) -> None:
    """Have a part of a file there for certain, as zeros. Raises OSError when there is no room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, start, size)
    else:
        os.pwrite(fd, bytes(size), start)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
