"""From the outbox to the daemon's acknowledgement, or to a file.

What is in the outbox goes to the daemon as soon as one is there, and stays until that says it is on disk. While the
daemon is away it is looked for again, sooner while something waits than when nothing does; when it says "not now", it
is left alone for as long as it said. What cannot go to it goes into the spool (`xybridd.client.spool`), and spools that
this user's processes left are brought to it.

All of it happens on the flusher's thread, which decides when; `give_up` and `forget` alone come from others.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from xybridd.client import spool
from xybridd.client.connection import Connection, error_from
from xybridd.client.outbox import Batch, Call, Item, Outbox
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
    from collections.abc import Iterable
    from pathlib import Path

    from xybridd.client.client import Shared

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.025
_LONGEST_RETRY_S = 1.0
_IDLE_RETRY_S = 5.0
_HANDSHAKE_S = 5.0
_MOST_TRIES = 5


class Clock:
    """Held where a test of the app's that stops the clock does not look for it: deadlines here go on."""

    monotonic = staticmethod(time.monotonic)


class Carrier:
    """``connection`` is None while no daemon is there; before ``next_try_s`` (monotonic) nothing is to be begun."""

    def __init__(self, shared: Shared) -> None:
        self.outbox = Outbox()
        self.questions = Questions(shared.watchers)
        self.connection: Connection | None = None
        self.next_try_s = 0.0
        self.retry_s = _FIRST_RETRY_S
        #: Whether there may be spools that other processes left.
        self.foreign_due = False
        self._shared = shared
        self._overflow: list[Path] = []
        self._gave_up = False
        #: The connection that this thread may be waiting for, for who wants it to end now.
        self._at: Connection | None = None

    # From any thread

    def give_up(self) -> None:
        """Wait for the daemon no longer: whatever does is told that the connection broke."""
        self._gave_up = True
        for connection in (self.connection, self._at):
            if connection is not None:
                connection.break_off()

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent, without a word to the daemon."""
        if self.connection is not None:
            self.connection.close()

    # The connection

    def wants_connection(self) -> bool:
        # Also without anything to send: a session lives as long as its producer is connected.
        return bool(self._shared.queue or self.outbox or self._shared.session_id is not None)

    def due(self) -> bool:
        """Whether something is to be sent."""
        return self.questions.due or next(iter(self.outbox.due()), None) is not None

    def connect(self) -> None:
        """Find a daemon, and take up where its predecessor left off; or wait longer than the last time."""
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
        self.foreign_due = True
        self.connection = connection
        self.retry_s = _FIRST_RETRY_S
        for batch in self.outbox.acknowledge(last_seq):
            who.acknowledged += batch.count
        self.resume()

    def _away(self, error: Exception) -> None:
        if self.retry_s == _FIRST_RETRY_S:
            log.debug("no daemon (%s); records wait", error)
        self.next_try_s = Clock.monotonic() + self.retry_s
        waits = self._shared.queue or self.outbox
        self.retry_s = min(self.retry_s * 2, _LONGEST_RETRY_S if waits else _IDLE_RETRY_S)

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.questions.lost()
        self.outbox.recall()

    def leave(self) -> None:
        """The connection's descriptor is not ours any more: let it be, and make another."""
        if self.connection is not None:
            self.connection.forget()
        self.disconnect()

    # Requests and answers; only with a connection

    def send_due(self) -> None:
        assert self.connection is not None  # noqa: S101 - called only with one
        try:
            self.questions.send(self.connection)
            for item in self.outbox.due():
                self.outbox.sent(self.connection.send(item.method, item.params()), item)
        except DaemonUnreachable as error:
            self.disconnect()
            self._away(error)

    def receive(self) -> None:
        assert self.connection is not None  # noqa: S101 - called only with one
        try:
            answers = self.connection.receive(0)
        except DaemonUnreachable as error:
            self.disconnect()
            self._away(error)
            return
        for answer in answers:
            if self.questions.take(answer):
                continue
            item = self.outbox.answered(answer.id)
            if item is None:
                continue
            if answer.error is None:
                self._done(item, answer.result)
            else:
                self._refused(item, error_from(answer))

    def _done(self, item: Item, result: msgspec.Raw) -> None:
        self.outbox.settle(item)
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
            self.outbox.recall()
            self.next_try_s = Clock.monotonic() + error.data.get("retry_after_ms", 1000) / 1000
        elif isinstance(item, Call):
            self.outbox.settle(item)
            level = logging.DEBUG if self._shared.owns_session else logging.WARNING
            log.log(level, "%s was refused: %s", item.method, error)
            if item.arguments["session_id"] == self._shared.session_id and again:
                # It could not be started, or taken up again: what comes next goes into a session of its own.
                self.begin(str(uuid.uuid4()), self._shared.labels, first=True)
            item.done(None)
        elif isinstance(error, UnknownSession | SessionEnded) and again:
            self._move_on_from(item.session_id)
        else:
            log.warning("the daemon refused %d records: %s", item.count, error)
            self._shared.refused += item.count
            self.outbox.settle(item)

    # Sessions

    def begin(self, session_id: str, labels: dict[str, str], *, first: bool = False) -> str:
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
            self.outbox.put_first(call)
        else:
            self.outbox.add_call(call)
        return session_id

    def resume(self) -> None:
        """Say first that the session starts, or goes on; should it have ended meanwhile, the answer says so."""
        who = self._shared
        if who.session_id is not None and not self.outbox.starts(who.session_id):
            self.begin(who.session_id, who.labels, first=True)

    def _goes_on_in(self, before: str, after: str) -> None:
        """The daemon let a session roll over, and answers with the id of its successor."""
        if after != before and self._shared.session_id == before:
            self._shared.session_id = after

    def _move_on_from(self, gone: str) -> None:
        """That session is over: what was meant for it goes into the next one."""
        self.outbox.recall()
        if self._shared.session_id in {gone, None}:
            self.begin(str(uuid.uuid4()), self._shared.labels, first=True)
        for item in self.outbox.items:
            if isinstance(item, Batch) and item.session_id == gone:
                item.session_id = self._shared.session_id or gone

    # Files

    def spool(self) -> None:
        """What was not acknowledged, under the numbers it had."""
        self._write(self.outbox, self._shared.client_id)

    def spool_apart(self, outbox: Outbox) -> None:
        """As another producer's: it is brought before all others as soon as a daemon is there."""
        path = self._write(outbox, str(uuid.uuid4()))
        if path is not None:
            self._overflow.append(path)

    def _write(self, outbox: Outbox, client_id: str) -> Path | None:
        """What is in it is on disk afterwards, or lost and counted."""
        who, records = self._shared, outbox.records
        if not records:
            return None
        path = None
        producer = spool.Producer(who.app, client_id, who.app_version, who.sdk_version, boot_id=boot_id())
        try:
            requests = ((item.method, item.params()) for item in outbox.items)
            path = spool.write(spool_folder(), producer, requests)
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that is not ours: the app goes on
            who.count_lost(records, error)
        else:
            who.spooled += records
        outbox.items.clear()
        return path

    def deliver_foreign(self) -> None:
        """What other processes of this user left."""
        self.foreign_due = False
        self._deliver(spool.waiting(spool_folder()))

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
            self.foreign_due = True
            self._away(error)
            return False
        except OSError as error:
            log.debug("a spool is left for another time: %s", error)
        return True
