"""One connection to the daemon: lines out, answers in. Blocking, with deadlines; for one thread at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.client.trust import distrust
from xybridd.errors import WIRE_ERRORS, DaemonUnreachable, InternalError, WireError
from xybridd.paths import client_sockets
from xybridd.protocol.framing import encode_request
from xybridd.protocol.messages import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

_READ_BYTES = 2**18

#: Sockets that are not trusted, and of which that was said.
_warned: set[Path] = set()

_answer = msgspec.json.Decoder(Answer)


def error_from(answer: Answer) -> WireError:
    """The error that an answer carries, as it was raised in the daemon."""
    body = answer.error or {}
    data = dict(body.get("data") or {})
    kind = WIRE_ERRORS.get(str(data.pop("code", "")), InternalError)
    return kind(str(body.get("message", "the daemon gave no reason")), **data)


class Connection:
    """Raises DaemonUnreachable when it cannot be made or breaks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unread = b""
        self._answers: list[Answer] = []
        self._last_id = 0

    @classmethod
    def open(cls, paths: Iterable[Path] | None = None, timeout_s: float = 5.0) -> Connection:
        """Connect to the first socket that answers and is to be trusted."""
        tried, reasons = [], []
        for path in paths if paths is not None else client_sockets():
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout_s)
            try:
                sock.connect(str(path))
                reason = distrust(path, sock)
            except OSError as error:
                reason = _why(error)
            else:
                if reason is None:
                    return cls(sock)
                _warn(path, reason)
            sock.close()
            tried.append(str(path))
            reasons.append(f"{path}: {reason}")
        raise DaemonUnreachable("; ".join(reasons), tuple(tried))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def forget(self) -> None:
        """Its descriptor is not ours any more: let it be."""
        self._sock.detach()

    def break_off(self) -> None:
        """From another thread: whoever waits for this connection is told that it broke."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def send(self, method: str, params: bytes, timeout_s: float = 5.0) -> int:
        """Send a request with params that are JSON already; the id that its answer will carry."""
        self._last_id += 1
        self._sock.settimeout(timeout_s)
        try:
            self._sock.sendall(encode_request(self._last_id, method, params))
        except OSError as error:
            raise DaemonUnreachable(f"the connection broke: {error}") from error
        return self._last_id

    def receive(self, timeout_s: float) -> list[Answer]:
        """Every answer that is there, after waiting for the first at most `timeout_s`; empty when none came."""
        if self._answers:
            answers, self._answers = self._answers, []
            return answers
        try:
            if not select.select([self._sock], [], [], timeout_s)[0]:
                return []
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise DaemonUnreachable(f"the connection broke: {error}") from error
        if not data:
            raise DaemonUnreachable("the daemon closed the connection")
        *lines, self._unread = (self._unread + data).split(b"\n")
        try:
            return [_answer.decode(line) for line in lines]
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DaemonUnreachable(f"what answers there does not speak this protocol: {error}") from error

    def call(self, method: str, params: Any = None, timeout_s: float = 10.0) -> Any:
        """One request and its result, decoded. Raises the WireError that the daemon answered."""
        request_id = self.send(method, msgspec.json.encode({} if params is None else params), timeout_s)
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            answers = self.receive(left_s)
            for number, answer in enumerate(answers):
                # An answer without an id tells of a line that could not be read: here that is this one.
                if answer.id == request_id or (answer.id is None and answer.error is not None):
                    self._answers = answers[number + 1 :]
                    if answer.error is not None:
                        raise error_from(answer)
                    return msgspec.json.decode(answer.result)
        raise DaemonUnreachable(f"no answer to {method} within {timeout_s:g} s: the daemon hangs")


def _warn(path: Path, reason: str) -> None:
    """Once: it is tried again every few seconds."""
    if path not in _warned:
        _warned.add(path)
        log.warning("nothing is sent to %s: %s", path, reason)


def _why(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "no socket there"
        case errno.ECONNREFUSED:
            return "a socket, but nobody listens"
        case errno.EACCES | errno.EPERM:
            return "not permitted"
        case _:
            return error.strerror or str(error)
