"""The listening socket and its connections: bytes in, requests to `handlers`, answers out.

A connection's requests are carried out one after the other, in their order. An answer that must wait for the disk
does not hold up the request behind it; answers may therefore come in another order, and carry their request's id.

Memory is bounded: who does not read its answers, or has many that wait for the disk, is not read from; unfinished
lines of all connections together have a budget, and past it the longest goes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
import sys
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import psutil

from xybridd.daemon.fd_socket import accepting_files
from xybridd.daemon.handlers import answer
from xybridd.errors import InternalError, Overloaded, WireError
from xybridd.protocol.framing import (
    NULL_ID,
    BadLine,
    LineSplitter,
    encode_error,
    encode_notification,
    encode_result,
    parse_request,
)
from xybridd.services.sessions import Link

if TYPE_CHECKING:
    from xybridd.daemon.reply import Services

log = logging.getLogger(__name__)

#: A connection with so many requests under way is not read from until half of them are done.
_MOST_OUTSTANDING = 1024

#: Lines that were heard and not carried out: past so many bytes no more are read.
_MOST_BACKLOG_BYTES = 2**18

#: How long one connection's requests are carried out before the others have their turn.
_TURN_S = 0.005

#: How long a connection that is being closed may still send, unheard, so that it can read what was said last.
_LINGER_S = 1.0

#: Connections that the kernel keeps until they are accepted.
_BACKLOG = 1024


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """User id and process id of the other end, by the kernel's word."""
    if sys.platform == "darwin":
        # struct xucred: version, uid, group count, groups; LOCAL_PEERCRED is 1, LOCAL_PEERPID 2, level SOL_LOCAL 0.
        uid = struct.unpack_from("=II", sock.getsockopt(0, 1, 76))[1]
        pid = struct.unpack("=i", sock.getsockopt(0, 2, 4))[0]
        return uid, pid
    pid, uid, _gid = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, pid


def process_name(pid: int) -> str:
    """The name of a process, for peers that do not say who they are."""
    try:
        return psutil.Process(pid).name()[:128] or "unknown"
    except (psutil.Error, ValueError):
        return "unknown"


