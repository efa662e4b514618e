"""The client's one thread: from the app's queue to the daemon's acknowledgement.

It sleeps until a record comes, lets more gather for `FLUSH_INTERVAL_S`, sends them as numbered batches and keeps each
until the daemon says it is on disk. While the daemon is away everything stays in the app's queue, which is bounded;
it is tried again, sooner while records wait than when none do. When the daemon says "not now", it is left alone for
as long as it said.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.client.connection import Connection, error_from
from xybridd.client.outbox import Batch, Call, Item, Outbox, encode_records, record_of
from xybridd.errors import (
    DaemonUnreachable,
    InternalError,
    Overloaded,
    SessionEnded,
    StorageUnavailable,
    UnknownSession,
    WireError,
)
from xybridd.protocol.messages import BatchResult, SessionIdResult

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

_FIRST_RETRY_S = 0.025
_LONGEST_RETRY_S = 1.0
_IDLE_RETRY_S = 5.0
_HANDSHAKE_S = 5.0
_MOST_TRIES = 5


class Mark:
    """Something the app asks for, at its place among the records in the queue."""

    def __init__(self, act: Callable[[Flusher, Mark], None], **arguments: Any) -> None:
        self.act = act
        self.arguments = arguments
        self.result: Any = None
        self._done = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def finish(self, result: Any = None) -> None:
        self.result = result
        self._done.set()


class Flusher:
    """Start it and wake it; it works until a `close` mark is carried out, or it is told to give up."""

    def __init__(self, shared: Shared) -> None:
        #: The app's threads look at this one: whether a record has to wake the flusher.
        self.asleep = False
        self._shared = shared
        self._queue = shared.queue
        self._outbox = Outbox()
        self._connection: Connection | None = None
        self._retry_s = _FIRST_RETRY_S
        self._next_try_s = 0.0
        self._drain_at_s = 0.0
        self._urgent = False
        self._gave_up = False
        self._closing = False
        self._reported_drops = 0
        self._flushes: list[tuple[int, Mark]] = []
        self._reader, self._waker = socket.socketpair()
        self._waker_lock = threading.RLock()  # a signal handler may record in the midst of it
        self._waker.setblocking(False)
        self._reader.setblocking(False)
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

    def give_up(self) -> None:
        self._gave_up = True
        self.wake()

    def waiting(self) -> int:
        """Records that were taken from the queue and are not acknowledged yet."""
        return self._outbox.records

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent, without a word to the daemon."""
        self._reader.close()
        self._waker.close()
        if self._connection is not None:
            self._connection.close()

    # On its own thread

    def _run(self) -> None:
        try:
            while not (self._gave_up or (self._closing and not self._outbox)):
                self._turn()
        except Exception:
            log.exception("the flusher failed; nothing more is recorded by this client")
        finally:
            self._disconnect()
            with self._waker_lock:
                self._waker.close()
            self._reader.close()
            for _, mark in self._flushes:
                mark.finish()

    def _turn(self) -> None:
        now_s = time.monotonic()
        if self._connection is None and self._wants_connection() and now_s >= self._next_try_s:
            self._connect()
        if self._connection is not None and self._queue and (self._urgent or now_s >= self._drain_at_s):
            self._drain()
        if self._connection is not None and now_s >= self._next_try_s:
            self._send_due()
        self._finish_flushes()
        if not (self._closing and not self._outbox):
            self._rest()

    def _wants_connection(self) -> bool:
        # Also without anything to send: a session lives as long as its producer is connected.
        return bool(self._queue or self._outbox or self._shared.session_id is not None)

    def _rest(self) -> None:
        """Sleep until there is something to do: an answer, a record, a deadline."""
        self.asleep = True
        # Only now is the queue looked at: a record that comes later finds `asleep` set, and wakes.
        wait_s = self._pause_s()
        listen: list[Any] = [self._reader]
        if self._connection is not None:
            listen.append(self._connection)
        ready = select.select(listen, [], [], wait_s)[0]
        self.asleep = False
        if self._reader in ready:
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(4096)
            if time.monotonic() >= self._drain_at_s:
                self._drain_at_s = time.monotonic() + FLUSH_INTERVAL_S
        if self._connection is not None and self._connection in ready:
            self._receive()

    def _pause_s(self) -> float | None:
        """How long nothing is to be done; None: until something comes."""
        now_s = time.monotonic()
        deadlines = []
        if self._connection is None:
            if self._wants_connection():
                deadlines.append(self._next_try_s)
        else:
            if next(iter(self._outbox.due()), None) is not None:
                deadlines.append(self._next_try_s)
            if self._queue and len(self._outbox) < _MOST_BATCHES:
                deadlines.append(0.0 if self._urgent else self._drain_at_s)
        if self._queue:
            self.asleep = False
        return max(0.0, min(deadlines) - now_s) if deadlines else None

    # Queue to outbox

    def _drain(self) -> None:
        """Turn what is in the queue now into batches and calls."""
        self._urgent = False
        self._drain_at_s = time.monotonic() + FLUSH_INTERVAL_S
        records: list[Record] = []
        left = len(self._queue)
        while left and self._queue and len(self._outbox) < _MOST_BATCHES:
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
        session_id = self._shared.session_id or self._begin(str(uuid.uuid4()), {})
        dropped, self._reported_drops = self._shared.dropped - self._reported_drops, self._shared.dropped
        batch = self._outbox.add_batch(session_id, encoded, len(records) - left_out, dropped)
        batch.flush = len(self._outbox) >= _BATCHES_TO_HURRY

    # Marks

    def flush(self, mark: Mark) -> None:
        self._hurry()
        self._flushes.append((self._outbox.last_place, mark))

    def start_session(self, mark: Mark) -> None:
        self._begin(mark.arguments["session_id"], mark.arguments["labels"])
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

    def _begin(self, session_id: str, labels: dict[str, str], *, first: bool = False) -> str:
        """Start a session, or take it up again: what is batched from now on is its."""
        shared = self._shared
        if session_id != shared.session_id:
            shared.session_id, shared.labels, shared.started_at_ms = (
                session_id,
                labels,
                int(time.time() * 1000),
            )

        def done(result: msgspec.Raw | None) -> None:
            if result is not None:
                self._goes_on_in(session_id, msgspec.json.decode(result, type=SessionIdResult).session_id)

        arguments = {"session_id": session_id, "started_at_ms": shared.started_at_ms, "labels": labels}
        call = Call("session.start", arguments, done)
        if first:
            self._outbox.put_first(call)
        else:
            self._outbox.add_call(call)
        return session_id

    def _goes_on_in(self, before: str, after: str) -> None:
        """The daemon let a session roll over, and answers with the id of its successor."""
        if after != before and self._shared.session_id == before:
            self._shared.session_id = after

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

    # Outbox to daemon

    def _connect(self) -> None:
        who = self._shared
        hello = {
            "app": who.app,
            "client_id": who.client_id,
            "app_version": who.app_version,
            "sdk_version": who.sdk_version,
        }
        try:
            connection = Connection.open(who.sockets, _HANDSHAKE_S)
            try:
                last_seq = connection.call("hello", hello, _HANDSHAKE_S)["last_seq"]
            except BaseException:
                connection.close()
                raise
        except (DaemonUnreachable, WireError) as error:
            self._away(error)
            return
        log.debug("connected to the daemon")
        self._connection = connection
        self._retry_s = _FIRST_RETRY_S
        for batch in self._outbox.acknowledge(last_seq):
            who.acknowledged += batch.count
        if who.session_id is not None and not self._outbox.starts(who.session_id):
            # Say that this session goes on; should it have ended meanwhile, the answer says so.
            self._begin(who.session_id, who.labels, first=True)

    def _away(self, error: Exception) -> None:
        if self._retry_s == _FIRST_RETRY_S:
            log.debug("no daemon (%s); records wait", error)
        self._next_try_s = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S if self._queue or self._outbox else _IDLE_RETRY_S)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._outbox.recall()

    def _send_due(self) -> None:
        assert self._connection is not None  # noqa: S101 - called only with one
        try:
            for item in self._outbox.due():
                self._outbox.sent(self._connection.send(item.method, item.params()), item)
        except DaemonUnreachable as error:
            self._disconnect()
            self._away(error)

    def _receive(self) -> None:
        assert self._connection is not None  # noqa: S101 - called only with one
        try:
            answers = self._connection.receive(0)
        except DaemonUnreachable as error:
            self._disconnect()
            self._away(error)
            return
        for answer in answers:
            item = self._outbox.answered(answer.id)
            if item is None:
                continue
            if answer.error is None:
                self._done(item, answer.result)
            else:
                self._refused(item, error_from(answer))

    def _done(self, item: Item, result: msgspec.Raw) -> None:
        self._outbox.settle(item)
        if isinstance(item, Call):
            item.done(result)
            return
        self._shared.acknowledged += item.count
        answered = msgspec.json.decode(result, type=BatchResult).session_id
        if answered is not None:
            self._goes_on_in(item.session_id, answered)

    def _refused(self, item: Item, error: WireError) -> None:
        """Not now: keep it. Its session is over: put it into one that is not. Never: give it up, and count it."""
        item.tries += 1
        again = item.tries < _MOST_TRIES
        if isinstance(error, Overloaded | StorageUnavailable) or (isinstance(error, InternalError) and again):
            self._outbox.recall()
            self._next_try_s = time.monotonic() + error.data.get("retry_after_ms", 1000) / 1000
        elif isinstance(item, Call):
            self._outbox.settle(item)
            log.debug("%s was refused: %s", item.method, error)
            if item.arguments["session_id"] == self._shared.session_id and again:
                # It could not be started, or taken up again: what comes next goes into a session of its own.
                self._begin(str(uuid.uuid4()), self._shared.labels, first=True)
            item.done(None)
        elif isinstance(error, UnknownSession | SessionEnded) and again:
            self._move_on_from(item.session_id)
        else:
            log.warning("the daemon refused %d records: %s", item.count, error)
            self._shared.refused += item.count
            self._outbox.settle(item)

    def _move_on_from(self, gone: str) -> None:
        """That session is over: what was meant for it goes into the next one."""
        self._outbox.recall()
        if self._shared.session_id in {gone, None}:
            self._begin(str(uuid.uuid4()), self._shared.labels, first=True)
        for item in self._outbox.items:
            if isinstance(item, Batch) and item.session_id == gone:
                item.session_id = self._shared.session_id or gone
