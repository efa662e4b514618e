"""A receiver in a process of its own, and the wire to it."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec

from xybridd.errors import XybriddError
from xybridd.testing.behaviours import Control

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from xybridd.testing.behaviours import Behaviour

_ANSWERS_WITHIN_S = 30.0
_ENDS_WITHIN_S = 10.0


class ReceiverError(XybriddError):
    """The receiver could not be started, or did not answer."""


class Receiver:
    """Start it with ``with``, or by `start` and `stop`; its `url` is an ``upload.endpoint``.

    ``certificate`` is a PEM file, and makes it speak HTTPS. ``host`` is where it listens; it ends with this process.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        certificate: Path | str | None = None,
        certificate_key: Path | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._key = key
        self._command = [sys.executable, "-m", "xybridd.testing.receiver", "--with-parent"]
        self._command += ["--host", host, "--port", str(port)]
        for option, path in (("--certificate", certificate), ("--certificate-key", certificate_key)):
            if path is not None:
                self._command += [option, str(path)]
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        if not self._url:
            raise ReceiverError("the receiver was not started")
        return self._url

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def start(self) -> Self:
        """Returns when it listens. Raises ReceiverError."""
        environment = dict(os.environ)
        environment.pop("XYBRIDD_RECEIVER_KEY", None)
        if self._key:
            environment["XYBRIDD_RECEIVER_KEY"] = self._key
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdout is not None  # noqa: S101
        said = self._process.stdout.readline()
        if not said:
            self.stop()
            raise ReceiverError("the receiver could not be started; what it said is on standard error")
        self._url = msgspec.json.decode(said)["url"]
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closes the pipes, and the end of its input ends it
            assert process.stdin is not None  # noqa: S101
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def kill(self) -> None:
        """At once, as a server dies; its connections break."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def misbehave(self, *behaviours: Behaviour, seed: int = 0) -> None:
        """From the next request on; without any it behaves again."""
        self._call("POST", "/control", msgspec.json.encode(Control(list(behaviours), seed)))

    def seen(self) -> dict[str, Any]:
        """Everything it has: ``batches``, ``counts``, ``deliveries``, ``repeats``, ``requests``."""
        found: dict[str, Any] = msgspec.json.decode(self._call("GET", "/seen"))
        return found

    def last_body(self) -> bytes:
        """Of the last batch that was new, as it was before it was compressed."""
        return self._call("GET", "/last")

    def counts(self) -> dict[tuple[str, int], int]:
        """How often it counted each (session id, revision); once is right."""
        return {
            (row["session_id"], row["revision"]): row["count"]
            for row in self.seen()["counts"]
            if row["event_type"] == "SessionExport"
        }

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with closing(self._connection()) as connection:
            try:
                connection.request(method, path, body)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise ReceiverError(f"the receiver does not answer: {error}") from error
        if answer.status != 200:
            raise ReceiverError(said.decode("utf-8", "replace"))
        return said

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_ANSWERS_WITHIN_S)
        # Our own child on this machine, with whatever certificate a test gave it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=_ANSWERS_WITHIN_S, context=context)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
