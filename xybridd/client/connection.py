"""One connection to the daemon: lines out, answers in. Blocking, with deadlines; for one thread at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xybridd.client.own_file import OwnFile
from xybridd.client.trust import distrust
from xybridd.errors import WIRE_ERRORS, DaemonUnreachable, InternalError, WireError
from xybridd.paths import client_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

_READ_BYTES = 2**18

#: A daemon that is gone is an error here, also in an app that wants to die of SIGPIPE.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)

#: Sockets that are not trusted, and of which that was said.
_warned: set[Path] = set()


class Answer(NamedTuple):
    """A line that the daemon sent: an answer, with the id of its request, or a notification, with a method."""

    id: Any = None
    result: Any = None
    error: dict[str, Any] | None = None
    method: str | None = None
    params: Any = None


def _answer(line: bytes) -> Answer:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("an answer is an object")
    error = found.get("error")
    return Answer(
        found["id"] if isinstance(found.get("id"), (int, str)) else None,
        found.get("result"),
        error if error is None or isinstance(error, dict) else {"message": str(error)},
        found.get("method"),
        found.get("params"),
    )


def error_from(answer: Answer) -> WireError:
    """The error that an answer carries, as it was raised in the daemon."""
    body = answer.error or {}
    data = dict(body.get("data") or {})
    kind = WIRE_ERRORS.get(str(data.pop("code", "")), InternalError)
    return kind(str(body.get("message", "the daemon gave no reason")), **data)


def wait_readable(files: list[int], timeout_s: float | None) -> list[int]:
    """The files that can be read, after at most `timeout_s`; None waits. Any descriptor, also above 1,024."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return list(select.select(files, [], [], timeout_s)[0])
    poll = select.poll()
    for each in files:
        poll.register(each, select.POLLIN)
    found = poll.poll(None if timeout_s is None else timeout_s * 1000)
    if any(event & select.POLLNVAL for _, event in found):
        raise OSError(errno.EBADF, "a descriptor was closed")
    return [each for each, _ in found]


def _writable(fd: int) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([], [fd], [], 0)[1])
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def close(sock: socket.socket, own: OwnFile) -> None:
    """Close a socket, if its descriptor still is its own."""
    if own.intact:
        sock.close()
    else:
        sock.detach()


class Connection:
    """Raises DaemonUnreachable when it cannot be made or breaks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._own = OwnFile(sock.fileno())
        self._unread = b""
        self._answers: list[Answer] = []
        self._last_id = 0

    @classmethod
    def open(
        cls,
        paths: Iterable[Path | str] | None = None,
        timeout_s: float = 5.0,
        given_up: Callable[[], bool] = lambda: False,
    ) -> Connection:
        """Connect to the first socket that answers and is to be trusted; ``given_up``: whether to try no further."""
        tried, reasons = [], []
        for path in map(Path, paths) if paths is not None else client_sockets():
            if given_up():
                break
            reason, connection = cls._try(path, timeout_s)
            if connection is not None:
                return connection
            tried.append(str(path))
            reasons.append(f"{path}: {reason}")
        raise DaemonUnreachable("; ".join(reasons), tuple(tried))

    @classmethod
    def _try(cls, path: Path, timeout_s: float) -> tuple[str, Connection | None]:
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # no descriptors left
            return _why(error), None
        try:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            reason = distrust(path, sock)
            if reason is None:
                return "", cls(sock)
            _warn(path, reason)
        except OSError as error:
            reason = _why(error)
        except ValueError as error:  # a path that no socket has
            reason = str(error)
        sock.close()
        return reason, None

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        close(self._sock, self._own)

    def break_off(self) -> None:
        """From another thread: have every call that waits for this connection fail."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def notify(self, method: str) -> None:
        """From any thread: a line without params that is not answered. Lost when the daemon does not read."""
        line = b'{"jsonrpc":"2.0","method":"%b"}\n' % method.encode()
        with contextlib.suppress(OSError, ValueError):
            if _writable(self._sock.fileno()):  # else `send` would wait as long as the socket's timeout says
                self._sock.send(line, _NO_SIGNAL)

    def send(self, method: str, params: bytes, timeout_s: float = 5.0, fd: int | None = None) -> int:
        """Send a request with params that are JSON already, and an open file; the id that its answer will carry."""
        self._last_id += 1
        line = b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}\n' % (self._last_id, method.encode(), params)
        self._sock.settimeout(timeout_s)
        try:
            sent = 0 if fd is None else socket.send_fds(self._sock, [line], [fd], _NO_SIGNAL)
            self._sock.sendall(line[sent:], _NO_SIGNAL)
        except OSError as error:
            raise DaemonUnreachable(f"the connection broke: {error}") from error
        return self._last_id

    def receive(self, timeout_s: float) -> list[Answer]:
        """Every answer that is there, after waiting for the first at most `timeout_s`; empty when none came."""
        if self._answers:
            answers, self._answers = self._answers, []
            return answers
        try:
            if not wait_readable([self._sock.fileno()], timeout_s):
                return []
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise DaemonUnreachable(f"the connection broke: {error}") from error
        if not data:
            raise DaemonUnreachable("the daemon closed the connection")
        *lines, self._unread = (self._unread + data).split(b"\n")
        try:
            return [_answer(line) for line in lines]
        except (ValueError, TypeError, RecursionError) as error:
            raise DaemonUnreachable(f"what answers there does not speak this protocol: {error}") from error

    def call(self, method: str, params: Any = None, timeout_s: float = 10.0, fd: int | None = None) -> Any:
        """One request and its result, decoded. Raises the WireError that the daemon answered."""
        request_id = self.send(method, _encoded({} if params is None else params), timeout_s, fd)
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            answers = self.receive(left_s)
            for number, answer in enumerate(answers):
                # An answer without an id tells of a line that could not be read: here that is this one.
                if answer.id == request_id or (answer.id is None and answer.error is not None):
                    self._answers = answers[number + 1 :]
                    if answer.error is not None:
                        raise error_from(answer)
                    return answer.result
        raise DaemonUnreachable(f"no answer to {method} within {timeout_s:g} s: the daemon hangs")


def _encoded(params: Any) -> bytes:
    try:
        return json.dumps(params, allow_nan=False).encode()
    except (TypeError, ValueError):  # typed objects, JSON as it came: from our own commands, which have msgspec
        import msgspec  # noqa: PLC0415 - an app never comes here

        return msgspec.json.encode(params)


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
