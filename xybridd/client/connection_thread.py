"""The client's one thread: it attaches rings to the daemon, asks what the app asks, and hears what the daemon says.

Records do not wake it. It sleeps until a command comes, the daemon says something, or it is time to look for a daemon
again: sooner while records wait than when none do.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from xybridd import __version__
from xybridd.client.connection import Connection, close, error_from, wait_readable
from xybridd.client.orphans import orphans, remove, set_aside
from xybridd.client.own_file import OwnFile
from xybridd.client.values import log
from xybridd.errors import (
    DaemonUnreachable,
    InternalError,
    InvalidParams,
    Overloaded,
    StorageUnavailable,
    WireError,
)
from xybridd.paths import boot_id, ring_folder, spool_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Client
    from xybridd.client.connection import Answer
    from xybridd.client.ring import Ring
    from xybridd.client.writer import Writer

_FIRST_RETRY_S = 0.025
_LONGEST_RETRY_S = 1.0
_IDLE_RETRY_S = 5.0
#: A daemon that refuses this client will not change its mind soon.
_REFUSED_RETRY_S = 30.0
_HANDSHAKE_S = 5.0

#: How often a flush asks again while a thread has reserved a slot and not written it.
_UNWRITTEN_S = 0.005

#: Held here, so that a test of the app's that replaces the clock does not stop deadlines.
_monotonic = time.monotonic


class ConnectionThread:
    """Start it once. Commands may come from any thread."""

    def __init__(self, client: Client, writer: Writer) -> None:
        self._client = client
        self._writer = writer
        self._commands: deque[Callable[[], None]] = deque()
        self._connection: Connection | None = None
        self._attached: set[Ring] = set()
        self._asked: dict[int, Callable[[Answer | None], None]] = {}
        self._flushes: list[_Flush] = []
        self._stopping = False
        self._next_try_s = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._orphans_due = False
        self._watching = False
        self._latest: dict[str, Any] | None = None
        self._complained = False
        #: Reasons for which a daemon refused this client.
        self._said: set[str] = set()
        self._waker: _Waker | None = _Waker.make()
        self._thread = threading.Thread(target=self._run, name="xybridd", daemon=True)

    # From any thread

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def command(self, name: str, *arguments: Any) -> Future[Any]:
        """One of the methods named ``_do_…``; its result."""
        future: Future[Any] = Future()
        self._commands.append(lambda: getattr(self, f"_do_{name}")(future, *arguments))
        self.wake()
        return future

    def wake_daemon(self) -> None:
        """Tell the daemon that a ring that it does not visit has something. By the app's thread: one short line."""
        connection = self._connection
        if connection is not None:
            connection.notify("ring.wake")

    def stop(self, timeout_s: float) -> None:
        """End, without bringing anything to the daemon any more."""
        self._stopping = True
        if (connection := self._connection) is not None:
            connection.break_off()
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def forget(self) -> None:
        """In a forked child: close what belongs to the parent, without a word to the daemon."""
        for each in (self._connection, self._waker):
            if each is not None:
                each.close()

    def wake(self) -> None:
        """Have it look for what is to be done."""
        waker = self._waker
        if waker is not None:
            waker.wake()

    # On its own thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._turn()
                except (DaemonUnreachable, WireError) as error:
                    self._away(error)
                except Exception as error:  # noqa: BLE001 - no descriptors, descriptors that the app closed
                    self._away(error)
                    self._renew()
        finally:
            self._drop_connection()
            waker, self._waker = self._waker, None
            if waker is not None:
                waker.close()
            for flush in self._flushes:
                flush.end(done=False)
            self._flushes = []
            self._carry_out()

    def _turn(self) -> None:
        now_s = _monotonic()
        if self._connection is None and now_s >= self._next_try_s:
            self._connect()
        self._carry_out()
        if self._connection is not None:
            self._attach_rings()
            if self._client.watchers and not self._watching:
                self._watching = True
                self._ask("device.watch", {}, self._watched)
            if self._orphans_due and not self._flushes:
                self._deliver_orphans()
        self._keep_rings()
        self._go_on_flushing()
        self._writer.settle()
        self._rest()

    def _carry_out(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _rest(self) -> None:
        """Sleep until there is something to do."""
        if self._stopping or self._commands:
            return
        wait_s = None if self._connection is not None else max(0.0, self._next_try_s - _monotonic())
        if self._connection is not None and any(each.waits for each in self._flushes):
            wait_s = _UNWRITTEN_S
        if self._waker is None:
            wait_s = min(wait_s or 1.0, 0.5)  # nothing can wake it: no descriptors
            self._waker = _Waker.make()
        files = [each.fileno() for each in (self._waker, self._connection) if each is not None]
        ready = wait_readable(files, wait_s)
        if self._waker is not None and self._waker.fileno() in ready:
            self._waker.heard()
        if self._connection is not None and self._connection.fileno() in ready:
            self._hear(self._connection)

    def _renew(self) -> None:
        """The app closed all descriptors, as daemons do that detach themselves, or there were none left."""
        if self._waker is not None and not self._waker.intact:
            self._waker.close()
            self._waker = _Waker.make()

    # The connection

    def _connect(self) -> None:
        """Find a daemon and say who this is. Raises DaemonUnreachable, or the WireError of a daemon that refuses."""
        client = self._client
        hello = {
            "app": client.app,
            "client_id": self._writer.client_id,
            "app_version": client.app_version,
            "sdk_version": __version__,
            "boot_id": boot_id(),
        }
        connection = Connection.open(client.sockets, _HANDSHAKE_S, lambda: self._stopping)
        try:
            self._connection = connection
            connection.call("hello", hello, _HANDSHAKE_S)
        except BaseException:
            self._connection = None
            connection.close()
            raise
        log().debug("connected to the daemon")
        self._retry_s = _FIRST_RETRY_S
        self._orphans_due = True

    def _away(self, error: Exception) -> None:
        if self._connection is not None:
            self._drop_connection()
        if self._retry_s == _FIRST_RETRY_S and not self._stopping:
            log().debug("no daemon (%s); records wait", error)
        if isinstance(error, WireError) and not isinstance(error, Overloaded | StorageUnavailable | InternalError):
            if str(error) not in self._said:
                self._said.add(str(error))
                log().warning("the daemon refuses this client, records wait: %s (said once)", error)
            self._next_try_s = _monotonic() + _REFUSED_RETRY_S
            return
        self._next_try_s = _monotonic() + self._retry_s
        self._retry_s = min(
            self._retry_s * 2,
            _LONGEST_RETRY_S if any(not ring.read_whole for ring in self._writer.rings()) else _IDLE_RETRY_S,
        )

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._attached.clear()
        self._watching = False
        asked, self._asked = self._asked, {}
        for heard in asked.values():
            heard(None)
        for flush in self._flushes:
            flush.forget_requests()

    def _ask(self, method: str, params: Any, heard: Callable[[Answer | None], None], fd: int | None = None) -> None:
        """Send a request; `heard` gets its answer, or None when the connection is lost."""
        assert self._connection is not None  # noqa: S101 - asked only with one
        self._asked[self._connection.send(method, json.dumps(params).encode(), fd=fd)] = heard

    def _hear(self, connection: Connection) -> None:
        for answer in connection.receive(0):
            if answer.method == "ring.idle":
                self._idle(answer.params)
            elif answer.method == "device.changed":
                self._tell(answer.params)
            elif (heard := self._asked.pop(answer.id, None)) is not None:
                heard(answer)

    # Rings

    def _attach_rings(self) -> None:
        for ring in self._writer.unread():
            if ring not in self._attached and (fd := ring.open_file()) is not None:
                self._attached.add(ring)
                self._ask("ring.attach", {}, partial(self._attach_answered, ring), fd)

    def _keep_rings(self) -> None:
        try:
            self._writer.keep(connected=self._connection is not None)
        except OSError as error:  # a full disk: they stay where they are
            log().debug("a ring cannot be moved to the disk now: %s", error)

    def _attach_answered(self, ring: Ring, answer: Answer | None) -> None:
        if answer is None:
            return
        if answer.error is None:
            ring.alert_at_half(ring.last)
            return
        raise error_from(answer)

    def _idle(self, told: dict[str, Any]) -> None:
        """The daemon visits a ring no more: the next record wakes it, and so does one that was written meanwhile."""
        for ring in self._writer.rings():
            if ring.name == told.get("ring_id"):
                ring.alert_at_next()
                if ring.last > told.get("seq", 0):
                    self.wake_daemon()

    # Commands

    def _do_flush(self, future: Future[Any]) -> None:
        self._flushes.append(_Flush(self._writer.unread(), future))

    def _do_export(self, future: Future[Any], session_id: str) -> None:
        """The export of a session that ends, when its end is on the daemon's disk."""
        flushed: Future[Any] = Future()
        flushed.add_done_callback(lambda done: self._export(future, session_id, done=bool(done.result())))
        self._do_flush(flushed)

    def _export(self, future: Future[Any], session_id: str, *, done: bool) -> None:
        if done:
            self._do_ask(future, "session.export", {"session_id": session_id})
        else:
            _finish(future, None)

    def _do_ask(self, future: Future[Any], method: str, params: Any) -> None:
        if self._connection is None:
            _finish(future, None)
            return
        try:
            self._ask(
                method, params, lambda answer: _finish(future, answer.result if answer and not answer.error else None)
            )
        except BaseException:
            _finish(future, None)
            raise

    def _do_watch(self, future: Future[Any], callback: Callable[[dict[str, Any]], object]) -> None:
        if self._latest is not None:
            self._call(callback, self._latest)
        _finish(future, None)

    def _watched(self, answer: Answer | None) -> None:
        if answer is not None and answer.error is None:
            self._tell(answer.result)

    def _tell(self, now: dict[str, Any]) -> None:
        self._latest = now
        for callback in list(self._client.watchers):
            self._call(callback, now)

    def _call(self, callback: Callable[[dict[str, Any]], object], now: dict[str, Any]) -> None:
        try:
            callback(now)
        except Exception:  # noqa: BLE001 - the app's own
            if not self._complained:
                self._complained = True
                log().exception("a callback of watch() failed; said once")

    # Flushing

    def _go_on_flushing(self) -> None:
        for flush in list(self._flushes):
            if flush.done():
                self._flushes.remove(flush)
                flush.end(done=True)
            elif flush.future.cancelled():
                self._flushes.remove(flush)
            elif self._connection is not None:
                for ring, number in flush.due(self._attached):
                    params = {"ring_id": ring.name, "seq": number}
                    self._ask("ring.flush", params, partial(self._flushed, flush, ring))

    def _flushed(self, flush: _Flush, ring: Ring, answer: Answer | None) -> None:
        flush.answered(ring)
        if answer is None:
            return
        if answer.error is not None:
            error = error_from(answer)
            if isinstance(error, InvalidParams):  # the daemon has closed the ring: attach what it has not read whole
                raise DaemonUnreachable(str(error))
            raise error
        self._writer.moved(answer.result.get("session_id"), replaced=bool(answer.result.get("replaced")))

    # What other processes left

    def _deliver_orphans(self) -> None:
        """Hand the rings of this user's processes that are gone to the daemon, on a connection of their own."""
        self._orphans_due = False
        own = frozenset(ring.path.name for ring in self._writer.rings() if ring.path is not None)
        for folder in dict.fromkeys((ring_folder(), spool_folder())):
            for path, fd in orphans(folder, apart_from=own):
                try:
                    if self._stopping or self._commands:
                        self._orphans_due = True
                        return
                    with contextlib.closing(Connection.open(self._client.sockets, _HANDSHAKE_S)) as connection:
                        if connection.call("ring.drain", {}, _HANDSHAKE_S, fd=fd)["drained"]:
                            remove(path)
                except InvalidParams as error:
                    set_aside(path, error)
                except (DaemonUnreachable, WireError, OSError) as error:
                    log().debug("%s is left for another time: %s", path.name, error)
                finally:
                    os.close(fd)


class _Flush:
    """Everything that was in a client's rings at one moment, until the daemon has it on disk."""

    def __init__(self, rings: list[Ring], future: Future[Any]) -> None:
        self.future = future
        self._wanted = {ring: ring.last for ring in rings}
        self._underway: set[Ring] = set()
        self.waits = False

    def done(self) -> bool:
        return all(ring.durable >= number for ring, number in self._wanted.items())

    def due(self, attached: set[Ring]) -> list[tuple[Ring, int]]:
        """What is to be asked now."""
        found = [
            (ring, number)
            for ring, number in self._wanted.items()
            if ring.durable < number and ring in attached and ring not in self._underway
        ]
        self._underway.update(ring for ring, _ in found)
        self.waits = False
        return found

    def answered(self, ring: Ring) -> None:
        self._underway.discard(ring)
        self.waits = ring.durable < self._wanted[ring]

    def forget_requests(self) -> None:
        self._underway.clear()

    def end(self, *, done: bool) -> None:
        _finish(self.future, done)


def _finish(future: Future[Any], result: Any) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(result)


class _Waker:
    """A pair of sockets by which a thread that sleeps is woken."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self._pair = [(each, OwnFile(each.fileno())) for each in (reader, writer)]
        for each in (reader, writer):
            each.setblocking(False)
        self.fileno = reader.fileno

    @classmethod
    def make(cls) -> _Waker | None:
        """None while there are no descriptors."""
        try:
            return cls(*socket.socketpair())
        except OSError:
            return None

    @property
    def intact(self) -> bool:
        return all(own.intact for _, own in self._pair)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is being woken; closed: it has ended
            self._pair[1][0].send(b"!")

    def heard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self._pair[0][0].recv(4096):
                raise OSError("the descriptors were closed")

    def close(self) -> None:
        for sock, own in self._pair:
            close(sock, own)
