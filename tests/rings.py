"""Rings that tests write slot by slot, and a wire that hands them to a daemon."""

from __future__ import annotations

import json
import os
import socket
import struct
import uuid
from typing import TYPE_CHECKING, Any

from tests.support import Wire
from xybridd.client.ring import Ring
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from pathlib import Path

AT_S = 1_796_000_000.25


class Written:
    """A ring of a client that starts a session and writes what it is told. Small, so that it wraps soon."""

    def __init__(
        self,
        folder: Path,
        *,
        app: str = "ringing",
        client_id: str | None = None,
        session_id: str | None = None,
        slots: int = 64,
        table: int = 4096,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.client_id = client_id or str(uuid.uuid4())
        self.session_id = session_id or str(uuid.uuid4())
        names = [self.client_id, app, "1.0", "0.1.0", ""]
        self.ring = Ring.create(folder, [name.encode() for name in names], slots, table)
        self.ring.start(lambda *_: None)
        assert self.ring.path is not None
        self.path = self.ring.path
        self.ring_id = self.ring.name

    def slot(
        self,
        kind: int,
        entry: int = 0,
        *,
        latency_ms: float = 0.0,
        at_s: float = AT_S,
        bits: int = 0,
        words: bytes = b"",
        call: int = 0,
        number: int | None = None,
    ) -> int:
        """Write a slot, the next one or that of a number; its number."""
        number = self.ring.recorder.reserve() if number is None else number
        assert self.ring.may_write(number), "the ring is full"
        self.ring.recorder.write(number, latency_ms, at_s, layout.describe(kind, entry) | bits, words, call)
        return number

    def model(self, model_id: str = "m", version: str | None = "1") -> int:
        strings = [model_id.encode()] + ([] if version is None else [version.encode()])
        return self.ring.enter(layout.MODEL, strings)

    def start(self, *labels: str, joined: bool = False) -> int:
        strings = [self.session_id, "1796000000000", *labels]
        entry = self.ring.enter(layout.SESSION, [each.encode() for each in strings], int(joined))
        return self.slot(layout.SESSION_STARTED, entry)

    def end(self, kind: int = layout.SESSION_ENDED) -> int:
        return self.slot(kind, self.ring.enter(layout.SESSION, [self.session_id.encode(), b"1796000000000"]))

    def calls(self, count: int, latency_ms: float = 5.0, model_id: str = "m", version: str = "1") -> None:
        entry = self.model(model_id, version)
        for _ in range(count):
            self.slot(layout.INFERENCE, entry, latency_ms=latency_ms)

    def error(self, text: str = "boom", model: int = 0, category: int = 0) -> int:
        entry = self.ring.enter(layout.ERROR_TEXT, [text.encode()])
        words = model.to_bytes(8, "little")
        return self.slot(layout.ERROR, entry, bits=category << layout.CATEGORY_SHIFT, words=words)

    def word(self, index: int) -> int:
        """A word of the header, as the file has it."""
        return int(struct.unpack_from("<Q", self.path.read_bytes(), 8 * index)[0])

    def close(self) -> None:
        """As a process that is gone leaves it."""
        self.ring.disown()


class RingWire(Wire):
    """Sends open files with requests."""

    def call_with_file(self, method: str, fd: int, **params: Any) -> Any:
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        socket.send_fds(self.sock, [json.dumps(request).encode() + b"\n"], [fd])
        return self.answer_to(self._last_id)

    def attach(self, written: Written) -> Any:
        return self.call_with_file("ring.attach", written.ring.fd)

    def drain(self, path: Path) -> Any:
        fd = os.open(path, os.O_RDWR)
        try:
            return self.call_with_file("ring.drain", fd)
        finally:
            os.close(fd)

    def flush(self, written: Written) -> Any:
        return self.call("ring.flush", ring_id=written.ring_id, seq=written.ring.last)

    def hear(self, method: str) -> Any:
        """The params of the next notification of a method."""
        while (found := self.read()).get("method") != method:
            if "id" in found:
                self._answers[found["id"]] = found
        return found["params"]