class Connection(asyncio.Protocol):
    __slots__ = (
        "_backlog", "_backlog_bytes", "_closing", "_final", "_held", "_kept", "_outstanding", "_peer_reads", "_pump",
        "_server", "_splitter", "_transport", "link", "weighed_bytes",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._splitter = LineSplitter(server.services.config.limits.max_frame_bytes)
        self._backlog: deque[bytes] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._backlog_bytes = 0
        self._outstanding = 0
        #: Answers that wait for the disk, by the commit that they wait for.
        self._kept: dict[asyncio.Future[None], list[bytes]] = {}
        self._peer_reads = True
        self._held = False
        #: Nothing more is heard from the peer; what was heard is still answered.
        self._closing = False
        #: The last thing to be said before closing, if there is something.
        self._final: WireError | None = None
        #: What of `held_bytes` the server has in its books.
        self.weighed_bytes = 0

    # What asyncio tells it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        uid, pid = peer_of(sock)
        self.link = Link(next(self._server.link_ids), uid, partial(process_name, pid), pid)
        self.link.push = self._push
        self.link.take_file = sock._sock.take_file  # noqa: SLF001 - asyncio hands out a view of the socket
        refused = self._server.opened(self)
        if refused is not None:
            self.dismiss(refused)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        lines, too_long = self._splitter.feed(data)
        self._backlog.extend(lines)
        self._backlog_bytes += sum(map(len, lines))
        self._go_on()
        if too_long is not None:
            self.dismiss(too_long)
        else:
            self._regulate()
        self._server.weigh(self)

    def eof_received(self) -> bool:
        # The peer has said all it will say; its answers still go out.
        self._closing = True
        self._close_when_done()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._drop_backlog()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._peer_reads = False
        self._regulate()

    def resume_writing(self) -> None:
        self._peer_reads = True
        self._go_on()
        self._regulate()

    # What it does

    @property
    def held_bytes(self) -> int:
        """What it sent that was not carried out yet."""
        return self._backlog_bytes + (0 if self._closing else self._splitter.held_bytes)

    def dismiss(self, error: WireError) -> None:
        """Hear nothing more, answer what was heard, say what is wrong, close."""
        self._closing = True
        self._final = error
        self._splitter = LineSplitter(0)
        self._regulate()
        self._close_when_done()

    def cut_short(self, error: WireError) -> None:
        """Carry out nothing more, say why, close."""
        self._drop_backlog()
        self.dismiss(error)

    def _drop_backlog(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0

    def _go_on(self) -> None:
        if self._backlog and self._pump is None and self._peer_reads:
            self._pump = asyncio.create_task(self._work())

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def cut(self) -> None:
        self._transport.abort()

    async def _work(self) -> None:
        """Carry out what was heard, in its order, while the peer takes its answers."""
        loop = asyncio.get_running_loop()
        turn_ends_s = loop.time() + _TURN_S
        try:
            while self._backlog and self._peer_reads and not self._server.stopping:
                line = self._backlog.popleft()
                self._backlog_bytes -= len(line)
                await self._carry_out(line)
                if loop.time() > turn_ends_s:
                    await asyncio.sleep(0)  # the others' turn
                    turn_ends_s = loop.time() + _TURN_S
        finally:
            self._pump = None
            self._regulate()
            self._close_when_done()

    async def _carry_out(self, line: bytes) -> None:
        try:
            request = parse_request(line)
        except BadLine as bad:
            self._send(encode_error(bad.request_id, bad.error))
            return
        request_id = request.request_id
        try:
            reply = await answer(self._server.services, self.link, request)
            answered = b"" if request_id is None else _encoded(request_id, reply.result, request.method)
        except WireError as error:
            if request_id is not None:
                self._send(encode_error(request_id, error))
            return
        if request_id is None:
            return
        if reply.ticket is None:
            self._send(answered)
        else:
            self._outstanding += 1
            kept = self._kept.get(reply.ticket)
            if kept is None:
                self._kept[reply.ticket] = kept = []
                reply.ticket.add_done_callback(self._send_kept)
            kept.append(answered)

    def _send_kept(self, ticket: asyncio.Future[None]) -> None:
        """Everything that waited for this commit, in one write."""
        kept = self._kept.pop(ticket)
        self._outstanding -= len(kept)
        if not ticket.cancelled():
            self._send(b"".join(kept))
        self._regulate()
        self._close_when_done()

    def _push(self, method: str, params: Any, most_waiting_bytes: int = 0) -> bool:
        if not self._peer_reads and self._transport.get_write_buffer_size() >= most_waiting_bytes:
            return False
        self._send(encode_notification(method, params))
        return True

    def _send(self, line: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(line)

    def _regulate(self) -> None:
        """Read from the peer only as long as it takes what it is sent."""
        most = _MOST_OUTSTANDING // 2 if self._held else _MOST_OUTSTANDING
        hold = not self._closing and (not self._peer_reads or len(self._backlog) + self._outstanding >= most)
        if hold != self._held and not self._transport.is_closing():
            self._held = hold
            if hold:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _close_when_done(self) -> None:
        busy = self._pump is not None or self._outstanding or self._backlog
        if not self._closing or (busy and not self._server.stopping) or self._transport.is_closing():
            return
        if self._final is None:
            self._transport.close()
            return
        self._send(encode_error(NULL_ID, self._final))
        self._final = None
        # Closing at once would reset a peer that is still writing before it could read what was said.
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)


def _encoded(request_id: bytes, result: Any, method: str) -> bytes:
    """Raises InternalError: an answer that cannot be written is a failure that is told, not silence."""
    try:
        return encode_result(request_id, result)
    except Exception as error:
        log.exception("the answer to %s cannot be written", method)
        raise InternalError(f"the daemon failed at {method}; its log says where") from error


class Server:
    """Accepts connections on one listening socket and keeps count of what they hold."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.link_ids = itertools.count(1)
        self.connections: set[Connection] = set()
        self._of_user: Counter[int] = Counter()
        self.held_bytes = 0
        self.stopping = False
        self._all_closed = asyncio.Event()
        self._listener: asyncio.Server | None = None

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # From 3.13 on asyncio would take the socket's file away; that is for the listener, or the service manager.
        left_alone: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._listener = await loop.create_unix_server(
            lambda: Connection(self), sock=accepting_files(sock), backlog=_BACKLOG, **left_alone
        )

    def opened(self, connection: Connection) -> WireError | None:
        """Take note of a connection; why it cannot stay, if it cannot."""
        self.connections.add(connection)
        limits, uid = self.services.config.limits, connection.link.uid
        self._of_user[uid] += 1
        if len(self.connections) > limits.max_connections:
            return Overloaded(
                f"{limits.max_connections} connections are open already (limits.max_connections)", retry_after_ms=1000
            )
        share = limits.share(limits.max_connections)
        if self._of_user[uid] > share and not self.services.recorder.sees_all(connection.link):
            return Overloaded(
                f"{share} connections of this user are open already (limits.user_percent of limits.max_connections)",
                retry_after_ms=1000,
            )
        return None

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._of_user -= Counter({connection.link.uid: 1})
        self.weigh(connection)
        self.services.recorder.disconnected(connection.link)
        self.services.rings.disconnected(connection.link)
        self.services.device.unwatch(connection.link.link_id)
        self.services.watching.unwatch(connection.link.link_id)
        if self.stopping and not self.connections:
            self._all_closed.set()

    def weigh(self, connection: Connection) -> None:
        """Book what a connection holds; let go of the one that holds most when all together are too much."""
        self.held_bytes += connection.held_bytes - connection.weighed_bytes
        connection.weighed_bytes = connection.held_bytes
        if self.held_bytes > self.services.config.limits.max_held_bytes:
            longest = max(self.connections, key=lambda each: each.held_bytes)
            longest.cut_short(
                Overloaded("too much is held that was not carried out (limits.max_held_bytes)", retry_after_ms=1000)
            )
            self.weigh(longest)

    def stop_listening(self) -> None:
        """Take no more connections and no more requests."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()

    async def close(self, grace_s: float) -> None:
        """Close every connection once what was said to it is out; cut those that do not read it in time."""
        for connection in list(self.connections):
            connection.close()
        if self.connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), grace_s)
        for connection in list(self.connections):
            connection.cut()
