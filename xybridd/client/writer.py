"""What one process writes into rings: its records, its sessions, and how the next ring follows a full one.

A recorder (`xybridd.client.recorder`) writes ordinary calls by itself. Everything else comes here, under one lock.
Also here is what became of the records: `counters`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from xybridd.client.recorder import Shape, now_s
from xybridd.client.ring import Ring, RingFull, new_id
from xybridd.client.values import MOST_MODEL, MOST_VERSION, Call, Values, cut, log, text_of_error
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Bytes that all rings of a user may take; past it records are dropped, and counted.
MOST_BYTES = 64 * 2**20

_monotonic = time.monotonic

#: How long no ring is tried again when none could be made.
_NEXT_RING_S = 0.5

#: What a slot holds: latency, time, descriptor, words, call.
Slot = tuple[float, float, int, bytes, int]


class Session:
    """The session that records go to. ``owned``: this client started it, and ends it."""

    def __init__(self, session_id: str, labels: dict[str, str], *, owned: bool = True) -> None:
        self.session_id = session_id
        self.labels = labels
        self.owned = owned
        self.started_at_ms = int(now_s() * 1000)

    def strings(self) -> list[bytes]:
        """As a table entry of a ring."""
        labels = [text for label in self.labels.items() for text in label]
        return [text.encode() for text in (self.session_id, str(self.started_at_ms), *labels)]


class Writer:
    """One producer: a process, with a client id of its own. ``ring`` is the one in use; ``full``: the earlier ones."""

    def __init__(self, app: str, app_version: str, session: Session | None, values: Values) -> None:
        self.client_id = new_id()
        self.pid = os.getpid()
        self.session = session
        self.values = values
        self.ring: Ring | None = None
        self.full: list[Ring] = []
        #: Called with the ring and the number that was written, whenever the slow path was taken.
        self.on_written: Callable[[Ring, int], None] = lambda _ring, _number: None
        #: Called with a new ring, to give it a recorder.
        self.on_ring: Callable[[Ring], None] = lambda _ring: None
        self.counts = dict.fromkeys(("acknowledged", "waiting", "dropped", "invalid", "refused", "spooled", "lost"), 0)
        self.lock = threading.RLock()
        self._names = (app, app_version)
        self._geometry = layout.Geometry()
        self._busy = False
        self._deferred: list[Callable[[], None]] = []
        self._next_ring_s = 0.0
        self._is_full = False
        self._reported_drops = 0
        self._written = 0

    def begin(self) -> None:
        """Start the session now, not with the first record."""
        self.make_ring()

    def guard(self, act: Callable[[], None], *, records: int = 1) -> None:
        """Carry out `act` under the lock. An exception costs what it would have recorded, and nothing else."""
        try:
            with self.lock:
                if self._busy:  # a signal handler, or a destructor, in the midst of the same thread's work
                    self._deferred.append(act)
                    return
                self._busy = True
                try:
                    act()
                    while self._deferred:
                        self._deferred.pop(0)()
                finally:
                    self._busy = False
        except Exception as error:  # noqa: BLE001 - the app goes on, whatever it is
            self._lose(records, error)

    def _lose(self, records: int, reason: object) -> None:
        if records and not self.counts["lost"]:
            log().warning("%d records could not be kept and are lost: %s (said once)", records, reason)
        self.counts["lost"] += records

    # Records

    def call(
        self, ring: Ring | None, number: int, given: tuple[Any, Any, Any, dict[str, Any]], at_s: float, call: int
    ) -> None:
        """A finished call; ``number``: the one that a recorder reserved in `ring`, 0 for none."""
        model_id, version, latency_ms, stats = given
        if ring is None or ring.pid != self.pid or not number or not ring.may_write(number):
            number = 0
        elif ring is not self.ring:
            self.fill(ring, number)
            number = 0
        clean = self.values.call(model_id, version, latency_ms, stats)
        if clean.latency_ms is None:
            self.counts["invalid"] += 1
            self.fill(ring, number)
            return
        exact = (
            type(model_id) is str and type(version) is str and (model_id, version) == (clean.model_id, clean.version)
        )

        def build(into: Ring) -> Slot:
            entry = _model(into, clean)
            if exact:
                into.models[model_id, version] = layout.describe(layout.INFERENCE, entry)
            return self._call_slot(clean, layout.describe(layout.INFERENCE, entry), at_s, call)

        self.append(build, number)
        if clean.stats:  # those that did not fit into the slot of their call
            of = self._written
            self.append(
                lambda into: self._call_slot(clean, layout.describe(layout.MORE_STATS, _model(into, clean)), at_s, of)
            )

    @staticmethod
    def _call_slot(clean: Call, descriptor: int, at_s: float, call: int) -> Slot:
        bits, words = Shape.words({name: clean.stats.pop(name) for name in Shape.first(clean.stats)})
        places = clean.hardware << layout.HARDWARE_SHIFT | clean.target << layout.TARGET_SHIFT
        return clean.latency_ms or 0.0, at_s, descriptor | places | bits, words, call

    def mark(self, kind: int, model_id: Any, version: Any, latency_ms: float, call: int) -> None:
        """A call that starts, or is cancelled."""
        at_s, clean = now_s(), self.values.call(model_id, version, latency_ms, {})
        self.append(lambda into: (latency_ms, at_s, layout.describe(kind, _model(into, clean)), b"", call))

    def error(self, error: Any, model_id: Any, version: Any, category: Any, call: int) -> None:
        at_s, text, number = now_s(), text_of_error(error), self.values.category(category)
        data = cut(text, layout.MOST_ERROR_BYTES)
        if not number and len(text) > len(data) // 4 and data != text.encode():
            from xybridd.client.long_errors import category_of  # noqa: PLC0415 - rarely needed

            number = category_of(text)
        names: list[bytes] = []
        if model_id is not None:
            names = [self.values.name("model_id", model_id, MOST_MODEL).encode() or b"unknown"]
            if version is not None:
                names.append(self.values.name("version", version, MOST_VERSION).encode())

        def build(into: Ring) -> Slot:
            model = into.enter(layout.MODEL, names) if names else 0
            descriptor = layout.describe(layout.ERROR, into.enter(layout.ERROR_TEXT, [data]))
            return 0.0, at_s, descriptor | number << layout.CATEGORY_SHIFT, model.to_bytes(8, "little"), call

        self.append(build)

    def append(self, build: Callable[[Ring], Slot], number: int = 0) -> None:
        """Write a slot into the ring in use, or into the next one when that is full."""
        if self.session is None:
            number = 0
            self.enter_session(Session(new_id(), {}))
        for _ in range(3):
            ring = self.ring or self.make_ring()
            if ring is None:
                break
            if self._write(ring, build, number):
                return
            number = 0
        self.counts["dropped"] += 1

    def _write(self, ring: Ring, build: Callable[[Ring], Slot], number: int = 0) -> bool:
        """Whether it had room; a ring that had none is retired, and the next one is larger."""
        try:
            slot = build(ring)
        except RingFull:
            self.fill(ring, number)
            larger = min(self._geometry.table_bytes * 2, layout.MOST_TABLE_BYTES)
            self._geometry = self._geometry._replace(table_bytes=larger)
        else:
            number = number or ring.recorder.reserve()
            if ring.may_write(number):
                ring.recorder.write(number, *slot)
                self._written = number
                self.on_written(ring, number)
                return True
            self._geometry = self._geometry._replace(slots=min(self._geometry.slots * 4, layout.MOST_SLOTS))
        self.retire(ring)
        return False

    @staticmethod
    def fill(ring: Ring | None, number: int) -> None:
        """Write nothing into a slot that was reserved."""
        if ring is not None and number and ring.may_write(number):
            ring.recorder.write(number, 0.0, now_s(), layout.describe(layout.VOID))

    # Sessions

    def enter_session(self, session: Session) -> None:
        """Records from here on belong to it."""
        self.session = session
        if self.ring is not None:
            self._session_slot(layout.SESSION_STARTED, session)
        else:
            self.make_ring()  # which begins with it

    def leave_session(self, *, ends: bool = False) -> None:
        """End the session, if this client started it or is told to; else leave it to the others."""
        session, self.session = self.session, None
        if session is not None and (self.ring or self.make_ring(session)) is not None:
            self._session_slot(layout.SESSION_ENDED if ends or session.owned else layout.LEFT, session)
        if self.ring is not None:
            self.ring.alert_at_next()  # the next record begins another session

    def _session_slot(self, kind: int, session: Session) -> None:
        flags = 0 if session.owned else layout.JOINED

        def build(into: Ring) -> Slot:
            return 0.0, now_s(), layout.describe(kind, into.enter(layout.SESSION, session.strings(), flags)), b"", 0

        ring = self.ring
        if ring is not None and not self._write(ring, build):
            following = self.make_ring(session)
            if following is not None and kind != layout.SESSION_STARTED:
                self._write(following, build)

    def moved(self, session_id: str | None, *, replaced: bool) -> None:
        """The daemon answers in which session the records are: it may have followed the one that was named."""
        with self.lock:
            session = self.session
            if session is None or session_id is None or session.session_id == session_id:
                return
            if replaced and not session.owned:
                session.owned = True
                log().warning("the session %s is over; records go on in %s", session.session_id, session_id)
            session.session_id = session_id

    # Rings

    def rings(self) -> list[Ring]:
        """All of them, in the order in which they were filled."""
        return [*self.full, *([] if self.ring is None else [self.ring])]

    def unread(self) -> list[Ring]:
        """Those that a daemon is to read, and the one in use."""
        with self.lock:
            return [ring for ring in self.rings() if ring is self.ring or not ring.read_whole]

    def make_ring(self, session: Session | None = None) -> Ring | None:
        """Go on in a new ring: in a file, or in memory while no file can be had; None when there is no room at all."""
        if _monotonic() < self._next_ring_s:
            return None
        self._go_on_in(self._file() or self._memory(), session)
        return self.ring

    def _go_on_in(self, ring: Ring | None, session: Session | None = None) -> None:
        self.ring = ring
        if ring is None:
            self._next_ring_s = _monotonic() + _NEXT_RING_S
            return
        self.on_ring(ring)
        if dropped := self.counts["dropped"] - self._reported_drops:
            self._reported_drops = self.counts["dropped"]
            descriptor, words = layout.describe(layout.DROPPED), dropped.to_bytes(8, "little")
            self._write(ring, lambda _: (0.0, now_s(), descriptor, words, 0))
        if (session := session or self.session) is not None:
            self._session_slot(layout.SESSION_STARTED, session)

    def _producer(self, boot_id: str = "") -> list[bytes]:
        from xybridd import __version__  # noqa: PLC0415 - the package imports this module

        return [each.encode() for each in (self.client_id, *self._names, __version__, boot_id)]

    def _file(self) -> Ring | None:
        try:
            from xybridd.paths import boot_id, ring_folder, spool_folder  # noqa: PLC0415 - may need descriptors

            folder = _made(ring_folder())
            self._is_full = _bytes_in({folder, spool_folder()}) > MOST_BYTES
            if not self._is_full:
                return Ring.create(folder, self._producer(boot_id()), *self._geometry)
        except Exception as error:  # noqa: BLE001 - no descriptors, no room, a folder of another user
            log().debug("a ring cannot be a file now: %s", error)
        return None

    def _memory(self) -> Ring | None:
        """One ring in memory is what a failure may cost; where there is too much on the disk, none."""
        if self._is_full:
            if not self.counts["dropped"]:
                log().warning("%d MiB of records wait for a daemon; new ones are dropped", MOST_BYTES // 2**20)
            return None
        return None if any(each.path is None for each in self.full) else Ring.create(None, self._producer())

    def retire(self, ring: Ring) -> None:
        """Nothing more goes into a ring; what is in it stays until a daemon has it."""
        ring.retire()
        if ring is self.ring:
            self.full.append(ring)
            self.ring = None
        self.settle()

    def settle(self) -> None:
        """Remove the rings that a daemon has whole, and count what was in them."""
        with self.lock:
            for ring in [each for each in self.full if each.read_whole]:
                self.full.remove(ring)
                self._count(ring)
                ring.remove()

    def keep(self, *, connected: bool) -> None:
        """Move full rings to the disk where no daemon reads them, and rings in memory in any case. Raises OSError."""
        with self.lock:
            if self.ring is not None and self.ring.path is None and (file := self._file()) is not None:
                self.retire(self.ring)
                self._go_on_in(file)
        for ring in list(self.full):
            if (ring.path is None or not connected) and not ring.read_whole and ring.complete:
                ring.persist(_spool())

    def close(self, *, attached: bool) -> None:
        """Write nothing more. What no daemon has, and none is attached to, goes to the disk."""
        with self.lock:
            rings, self.full, self.ring = self.rings(), [], None
        for ring in rings:
            if not ring.retired:
                ring.retire()
            try:
                if not (attached or ring.read_whole):
                    ring.persist(_spool())
            except Exception as error:  # noqa: BLE001 - a full disk, a folder that is not ours
                if ring.path is None:
                    self._lose(ring.counts()[2], error)
                    continue
            self._count(ring)
            if ring.read_whole:
                ring.remove()
            else:
                ring.disown()

    def leave_to_parent(self) -> None:
        """In a forked child: what the parent wrote is the parent's."""
        for ring in self.rings():
            ring.limit[0] = 0
            ring.close()

    # What became of records

    def _count(self, ring: Ring) -> None:
        counted, rejected, waiting = ring.counts()
        self.counts["acknowledged"] += counted
        self.counts["refused"] += rejected
        self.counts["spooled"] += waiting

    def counters(self) -> dict[str, int]:
        with self.lock:
            found = dict(self.counts)
            for ring in self.rings():
                counted, rejected, waiting = ring.counts()
                found["acknowledged"] += counted
                found["refused"] += rejected
                found["waiting"] += waiting
        return found


def _model(ring: Ring, clean: Call) -> int:
    return ring.enter(layout.MODEL, [clean.model_id.encode(), clean.version.encode()])


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _spool() -> Path:
    """The folder on disk for what no daemon has. Raises OSError."""
    from xybridd.paths import spool_folder  # noqa: PLC0415

    return _made(spool_folder())


def _bytes_in(folders: set[Path]) -> int:
    """What the rings in some folders take on the disk."""
    total = 0
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            total += sum(each.stat(follow_symlinks=False).st_blocks * 512 for each in entries)
    return total
