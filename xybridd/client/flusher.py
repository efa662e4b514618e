"""The client's one thread: from the app's queue to the outbox, and the order of everything.

It sleeps until a record comes, lets more gather for `FLUSH_INTERVAL_S`, and makes numbered batches of them, which the
carrier (`xybridd.client.carrier`) brings to the daemon. While the daemon is away records stay in the app's queue, which
is bounded.

What is left when the thread ends goes into the spool, as does half of a queue that is about to be full. Spools that
this user's processes left are delivered when there is nothing else to do.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.client.carrier import Carrier, Clock
from xybridd.client.outbox import Call, Outbox, encode_records, record_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Shared
    from xybridd.protocol.records import Record

log = logging.getLogger(__name__)

#: How long records gather before they are sent: what an app that is killed can lose at most.
FLUSH_INTERVAL_S = 0.5

_BATCH_RECORDS = 1000

#: Past so many batches that the daemon has not acknowledged, records wait in the queue.
_MOST_BATCHES = 32

#: Past so many, a batch asks for its commit at once: waiting for company is for a trickle, a stream is its own.
_BATCHES_TO_HURRY = 4

#: Records converted before other threads get a turn: some tens of microseconds.
_TURN_RECORDS = 32

#: So many records waiting without a daemon go into the spool: half of what the queue holds.
_OVERFLOW_RECORDS = 50_000


class Mark:
    """Something the app asks for, at its place among the records in the queue."""

    def __init__(self, act: Callable[[Flusher, Mark], None], **arguments: Any) -> None:
        self.act = act
        self.arguments = arguments
        self.result: Any = None
        self._done = threading.Event()
        self._told: Callable[[], None] | None = None

    def wait(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def then(self, told: Callable[[], None]) -> None:
        """Call `told` when it is done, on the flusher's thread, or now."""
        self._told = told
        if self._done.is_set():
            told()

    def finish(self, result: Any = None) -> None:
        self.result = result
        self._done.set()
        if self._told is not None:
            self._told()


