"""The client's one thread: from the app's queue to the daemon's acknowledgement.

It sleeps until a record comes, lets more gather for `FLUSH_INTERVAL_S`, sends them as numbered batches and keeps each
until the daemon says it is on disk. While the daemon is away everything stays in the app's queue, which is bounded;
it is tried again, sooner while records wait than when none do. When the daemon says "not now", it is left alone for
as long as it said.

What is left when the thread ends goes into the spool (`xybridd.client.spool`), as does half of a queue that is about to
be full. Spools that this user's processes left are delivered when there is nothing else to do.
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

from xybridd.client import spool
from xybridd.client.connection import Connection, error_from
from xybridd.client.outbox import Batch, Call, Item, Outbox, encode_records, record_of
from xybridd.client.questions import Questions
from xybridd.errors import (
    DaemonUnreachable,
    InternalError,
    Overloaded,
    SessionEnded,
    StorageUnavailable,
    UnknownSession,
    WireError,
)
from xybridd.paths import boot_id, spool_folder
from xybridd.protocol.messages import BatchResult, SessionIdResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

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

#: So many records waiting without a daemon go into the spool: half of what the queue holds.
_OVERFLOW_RECORDS = 50_000


class _Clock:
    """Held where a test of the app's that stops the clock does not look for it: deadlines here go on."""

    monotonic = staticmethod(time.monotonic)


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
        self._questions = Questions(shared.watchers)
        self._overflow: list[Path] = []
        self._foreign_due = False
        #: The connection that this thread may be waiting for, for who wants it to end now.
        self._at: Connection | None = None
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
        for connection in (self._connection, self._at):
            if connection is not None:
                connection.break_off()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

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
                try:
                    self._turn()
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    self._renew()
        except Exception:
            log.exception("the flusher failed; nothing more is recorded by this client")
        finally:
            self._disconnect()
            self._spool_rest()
            with self._waker_lock, contextlib.suppress(OSError):
                self._waker.close()
            with contextlib.suppress(OSError):
                self._reader.close()
            self._questions.close()
            for _, mark in self._flushes:
                mark.finish()

    def _renew(self) -> None:
        """The app closed all descriptors, as who detaches itself does. Their numbers may be its own files by now."""
        with self._waker_lock:
            self._waker.detach()
            self._reader.detach()
            self._reader, self._waker = _waker()
        if self._connection is not None:
            self._connection.forget()
        self._disconnect()

    def _turn(self) -> None:
        now_s = _Clock.monotonic()
        if self._connection is None and self._wants_connection() and now_s >= self._next_try_s:
            self._connect()
        if self._connection is None and len(self._queue) >= _OVERFLOW_RECORDS:
            self._spool_overflow()
        if self._connection is not None and self._queue and (self._urgent or now_s >= self._drain_at_s):
            self._drain()
        if self._connection is not None and now_s >= self._next_try_s:
            self._send_due()
        if self._foreign_due and self._connection is not None and not (self._outbox or self._queue or self._closing):
            self._foreign_due = False
            self._deliver(spool.waiting(spool_folder()))
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
            if _Clock.monotonic() >= self._drain_at_s:
                self._drain_at_s = _Clock.monotonic() + FLUSH_INTERVAL_S
        if self._connection is not None and self._connection in ready:
            self._receive()

    def _pause_s(self) -> float | None:
        """How long nothing is to be done; None: until something comes."""
        now_s = _Clock.monotonic()
        deadlines = []
        if self._connection is None:
            if self._wants_connection():
                deadlines.append(self._next_try_s)
        else:
            if self._questions.due or next(iter(self._outbox.due()), None) is not None:
                deadlines.append(self._next_try_s)
            if self._queue and len(self._outbox) < _MOST_BATCHES:
                deadlines.append(0.0 if self._urgent else self._drain_at_s)
        if self._queue:
            self.asleep = False
        return max(0.0, min(deadlines) - now_s) if deadlines else None

    # Queue to outbox

    def _drain(self, *, everything: bool = False) -> None:
        """Turn what is in the queue now into batches and calls, as many as may wait for the daemon or all."""
        self._urgent = False
        self._drain_at_s = _Clock.monotonic() + FLUSH_INTERVAL_S
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

    def ask(self, mark: Mark) -> None:
        """A question goes out beside what is recorded: it waits for no disk."""
        if self._connection is None:
            mark.finish()
        else:
            self._questions.add(mark)

    def watch(self, mark: Mark) -> None:
        self._questions.watch(mark.arguments["callback"])
        mark.finish()

    def _begin(self, session_id: str, labels: dict[str, str], *, first: bool = False) -> str:
        """Start a session, or take it up again: what is batched from now on is its."""
        shared = self._shared
        if session_id != shared.session_id:
            shared.owns_session = True
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

    def _resume(self) -> None:
        """Say first that the session starts, or goes on; should it have ended meanwhile, the answer says so."""
        who = self._shared
        if who.session_id is not None and not self._outbox.starts(who.session_id):
            self._begin(who.session_id, who.labels, first=True)

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

    # What cannot go to the daemon now, to the disk

    def _producer(self, client_id: str) -> spool.Producer:
        who = self._shared
        return spool.Producer(who.app, client_id, who.app_version, who.sdk_version, boot_id=boot_id())

    def _spool(self, outbox: Outbox, client_id: str) -> None:
        """What is in it is on disk afterwards, or lost and counted."""
        shared, records = self._shared, outbox.records
        if not records:
            return
        try:
            requests = ((item.method, item.params()) for item in outbox.items)
            path = spool.write(spool_folder(), self._producer(client_id), requests)
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that is not ours: the app goes on
            shared.count_lost(records, error)
        else:
            shared.spooled += records
            if client_id != shared.client_id:
                self._overflow.append(path)
        outbox.items.clear()

    def _spool_rest(self) -> None:
        """At the end: everything that was not acknowledged, under the numbers it had."""
        try:
            self._resume()
            self._drain(everything=True)
            if self._closing and self._shared.session_id is not None and self._shared.owns_session:
                self.end_session(Mark(Flusher.end_session))  # of what was recorded while the process ended
            self._spool(self._outbox, self._shared.client_id)
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
        self._spool(outbox, str(uuid.uuid4()))

    def _deliver(self, paths: Iterable[Path]) -> bool:
        """Bring spools to the daemon; False when it went away or had no room, and they stay."""

        def at(connection: Connection | None) -> None:
            self._at = connection
            if connection is not None and self._gave_up:
                connection.break_off()

        try:
            for path in paths:
                spool.deliver(path, self._shared.sockets, at)
        except (DaemonUnreachable, WireError) as error:
            self._foreign_due = True
            self._away(error)
            return False
        except OSError as error:
            log.debug("a spool is left for another time: %s", error)
        return True

    # Outbox to daemon

    def _connect(self) -> None:
        who = self._shared
        hello = {
            "app": who.app,
            "client_id": who.client_id,
            "app_version": who.app_version,
            "sdk_version": who.sdk_version,
            "boot_id": boot_id(),
        }
        try:
            connection = Connection.open(who.sockets, _HANDSHAKE_S)
            self._at = connection
            try:
                if self._gave_up:
                    raise DaemonUnreachable("this process ends", ())
                last_seq = connection.call("hello", hello, _HANDSHAKE_S)["last_seq"]
            except BaseException:
                connection.close()
                raise
            finally:
                self._at = None
        except (DaemonUnreachable, WireError) as error:
            self._away(error)
            return
        if not self._deliver(self._overflow):
            connection.close()
            return
        self._overflow = []
        log.debug("connected to the daemon")
        self._foreign_due = True
        self._connection = connection
        self._retry_s = _FIRST_RETRY_S
        for batch in self._outbox.acknowledge(last_seq):
            who.acknowledged += batch.count
        self._resume()

    def _away(self, error: Exception) -> None:
        if self._retry_s == _FIRST_RETRY_S:
            log.debug("no daemon (%s); records wait", error)
        self._next_try_s = _Clock.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S if self._queue or self._outbox else _IDLE_RETRY_S)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._questions.lost()
        self._outbox.recall()

    def _send_due(self) -> None:
        assert self._connection is not None  # noqa: S101 - called only with one
        try:
            self._questions.send(self._connection)
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
            if self._questions.take(answer):
                continue
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
            self._next_try_s = _Clock.monotonic() + error.data.get("retry_after_ms", 1000) / 1000
        elif isinstance(item, Call):
            self._outbox.settle(item)
            level = logging.DEBUG if self._shared.owns_session else logging.WARNING
            log.log(level, "%s was refused: %s", item.method, error)
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


#: What changes which session the records behind it belong to.
_ABOUT_SESSIONS = (Flusher.start_session, Flusher.end_session, Flusher.close)


def _waker() -> tuple[socket.socket, socket.socket]:
    """Where the flusher hears that it is woken, and where it is woken."""
    reader, waker = socket.socketpair()
    reader.setblocking(False)
    waker.setblocking(False)
    return reader, waker
