"""The client: what an app calls.

No call here raises into the app, and none waits, except those that take a ``timeout_s`` and wait that long at most.
Recording writes a slot of a ring (`xybridd.client.ring`), memory that outlives the app, and nothing else. What remains is
here: a ring that is full and followed by another, sessions, forks, the end of the process.

It survives a fork, by Python or by C: the child is a producer of its own with a ring of its own, and takes part in its
parent's session.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from xybridd.client.recorder import Shape
from xybridd.client.ring import Ring, RingFull, new_id
from xybridd.client.timed import Inference
from xybridd.client.values import MOST_APP, MOST_VERSION, Call, Values, cut, log, text_of_error
from xybridd.consent import opted_out
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Self, Unpack

    from xybridd.client.aio import AsyncClient
    from xybridd.client.connection_thread import ConnectionThread

#: How long the end of a process may wait for the daemon, all its clients together, and then for the disk.
EXIT_DRAIN_S = 0.25
EXIT_SPOOL_S = 2.0

#: Bytes that all rings of a user may take; past it records are dropped, and counted.
MOST_BYTES = 64 * 2**20

#: How long no ring is tried again when none could be made.
_NEXT_RING_S = 0.5

#: Records after which a thread that could not be started is tried again.
_RECORDS_TO_RETRY = 100

_time = time.time
_perf_counter = time.perf_counter


class Stats(TypedDict, total=False):
    """Optional facts about an inference. Rates per second, sizes in MiB, times in ms."""

    tokens_per_second: float
    samples_per_second: float
    memory_peak_mb: int
    execution_target: Literal["local", "cloud", "fallback"]
    hardware_used: Literal["cpu", "gpu", "npu"]
    input_tokens: int
    output_tokens: int
    time_to_first_token_ms: float


class _Counts:
    """Records that are in no ring any more, by what became of them."""

    def __init__(self) -> None:
        self.acknowledged = self.refused = self.spooled = self.invalid = self.dropped = self.lost = 0


class Client:
    """Made by `connect`. Its methods may be called from any thread."""

    def __init__(
        self, app: str, app_version: str, labels: dict[str, str], session_id: str | None, sockets: Any, values: Values
    ) -> None:
        self.app, self.app_version, self.sockets = app, app_version, sockets
        self._values = values
        self._labels = labels
        self._session_id: str | None = session_id or new_id()
        self._owns_session = session_id is None
        self._started_at_ms = int(_time() * 1000)
        self._closed = False
        self._counts = _Counts()
        self._begin()

    def _begin(self) -> None:
        """Of this process alone: also after a fork."""
        self.client_id = new_id()
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._busy = False
        self._deferred: list[Callable[[], None]] = []
        self._ring: Ring | None = None
        self._full: list[Ring] = []
        self._slots, self._table = layout.SLOTS, layout.TABLE_BYTES
        self._next_ring_s = 0.0
        self._call_ids = iter(range(1, 2**63))
        self._thread: ConnectionThread | None = None
        self.watchers: list[Callable[[dict[str, Any]], object]] = []

    # Recording

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float | None = None, **stats: Unpack[Stats]
    ) -> None:
        """Record a finished inference.

        ``latency_ms`` is a finite number from 0 to 2**53 and may have a fraction. An optional value that cannot be right
        is left out, counted (`omitted`) and logged once; a call whose latency is not a number is left out (`counters`).
        """
        # While there is a ring, its recorder's method stands in the place of this one.
        self._record_slowly(None, 0, model_id, version, latency_ms, stats, _time())  # type: ignore[arg-type]

    def record_error(
        self,
        error: str | BaseException,
        model_id: str | None = None,
        version: str | None = None,
        category: str | None = None,
    ) -> None:
        """Record a failure. An exception is recorded by its type and its text.

        ``category`` is one of the reference's eight, in either spelling; without it the words of the text decide.
        """
        self._guard(partial(self._write_error, error, model_id, version, category, _time(), 0))

    def inference(self, model_id: str, version: str = "", **stats: Unpack[Stats]) -> Inference:
        """Time a block, a function, a coroutine or a generator: ``with client.inference(...) as call:``, or a decorator.

        A call that is cut off by the death of the process is listed in its session. An exception is recorded as an error
        of the model and propagates; a call that is cancelled is counted as cancelled.
        """
        return Inference(self, model_id, version, dict(stats))

    # Sessions

    @property
    def session_id(self) -> str | None:
        """The session that records go to; None after `end_session`, until the next record."""
        return self._session_id

    def start_session(self, labels: dict[str, str] | None = None) -> str:
        """End the current session and start another; its id. Does not wait for the daemon."""
        session_id = new_id()

        def change() -> None:
            self._leave_session()
            self._enter_session(session_id, self._values.labels(labels))

        if not self._closed:
            self._guard(change, records=0)
        return session_id

    def end_session(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """End the current session; its export, or None when there is none or the daemon did not answer in time.

        The next record starts a new one.
        """
        found: dict[str, Any] | None = self._result(self.end_session_soon(), timeout_s)
        return found

    def end_session_soon(self) -> Future[Any] | None:
        """End the current session; its export as a future, None when there is no session."""
        session_id = self._session_id
        if session_id is None or self._closed:
            return None
        self._guard(partial(self._leave_session, ends=True), records=0)
        return self._command("export", session_id)

    # The device

    def advice(
        self, model_size_mb: float | None = None, safety_margin: float = 1.5, timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """What this process should do now, and why: ``device.advice`` of `docs/protocol.md`.

        None when no daemon answered within `timeout_s`. ``model_size_mb``: would a model of this size (MiB) fit?
        """
        found: dict[str, Any] | None = self._result(self.advice_soon(model_size_mb, safety_margin), timeout_s)
        return found

    def advice_soon(self, model_size_mb: float | None, safety_margin: float) -> Future[Any] | None:
        """`advice` as a future."""
        params = {"safety_margin": safety_margin}
        if model_size_mb is not None:
            params["model_size_mb"] = model_size_mb
        return self._command("ask", "device.advice", params)

    def watch(self, callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `callback` with ``{"capabilities": …, "advice": …}`` as they are, and again whenever they change.

        The client's own thread calls it: be brief. An exception of it is logged once. Returns a function that ends it.
        """
        self.watchers.append(callback)
        self._command("watch", callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self.watchers.remove(callback)

        return end

    @property
    def aio(self) -> AsyncClient:
        """The calls that wait, for an event loop: ``await client.aio.advice()``. No thread waits for them."""
        from xybridd.client.aio import AsyncClient  # noqa: PLC0415 - only apps with asyncio pay for it

        return AsyncClient(self)

    # Life

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Whether everything recorded so far by this client was on the daemon's disk within `timeout_s`."""
        return self._closed or bool(self._result(self.flush_soon(), timeout_s))

    def flush_soon(self) -> Future[Any] | None:
        """`flush` as a future."""
        return self._command("flush")

    def close(self, timeout_s: float = EXIT_DRAIN_S) -> bool:
        """End the session and stop. Whether everything was on the daemon's disk within `timeout_s`.

        Records that were not stay in their rings, on disk, until a daemon reads them. Called at exit. Records after it
        are dropped.
        """
        return _close([self], timeout_s)

    def counters(self) -> dict[str, int]:
        """What became of this client's records so far; the sum is what was recorded.

        ``acknowledged``: on the daemon's disk. ``waiting``: in memory that outlives this process. ``spooled``: in a file
        on disk, until a daemon is there. ``dropped``: rings took too much room. ``invalid``: without a usable latency.
        ``refused``: by the daemon. ``lost``: neither memory nor a file could be had.
        """
        with self._lock:
            counts = self._counts
            found = {
                "acknowledged": counts.acknowledged,
                "waiting": 0,
                "dropped": counts.dropped,
                "invalid": counts.invalid,
                "refused": counts.refused,
                "spooled": counts.spooled,
                "lost": counts.lost,
            }
            for ring in self._rings():
                counted, rejected, waiting = ring.counts()
                found["acknowledged"] += counted
                found["refused"] += rejected
                found["waiting"] += waiting
        return found

    @property
    def omitted(self) -> dict[str, int]:
        """Optional values that were left out of records, by field."""
        return dict(self._values.omitted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(timeout_s=2.0)

    # Calls in progress: for `Inference`

    def call_started(self, model_id: str, version: str) -> int:
        """Mark that a call starts; its id, 0 when it could not be marked."""
        if self._closed:
            return 0
        call = next(self._call_ids)
        ring = self._ring
        try:
            if ring is not None:
                descriptor = layout.describe(layout.STARTED, ring.models[model_id, version] & 0xFFFFFFFF)
                number = ring.recorder.reserve()
                if number <= ring.limit[0]:
                    ring.recorder.write(number, 0.0, _time(), descriptor, b"", call)
                    return call
                self._guard(partial(self._fill, ring, number), records=0)
        except Exception:  # noqa: BLE001, S110 - a model that is new, or of another type
            pass
        self._guard(partial(self._write_model, layout.STARTED, model_id, version, 0.0, call), records=0)
        return call

    def call_finished(self, model_id: str, version: str, latency_ms: float, stats: dict[str, Any], call: int) -> None:
        """Record a call that was marked when it started."""
        self._guard(partial(self._write_call, None, 0, model_id, version, latency_ms, stats, _time(), call))

    def call_failed(self, error: BaseException, model_id: str, version: str, call: int) -> None:
        self._guard(partial(self._write_error, error, model_id, version, None, _time(), call))

    def call_cancelled(self, model_id: str, version: str, latency_ms: float, call: int) -> None:
        self._guard(partial(self._write_model, layout.CANCELLED, model_id, version, latency_ms, call))

    # Slots

    def _record_slowly(
        self, ring: Ring, number: int, model_id: Any, version: Any, latency_ms: Any, stats: Any, at_s: float
    ) -> None:
        """What a recorder could not write by itself."""
        self._guard(partial(self._write_call, ring, number, model_id, version, latency_ms, stats, at_s, 0))

    def _guard(self, act: Callable[[], None], *, records: int = 1) -> None:
        """Carry out `act` under the lock. What it raises costs what it would have recorded, and nothing else."""
        try:
            if self._closed:
                self._counts.dropped += records
                return
            if os.getpid() != self._pid:  # forked by C: no hook of Python's was called
                self._after_fork()
            with self._lock:
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
        if records and not self._counts.lost:
            log().warning("%d records could not be kept and are lost: %s (said once)", records, reason)
        self._counts.lost += records

    def _write_call(
        self,
        ring: Ring | None,
        number: int,
        model_id: Any,
        version: Any,
        latency_ms: Any,
        stats: dict[str, Any],
        at_s: float,
        call: int,
    ) -> None:
        if ring is not None and number and not (ring.pid == self._pid and ring.may_write(number)):
            number = 0
        clean = self._values.call(model_id, version, latency_ms, stats)
        if clean.latency_ms is None:
            self._counts.invalid += 1
            self._fill(ring, number)
            if call:
                self._write_model(layout.VOID, clean.model_id, clean.version, 0.0, call)
            return
        if number and ring is not None and ring is not self._ring:
            self._fill(ring, number)
            number = 0
        known = type(model_id) is str and type(version) is str
        self._append(
            lambda into: self._call_slot(into, clean, at_s, call, (model_id, version) if known else None), number
        )
        if clean.stats:
            self._more_stats(clean, at_s)

    def _call_slot(
        self, ring: Ring, clean: Call, at_s: float, call: int, known: tuple[str, str] | None
    ) -> tuple[float, float, int, bytes, int]:
        entry = ring.enter(layout.MODEL, [clean.model_id.encode(), clean.version.encode()])
        if known == (clean.model_id, clean.version):
            ring.models[known] = layout.describe(layout.INFERENCE, entry)
        descriptor = self._descriptor(layout.INFERENCE, entry, clean)
        names = Shape.first(clean.stats)
        bits, words = Shape.words({name: clean.stats.pop(name) for name in names})
        return clean.latency_ms or 0.0, at_s, descriptor | bits, words, call

    def _more_stats(self, clean: Call, at_s: float) -> None:
        """Stats that did not fit into the slot of their call."""
        number = self._written

        def build(ring: Ring) -> tuple[float, float, int, bytes, int]:
            entry = ring.enter(layout.MODEL, [clean.model_id.encode(), clean.version.encode()])
            bits, words = Shape.words(clean.stats)
            return 0.0, at_s, self._descriptor(layout.MORE_STATS, entry, clean) | bits, words, number

        self._append(build)

    @staticmethod
    def _descriptor(kind: int, entry: int, clean: Call) -> int:
        return (
            layout.describe(kind, entry) | clean.hardware << layout.HARDWARE_SHIFT | clean.target << layout.TARGET_SHIFT
        )

    def _write_model(self, kind: int, model_id: Any, version: Any, latency_ms: float, call: int) -> None:
        at_s, clean = _time(), self._values.call(model_id, version, latency_ms, {})

        def build(ring: Ring) -> tuple[float, float, int, bytes, int]:
            entry = ring.enter(layout.MODEL, [clean.model_id.encode(), clean.version.encode()])
            return clean.latency_ms or 0.0, at_s, layout.describe(kind, entry), b"", call

        self._append(build)

    def _write_error(self, error: Any, model_id: Any, version: Any, category: Any, at_s: float, call: int) -> None:
        text = text_of_error(error)
        number = self._values.category(category)
        data = cut(text, layout.MOST_ERROR_BYTES)
        if not number and len(text) * 4 > layout.MOST_ERROR_BYTES and len(data) < len(text.encode()):
            from xybridd.client.long_errors import category_of  # noqa: PLC0415 - rarely needed

            number = category_of(text)
        names = None
        if model_id is not None:
            names = [self._values.name("model_id", model_id, 256).encode() or b"unknown"]
            if version is not None:
                names.append(self._values.name("version", version, MOST_VERSION).encode())

        def build(ring: Ring) -> tuple[float, float, int, bytes, int]:
            model = 0 if names is None else ring.enter(layout.MODEL, names)
            entry = ring.enter(layout.ERROR_TEXT, [data])
            descriptor = layout.describe(layout.ERROR, entry) | number << layout.CATEGORY_SHIFT
            return 0.0, at_s, descriptor, model.to_bytes(8, "little"), call

        self._append(build)

    def _append(self, build: Callable[[Ring], tuple[float, float, int, bytes, int]], number: int = 0) -> None:
        """Write a slot into the current ring, or into the next one when that is full. ``number``: one reserved there."""
        for _ in range(3):
            if self._session_id is None:
                self._enter_session(new_id(), {})
                number = 0
            ring = self._ring or self._make_ring()
            if ring is None:
                self._counts.dropped += 1
                return
            try:
                slot = build(ring)
            except RingFull:
                self._fill(ring, number)
                self._table = min(self._table * 2, layout.MOST_TABLE_BYTES)
                self._retire(ring)
                number = 0
                continue
            number = number or ring.recorder.reserve()
            if ring.may_write(number):
                ring.recorder.write(number, *slot)
                self._written = number
                self._alert(ring, number)
                return
            self._slots = min(self._slots * 4, layout.MOST_SLOTS)
            self._retire(ring)
            number = 0
        self._counts.dropped += 1

    def _alert(self, ring: Ring, number: int) -> None:
        """The slow path was taken: the daemon may have to be woken, now or when the ring is half full."""
        thread = self._started_thread()
        if thread is None:
            ring.limit[0] = min(ring.limit[0], number + _RECORDS_TO_RETRY)
            return
        if not thread.connected:
            return
        if ring.reader_sleeps or ring.half_full(number):
            thread.wake_daemon()
        ring.alert_at_half(number)

    @staticmethod
    def _fill(ring: Ring | None, number: int) -> None:
        """A number that was reserved and holds nothing."""
        if ring is not None and number and ring.may_write(number):
            ring.recorder.write(number, 0.0, _time(), layout.describe(layout.VOID))

    # Rings

    def _rings(self) -> list[Ring]:
        """All of this process, in the order in which they were filled."""
        return [*self._full, *([] if self._ring is None else [self._ring])]

    def _make_ring(self) -> Ring | None:
        """Go on in a new ring: in a file, or in memory while no file can be had; None when there is no room at all."""
        now_s = time.monotonic()
        if now_s < self._next_ring_s:
            return None
        from xybridd import __version__  # noqa: PLC0415 - the package imports this module

        producer = [each.encode() for each in (self.client_id, self.app, self.app_version, __version__, "")]
        try:
            from xybridd.paths import boot_id, ring_folder, spool_folder  # noqa: PLC0415 - may need descriptors

            producer[-1] = boot_id().encode()
            folder = ring_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _bytes_in({folder, spool_folder()}) > MOST_BYTES:
                self._next_ring_s = now_s + _NEXT_RING_S
                if not self._counts.dropped:
                    log().warning("%d MiB of records wait for a daemon; new ones are dropped", MOST_BYTES // 2**20)
                return None
            ring = Ring.create(folder, producer, self._slots, self._table)
        except Exception as error:  # noqa: BLE001 - no descriptors, no room, a folder of another user
            if any(each.fd < 0 for each in self._full):  # one ring in memory is what a failure may cost
                self._next_ring_s = now_s + _NEXT_RING_S
                return None
            log().debug("a ring cannot be a file now, it is in memory: %s", error)
            ring = Ring.create(None, producer, layout.SLOTS, layout.TABLE_BYTES)
        ring.start(partial(self._record_slowly, ring))
        self._ring = ring
        if self._forked:
            self._forked = False
            _finish_at_end_of_child(self)
        if self._counts.dropped:
            self._report_drops(ring)
        if self._session_id is not None:
            self._enter_session(self._session_id, self._labels)
        self.record_inference = ring.recorder.record_inference  # type: ignore[method-assign]
        if (thread := self._started_thread()) is not None:
            thread.rings_changed()
        return ring

    def _report_drops(self, ring: Ring) -> None:
        dropped, self._reported_drops = self._counts.dropped - self._reported_drops, self._counts.dropped
        if dropped:
            number = ring.recorder.reserve()
            if ring.may_write(number):
                descriptor = layout.describe(layout.DROPPED)
                ring.recorder.write(number, 0.0, _time(), descriptor, dropped.to_bytes(8, "little"))

    _reported_drops = 0
    _written = 0
    _entered: str | None = None
    _forked = False

    def _retire(self, ring: Ring) -> None:
        """Nothing more goes into a ring; what is in it stays until a daemon has it."""
        ring.retire()
        if ring is self._ring:
            self._full.append(ring)
            self._ring = None
        self.settle_rings()

    def settle_rings(self) -> None:
        """Remove the rings that a daemon has whole, and count what was in them."""
        with self._lock:
            for ring in list(self._full):
                if ring.read_whole:
                    self._full.remove(ring)
                    self._settle(ring)
                    ring.remove()

    def _settle(self, ring: Ring) -> None:
        counted, rejected, waiting = ring.counts()
        self._counts.acknowledged += counted
        self._counts.refused += rejected
        self._counts.spooled += waiting

    # Sessions

    def _enter_session(self, session_id: str, labels: dict[str, str]) -> None:
        """Records from here on belong to it."""
        if session_id != self._session_id:
            self._session_id, self._labels, self._owns_session = session_id, labels, True
            self._started_at_ms = int(_time() * 1000)
        ring = self._ring
        if ring is None:
            self._make_ring()  # which enters it
            return
        self._session_slot(ring, layout.SESSION_STARTED)
        self._entered = session_id

    def _leave_session(self, *, ends: bool = False) -> None:
        """End the session, if this process started it or is told to; else leave it to the others."""
        if self._session_id is not None and (ring := self._ring or self._make_ring()) is not None:
            self._session_slot(ring, layout.SESSION_ENDED if ends or self._owns_session else layout.LEFT)
        self._session_id = None
        if self._ring is not None:
            self._ring.alert_at_next()  # the next record begins another session

    def _session_slot(self, ring: Ring, kind: int) -> None:
        strings = [self._session_id or "", str(self._started_at_ms)]
        for name, value in self._labels.items():
            strings += [name, value]
        try:
            entry = ring.enter(
                layout.SESSION, [each.encode() for each in strings], 0 if self._owns_session else layout.JOINED
            )
            number = ring.recorder.reserve()
            if ring.may_write(number):
                ring.recorder.write(number, 0.0, _time(), layout.describe(kind, entry))
                self._alert(ring, number)
                return
        except RingFull:
            pass
        # Full: the next ring begins with the session, and what was meant to be said goes behind that.
        self._retire(ring)
        if (fresh := self._make_ring()) is not None and kind != layout.SESSION_STARTED:
            self._session_slot(fresh, kind)

    # For the thread

    def unread_rings(self, *, all_of_them: bool = False) -> list[Ring]:
        """Rings that a daemon is to read, the earliest first; without a daemon's having said so, the one in use too."""
        with self._lock:
            return [ring for ring in self._rings() if all_of_them or ring is self._ring or not ring.read_whole]

    def has_unread(self) -> bool:
        return any(not ring.read_whole for ring in self._rings())

    def alert(self, ring: Ring) -> None:
        """A daemon reads a ring from now on: it wants to know when that is half full."""
        with self._lock:
            if not ring.retired:
                ring.may_write(0)
                ring.alert_at_half(ring.last)

    def keep_full_rings(self, *, connected: bool) -> None:
        """Full rings go to the disk, where no daemon reads them, and those in memory in any case."""
        with self._lock:
            if self._ring is not None and self._ring.path is None:
                self._next_ring_s = 0.0
                self._retire(self._ring)  # the next one may be a file
                self._make_ring()
        for ring in list(self._full):
            if (ring.path is None or not connected) and not ring.read_whole and ring.complete:
                ring.persist(_spool())

    def moved(self, session_id: str | None, *, replaced: bool) -> None:
        """The daemon answers in which session the records of this client are: it may have followed another."""
        with self._lock:
            before = self._session_id
            if session_id is None or before in {None, session_id} or self._entered != before:
                return
            self._entered = self._session_id = session_id
            if replaced and not self._owns_session:
                self._owns_session = True
                log().warning("the session %s is over; records go on in %s", before, session_id)

    # The thread

    def _started_thread(self) -> ConnectionThread | None:
        """The client's thread; None when it cannot be started now."""
        if self._thread is None or not self._thread.alive:
            try:
                from xybridd.client.connection_thread import ConnectionThread  # noqa: PLC0415 - an app that only imports

                thread = ConnectionThread(self)
                thread.start()
            except Exception as error:  # noqa: BLE001 - interpreter shutdown, a limit on threads
                log().debug("the client's thread cannot be started now: %s", error)
                return None
            self._thread = thread
        return self._thread

    def _command(self, name: str, *arguments: Any) -> Future[Any] | None:
        """Ask the thread for something; None when that cannot be."""
        if self._closed:
            return None
        if os.getpid() != self._pid:
            self._after_fork()
        try:
            with self._lock:
                thread = self._started_thread()
            return None if thread is None else thread.command(name, *arguments)
        except Exception:  # noqa: BLE001
            log().debug("the client could not ask for %s", name, exc_info=True)
            return None

    @staticmethod
    def _result(future: Future[Any] | None, timeout_s: float) -> Any:
        if future is None:
            return None
        try:
            return future.result(max(0.0, timeout_s))
        except Exception:  # noqa: BLE001 - it took too long, or the client was closed
            future.cancel()
            return None

    # The end

    def finish(self) -> Future[Any] | None:
        """Leave the session, and begin to bring everything to the daemon."""
        if self._closed:
            return None
        self._guard(self._leave_session, records=0)
        return self.flush_soon() if any(not each.read_whole for each in self._rings()) else None

    def stop(self, *, done: bool) -> None:
        """Nothing is recorded from now on. What no daemon has is put on disk."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.record_inference = self._dropped  # type: ignore[method-assign]
            rings = self._rings()
            self._full, self._ring = [], None
        thread, self._thread = self._thread, None
        attached = thread is not None and thread.connected
        if thread is not None:
            thread.stop(EXIT_DRAIN_S)
        for ring in rings:
            if not ring.retired:
                ring.retire()
            self._put_away(ring, attached=attached)
        _clients.discard(self)

    def _put_away(self, ring: Ring, *, attached: bool) -> None:
        if ring.read_whole:
            self._settle(ring)
            ring.remove()
            return
        try:
            if not attached:
                ring.persist(_spool())
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that is not ours
            if ring.path is None:
                self._lose(ring.counts()[2], error)
                return
        self._settle(ring)
        with contextlib.suppress(Exception):
            ring.disown()

    def _dropped(self, *_: Any, **__: Any) -> None:
        self._counts.dropped += 1

    def _after_fork(self) -> None:
        """In a child: what the parent wrote is the parent's."""
        thread, rings = self._thread, self._rings()
        if "record_inference" in self.__dict__:
            del self.record_inference
        self._begin()
        self._owns_session = False
        self._counts = _Counts()
        self._reported_drops = 0
        if thread is not None:
            thread.forget()
        for ring in rings:
            ring.limit[0] = 0
            ring.close()
        self._forked = True


class SilentClient(Client):
    """What `connect` returns when the environment says that nothing is to be recorded."""

    def _begin(self) -> None:
        super()._begin()
        self._closed = True

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float | None = None, **stats: Unpack[Stats]
    ) -> None:
        pass

    def record_error(
        self,
        error: str | BaseException,
        model_id: str | None = None,
        version: str | None = None,
        category: str | None = None,
    ) -> None:
        pass

    def _guard(self, act: Callable[[], None], *, records: int = 1) -> None:
        pass


def connect(
    app: str | None = None,
    *,
    app_version: str = "",
    labels: dict[str, str] | None = None,
    session_id: str | None = None,
    socket: str | Path | None = None,
) -> Client:
    """A client of this device's daemon, and a session; both at once, whether or not a daemon is there. Never raises.

    ``app`` names the app in every session (by default the name of the program); ``labels`` are strings that stand in
    the session; ``socket`` is for a daemon in an unusual place (else ``XYBRIDD_SOCKET``, the user's, the system's).
    """
    values = Values()
    name = values.name("app", app, MOST_APP) or os.path.basename(sys.argv[0] or "")[:MOST_APP] or "python"  # noqa: PTH119
    arguments = (
        name,
        values.name("app_version", app_version, MOST_VERSION),
        values.labels(labels),
        _session_id(session_id, values),
        None if socket is None else (socket,),
        values,
    )
    if opted_out():
        return SilentClient(*arguments)
    client = Client(*arguments)
    _clients.add(client)
    client._guard(client._make_ring, records=0)  # type: ignore[arg-type] # noqa: SLF001 - the session starts now
    return client


def _session_id(given: Any, values: Values) -> str | None:
    """The session to take part in; None for one of its own, also where no session can have such an id."""
    if given is None:
        return None
    text = str(given).lower()
    if len(text) == 36 and text.replace("-", "").isalnum() and text.count("-") == 4:
        return text
    values.omit("session_id", given, "left out: not a UUID")
    return None


def _spool() -> Path:
    """The folder on disk for what no daemon has. Raises OSError."""
    from xybridd.paths import spool_folder  # noqa: PLC0415

    folder = spool_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _bytes_in(folders: set[Path]) -> int:
    """What the rings in some folders take on the disk."""
    total = 0
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                total += sum(each.stat(follow_symlinks=False).st_blocks * 512 for each in entries)
        except OSError:
            continue
    return total


def _close(clients: list[Client], timeout_s: float) -> bool:
    """Close clients, and wait for all of them at once; whether a daemon has everything."""
    waiting = [(client, client.finish()) for client in clients]
    deadline = time.monotonic() + timeout_s
    done = True
    for client, future in waiting:
        brought = future is None or bool(client._result(future, deadline - time.monotonic()))  # noqa: SLF001
        client.stop(done=brought)
        done = done and brought
    return done


#: Every client that is not closed: one that the app holds no more still has a session to end.
_clients: set[Client] = set()


def _close_all() -> None:
    _close(list(_clients), EXIT_DRAIN_S)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - the module's own


def _finish_at_end_of_child(client: Client) -> None:
    """Multiprocessing ends its children without the usual handlers; it has its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        with contextlib.suppress(Exception):
            util.Finalize(client, client.close, exitpriority=10)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