class Flusher:
    """Start it and wake it; it works until a `close` mark is carried out, or it is told to give up."""

    def __init__(self, shared: Shared) -> None:
        #: The app's threads look at this one: whether a record has to wake the flusher.
        self.asleep = False
        self._shared = shared
        self._queue = shared.queue
        self._carrier = Carrier(shared)
        self._outbox = self._carrier.outbox
        self._drain_at_s = 0.0
        self._urgent = False
        self._gave_up = False
        self._closing = False
        self._reported_drops = 0
        self._flushes: list[tuple[int, Mark]] = []
        self._reader, self._waker = _waker()
        self._waker_lock = threading.RLock()  # a signal handler may record in the midst of it
        self._thread = threading.Thread(target=self._run, name="xybridd-flusher", daemon=True)

    # From the app's threads

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self, *, urgent: bool = False) -> None:
        """From any thread: a byte into a socket. ``urgent``: do not wait for more records to gather."""
        if urgent:
            self._urgent = True
        # Full: it is being woken already. Closed: nobody is there to be woken. The lock keeps the two apart, so that
        # the byte never goes to a file that got the number of a closed one.
        with self._waker_lock, contextlib.suppress(OSError):
            self._waker.send(b"!")

    def give_up(self, timeout_s: float) -> bool:
        """End now: what is left goes into the spool. Whether it ended within `timeout_s`."""
        self._gave_up = True
        self.wake()
        self._carrier.give_up()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def waiting(self) -> int:
        """Records that were taken from the queue and are not acknowledged yet."""
        return self._outbox.records

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent, without a word to the daemon."""
        self._reader.close()
        self._waker.close()
        self._carrier.forget()

    # On its own thread

    def _run(self) -> None:
        try:
            while not (self._gave_up or (self._closing and not self._outbox)):
                try:
                    self._turn()
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    self._renew()
        except Exception:
            log.exception("the flusher failed; nothing more is recorded by this client")
        finally:
            self._carrier.disconnect()
            self._spool_rest()
            with self._waker_lock, contextlib.suppress(OSError):
                self._waker.close()
            with contextlib.suppress(OSError):
                self._reader.close()
            self._carrier.questions.close()
            for _, mark in self._flushes:
                mark.finish()

    def _renew(self) -> None:
        """The app closed all descriptors, as who detaches itself does. Their numbers may be its own files by now."""
        with self._waker_lock:
            self._waker.detach()
            self._reader.detach()
            self._reader, self._waker = _waker()
        self._carrier.leave()

    def _turn(self) -> None:
        carrier, now_s = self._carrier, Clock.monotonic()
        if carrier.connection is None and carrier.wants_connection() and now_s >= carrier.next_try_s:
            carrier.connect()
        if carrier.connection is None and len(self._queue) >= _OVERFLOW_RECORDS:
            self._spool_overflow()
        if carrier.connection is not None and self._queue and (self._urgent or now_s >= self._drain_at_s):
            self._drain()
        if carrier.connection is not None and now_s >= carrier.next_try_s:
            carrier.send_due()
        idle = not (self._outbox or self._queue or self._closing)
        if idle and carrier.foreign_due and carrier.connection is not None:
            carrier.deliver_foreign()
        self._finish_flushes()
        if not (self._closing and not self._outbox):
            self._rest()

    def _rest(self) -> None:
        """Sleep until there is something to do: an answer, a record, a deadline."""
        self.asleep = True
        # Only now is the queue looked at: a record that comes later finds `asleep` set, and wakes.
        wait_s = self._pause_s()
        listen: list[Any] = [self._reader]
        connection = self._carrier.connection
        if connection is not None:
            listen.append(connection)
        ready = select.select(listen, [], [], wait_s)[0]
        self.asleep = False
        if self._reader in ready:
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(4096)
            if Clock.monotonic() >= self._drain_at_s:
                self._drain_at_s = Clock.monotonic() + FLUSH_INTERVAL_S
        if connection is not None and connection in ready:
            self._carrier.receive()

    def _pause_s(self) -> float | None:
        """How long nothing is to be done; None: until something comes."""
        now_s = Clock.monotonic()
        deadlines = []
        if self._carrier.connection is None:
            if self._carrier.wants_connection():
                deadlines.append(self._carrier.next_try_s)
        else:
            if self._carrier.due():
                deadlines.append(self._carrier.next_try_s)
            if self._queue and len(self._outbox) < _MOST_BATCHES:
                deadlines.append(0.0 if self._urgent else self._drain_at_s)
        if self._queue:
            self.asleep = False
        return max(0.0, min(deadlines) - now_s) if deadlines else None

    # Queue to outbox

    def _drain(self, *, everything: bool = False) -> None:
        """Turn what is in the queue now into batches and calls, as many as may wait for the daemon or all."""
        self._urgent = False
        self._drain_at_s = Clock.monotonic() + FLUSH_INTERVAL_S
        records: list[Record] = []
        left = len(self._queue)
        while left and self._queue and (everything or len(self._outbox) < _MOST_BATCHES):
            given = self._queue.popleft()
            left -= 1
            if isinstance(given, Mark):
                self._batch(records)
                records = []
                given.act(self, given)
                continue
            try:
                records.append(record_of(given))
            except (TypeError, ValueError, OverflowError):
                self._shared.count_invalid(1)
            if len(records) >= _BATCH_RECORDS:
                self._batch(records)
                records = []
            elif not len(records) % _TURN_RECORDS:
                time.sleep(0)  # the app's threads go first
        self._batch(records)
        if left:
            self._urgent = True  # go on as soon as there is room again

    def _batch(self, records: list[Record]) -> None:
        if not records:
            return
        encoded, left_out = encode_records(records)
        self._shared.count_invalid(left_out)
        if left_out == len(records):
            return
        session_id = self._shared.session_id or self._carrier.begin(str(uuid.uuid4()), {})
        dropped, self._reported_drops = self._shared.dropped - self._reported_drops, self._shared.dropped
        batch = self._outbox.add_batch(session_id, encoded, len(records) - left_out, dropped)
        batch.flush = len(self._outbox) >= _BATCHES_TO_HURRY

    # Marks

    def flush(self, mark: Mark) -> None:
        self._hurry()
        self._flushes.append((self._outbox.last_place, mark))

    def start_session(self, mark: Mark) -> None:
        self._carrier.begin(mark.arguments["session_id"], mark.arguments["labels"])
        mark.finish()

    def end_session(self, mark: Mark) -> None:
        session_id = self._shared.session_id
        self._shared.session_id = None
        if session_id is None:
            mark.finish()
            return
        self._hurry()

        def done(result: msgspec.Raw | None) -> None:
            mark.finish(None if result is None else msgspec.json.decode(result))

        self._outbox.add_call(Call("session.end", {"session_id": session_id}, done))

    def close(self, mark: Mark) -> None:
        self._closing = True
        if self._shared.owns_session:
            self.end_session(mark)
        else:
            self._shared.session_id = None
            self.flush(mark)

    def ask(self, mark: Mark) -> None:
        """A question goes out beside what is recorded: it waits for no disk."""
        if self._carrier.connection is None:
            mark.finish()
        else:
            self._carrier.questions.add(mark)

    def watch(self, mark: Mark) -> None:
        self._carrier.questions.watch(mark.arguments["callback"])
        mark.finish()

    def _hurry(self) -> None:
        """Ask for what is not on disk yet to be committed now."""
        last = self._outbox.last_batch()
        if last is not None and self._outbox.is_underway(last):
            # It went out without asking for haste; an empty batch behind it asks.
            last = self._outbox.add_batch(last.session_id, b"[]", 0, 0)
        if last is not None:
            last.flush = True

    def _finish_flushes(self) -> None:
        waiting = []
        for place, mark in self._flushes:
            if self._outbox.done_up_to(place):
                mark.finish(result=True)
            else:
                waiting.append((place, mark))
        self._flushes = waiting

    # What cannot go to the daemon now, to the disk

    def _spool_rest(self) -> None:
        """At the end: everything that was not acknowledged, under the numbers it had."""
        try:
            self._carrier.resume()
            self._drain(everything=True)
            if self._closing and self._shared.session_id is not None and self._shared.owns_session:
                self.end_session(Mark(Flusher.end_session))  # of what was recorded while the process ended
            self._carrier.spool()
        except Exception:
            log.exception("what was not acknowledged could not be kept")

    def _spool_overflow(self) -> None:
        """The oldest records leave the queue: as another producer's in the same session, brought before all others."""
        session_id = self._shared.session_id
        given: list[Any] = []
        asked: list[Mark] = []
        while self._queue and len(given) < _OVERFLOW_RECORDS:
            each = self._queue.popleft()
            if isinstance(each, Mark):
                asked.append(each)
                if each.act in _ABOUT_SESSIONS:
                    break  # what comes behind it is another session's
            else:
                given.append(each)
        self._queue.extendleft(reversed(asked))
        if session_id is None or not given:
            return
        outbox = Outbox()
        shared = self._shared
        start = {"session_id": session_id, "started_at_ms": shared.started_at_ms, "labels": shared.labels}
        outbox.add_call(Call("session.start", start, lambda _: None))
        for first in range(0, len(given), _BATCH_RECORDS):
            records = []
            for each in given[first : first + _BATCH_RECORDS]:
                try:
                    records.append(record_of(each))
                except (TypeError, ValueError, OverflowError):
                    shared.count_invalid(1)
            encoded, left_out = encode_records(records)
            shared.count_invalid(left_out)
            outbox.add_batch(session_id, encoded, len(records) - left_out, 0)
        self._carrier.spool_apart(outbox)


#: What changes which session the records behind it belong to.
_ABOUT_SESSIONS = (Flusher.start_session, Flusher.end_session, Flusher.close)


def _waker() -> tuple[socket.socket, socket.socket]:
    """Where the flusher hears that it is woken, and where it is woken."""
    reader, waker = socket.socketpair()
    reader.setblocking(False)
    waker.setblocking(False)
    return reader, waker
