"""The receiver's server: ``python -m xybridd.testing.receiver``.

    POST …/v1/events/batch   the ingest format: 200, 400 with a reason, 401 without the key
    POST …/v1/metrics        OTLP metrics in protobuf, likewise
    POST /control            {"behaviours": [...], "seed": 0}: how to misbehave from now on; replaces what was there
    GET  /seen               everything it has, as JSON
    GET  /last               the body of the last batch that was new, as it was before it was compressed

Two requests with one key at the same time: the second waits for the first, then is a repeat. For tests, standard output
has one line of JSON when it listens, and with ``--with-parent`` it ends when its standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import http.server
import os
import select
import socket
import ssl
import struct
import sys
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.testing.behaviours import Behaviour, Control, Plan
from xybridd.testing.inbox import Inbox, Rejected, RequestLine, Taken, events_from, metrics_from, plain

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS_PATH = "/v1/events/batch"
METRICS_PATH = "/v1/metrics"

#: Larger than any batch of ours; a receiver must not be filled up either.
_MAX_BODY_BYTES = 2**26

_PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Accept our terms to go online.</body></html>"


class _Gone(Exception):
    """The connection is not to be used any more, and nothing is answered."""


class Server(http.server.ThreadingHTTPServer):
    """``told`` is called with every batch that was taken and whether it is new, in the thread of its request."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        *,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        told: Callable[[Taken, bool], None] = lambda _batch, _new: None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.key = key
        self.tls = tls
        self.told = told
        self.inbox = Inbox()
        self.plan = Plan()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._keys: dict[str, threading.Lock] = {}
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else host
        return f"{'https' if self.tls else 'http'}://{shown!s}:{port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            # The handshake is made by the first read, in the connection's own thread.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here by design; anything else is a mistake of ours and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def lock_of(self, key: str) -> threading.Lock:
        with self.lock:
            return self._keys.setdefault(key, threading.Lock())

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; a client that delays its ACK would wait 40 ms
    server: Server
    connection: socket.socket

    def log_message(self, *_: Any) -> None:
        """Nothing: what is to be said, `Server.told` says."""

    def do_GET(self) -> None:
        if self.path == "/seen":
            with self.server.lock:
                seen = msgspec.json.encode(self.server.inbox.seen())
            self._answer(200, seen, "application/json")
        elif self.path == "/last":
            self._answer(200, self.server.inbox.last_body, "application/octet-stream")
        else:
            self._answer(404, b"there is /seen and /last")

    def do_POST(self) -> None:
        try:
            if self.path == "/control":
                self._control()
            elif self._route.endswith((EVENTS_PATH, METRICS_PATH)):
                self._receive()
            else:
                self._read_body()
                self._answer(404, f"there is {EVENTS_PATH} and {METRICS_PATH}".encode())
        except _Gone:
            self.close_connection = True
        except Rejected as error:
            self.close_connection = True
            self._answer(400, str(error).encode())

    @property
    def _route(self) -> str:
        return self.path.partition("?")[0]

    def _control(self) -> None:
        try:
            control = msgspec.json.decode(self._read_body(), type=Control)
        except msgspec.MsgspecError as error:
            raise Rejected(str(error)) from error
        with self.server.lock:
            self.server.plan = Plan(control.behaviours, control.seed)
        self._answer(200, b"{}", "application/json")

    # -- a batch ----------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        key = self.headers.get("Idempotency-Key") or ""
        with self.server.lock_of(key) if key else contextlib.nullcontext():
            self._receive_alone(key)

    def _receive_alone(self, key: str) -> None:
        with self.server.lock:
            early = self.server.plan.before_reading()
        if early is not None:
            self._log(key, None, did=early.kind)
            if early.kind == "reset_during":
                self._read(max(1, self._length() // 2))
            self._reset()
        body = self._read_body()
        if not self._permitted():
            self._refuse(key, 401, "the key is not the one that is taken here", len(body))
            return
        try:
            decoded = plain(body, self.headers.get("Content-Encoding"))
            batch = self._understood(decoded)
        except Rejected as error:
            self._refuse(key, 400, str(error), len(body))
            return
        with self.server.lock:
            behaviour = self.server.plan.next([event.session_id for event in batch.events])
            takes = behaviour is None or behaviour.has_it
            is_new = takes and self.server.inbox.take(batch, decoded)
        if takes:
            self.server.told(batch, is_new)
        self._log(
            batch.key,
            200 if behaviour is None else behaviour.answers,
            len(batch.events),
            len(body),
            repeat=takes and not is_new,
            did=behaviour.kind if behaviour else None,
        )
        if behaviour is None:
            self._accepted()
        else:
            self._misbehave(behaviour)

    def _understood(self, decoded: bytes) -> Taken:
        content_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        key = self.headers.get("Idempotency-Key")
        if self._route.endswith(METRICS_PATH):
            return metrics_from(decoded, content_type, key)
        if content_type != "application/json":
            raise Rejected(f"events are taken as application/json, not as {content_type or 'nothing'}")
        return events_from(decoded, key)

    def _permitted(self) -> bool:
        wanted = self.server.key
        given = self.headers.get("Authorization") or ""
        return wanted is None or hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode())

    def _refuse(self, key: str, status: int, reason: str, body_bytes: int) -> None:
        self._log(key, status, body_bytes=body_bytes, reason=reason)
        self._answer(status, reason.encode())

    def _accepted(self) -> None:
        """What the format's own server answers: an empty message is OTLP's plain yes."""
        if self._route.endswith(METRICS_PATH):
            self._answer(200, b"", "application/x-protobuf")
        else:
            self._answer(200, b'{"accepted":true}', "application/json")

    def _log(self, key: str, status: int | None, events: int = 0, body_bytes: int = 0, **more: Any) -> None:
        with self.server.lock:
            self.server.inbox.requests.append(RequestLine(self.path, key, status, events, body_bytes, **more))

    # -- misbehaviour -----------------------------------------------------------------------------------------------

    def _misbehave(self, behaviour: Behaviour) -> None:
        status = behaviour.answers or 0
        more = {"Retry-After": behaviour.retry_after} if behaviour.retry_after is not None else {}
        match behaviour.kind:
            case "status" | "too_large" | "poisoned":
                self._answer(status, f"told to answer {status}".encode(), **more)
            case "redirect":
                self._answer(status, b"", Location=behaviour.location)
            case "portal":
                self._answer(200, _PAGE, "text/html; charset=utf-8")
            case "partial":
                self._answer(200, _partial(behaviour.limit), "application/x-protobuf")
            case "silent":
                self._wait_for_the_end()
            case "drip":
                self._drip(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Filler: " + b"." * 4096, behaviour.pause_s)
            case "truncated":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: application/json\r\n\r\n{")
                raise _Gone
            case "garbage":
                self.wfile.write(b"\x00\x05SSH-2.0-not what you want\r\n\r\n\xff\xfe")
                raise _Gone
            case _:
                self._reset()

    def _wait_for_the_end(self) -> None:
        """Until the other side has enough of it, or we are stopped."""
        while not self.server.stopping.is_set():
            if select.select([self.connection], [], [], 0.2)[0]:
                break
        raise _Gone

    def _drip(self, answer: bytes, pause_s: float) -> None:
        for byte in answer:
            self.wfile.write(bytes([byte]))
            if self.server.stopping.wait(pause_s):
                break
        raise _Gone

    def _reset(self) -> None:
        """Close so that the other side gets a reset: a linger of no time."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The handler's own files keep the socket open; closing the descriptor is what sends the reset.
        self.rfile.close()
        with contextlib.suppress(OSError):
            os.close(self.connection.detach())
        raise _Gone

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def _length(self) -> int:
        given = self.headers.get("Content-Length") or ""
        if not given.isdigit() or int(given) > _MAX_BODY_BYTES:
            raise Rejected("Content-Length is missing, or too large")
        return int(given)

    def _read_body(self) -> bytes:
        return self._read(self._length())

    def _read(self, size_bytes: int) -> bytes:
        data = self.rfile.read(size_bytes)
        if len(data) < size_bytes:
            raise _Gone
        return data

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain", **headers: str) -> None:
        reasons = {each.value: each.phrase for each in HTTPStatus}
        self.send_response(status, reasons.get(status, "Told So"))
        if status not in {204, 304}:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if status not in {204, 304}:
            self.wfile.write(body)


def _partial(rejected: int) -> bytes:
    """An ExportMetricsServiceResponse that says so."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsPartialSuccess,
        ExportMetricsServiceResponse,
    )

    said = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message="told to reject them")
    return ExportMetricsServiceResponse(partial_success=said).SerializeToString()


def tls_context(certificate: str, certificate_key: str | None) -> ssl.SSLContext:
    """PEM files; the key may be in the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate_key)
    return context


def _end_with_input(server: Server) -> None:
    while os.read(0, 4096):
        pass
    server.stop()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xybridd.testing.receiver", description="A receiver to test against.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--certificate", help="PEM file: speak HTTPS with it")
    parser.add_argument("--certificate-key", help="PEM file, when it is not in the certificate's")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    given = parser.parse_args(arguments)
    tls = tls_context(given.certificate, given.certificate_key) if given.certificate else None
    # The key comes in the environment, since anybody can read a command line.
    server = Server((given.host, given.port), key=os.environ.get("XYBRIDD_RECEIVER_KEY") or None, tls=tls)
    sys.stdout.write(msgspec.json.encode({"url": server.url}).decode() + "\n")
    sys.stdout.flush()
    if given.with_parent:
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
