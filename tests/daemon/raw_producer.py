"""A producer that speaks lines, for the kill campaign: it numbers batches and keeps each until its answer.

``raw_producer.py SOCKET SEED``: records until its standard input ends, brings everything home, and prints one line
of JSON: what it was told is kept, and everything that went against the contract.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
import uuid
from collections import Counter
from typing import Any, NoReturn

#: Batches on their way at once.
WINDOW = 4
MODELS = ("whisper", "kokoro", "qwen")
ERRORS = ("gpu lost", "out of memory", "boom")
PATIENCE_S = 60.0


class Broken(Exception):
    """The connection is of no use any more: make another."""


class Producer:
    def __init__(self, path: str, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.client_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        self.session_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        self.seq = 0
        self.acknowledged = 0
        self.kept: dict[int, list[dict[str, Any]]] = {}
        self.calls: Counter[str] = Counter()
        self.latency_ms: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.batches = self.records = self.resent = self.connections = 0
        self.violations: list[str] = []
        self.sock: socket.socket | None = None
        self.buffer = b""

    # One connection

    def connect(self) -> None:
        """Say hello, find out where the daemon stands, send again what was not acknowledged."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.buffer = b""
        self.sock.connect(self.path)
        self.connections += 1
        self.send("hello", "hello", app=f"raw-{self.client_id[:4]}", client_id=self.client_id)
        last_seq = self.answer_to("hello")["result"]["last_seq"]
        if last_seq < self.acknowledged:
            self.violations.append(f"batch {self.acknowledged} was acknowledged, and hello says {last_seq}")
        if last_seq > self.seq:
            self.violations.append(f"hello says {last_seq}, and only {self.seq} were ever sent")
        if self.random.random() < 0.5:  # else everything comes again, as from a producer that does not look
            self.settle(last_seq)
        self.begin()
        for seq in sorted(self.kept):
            self.resent += 1
            self.send_batch(seq)

    def begin(self) -> None:
        """Begin the session, or go on in it."""
        self.send("start", "session.start", session_id=self.session_id)
        self.answer_to("start")

    def disconnect(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def send(self, request_id: Any, method: str, **params: Any) -> None:
        assert self.sock is not None
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        self.sock.sendall(json.dumps(request).encode() + b"\n")

    def send_batch(self, seq: int) -> None:
        self.send(seq, "record.batch", seq=seq, records=self.kept[seq], flush=self.random.random() < 0.5)

    def answer(self) -> dict[str, Any]:
        assert self.sock is not None
        while b"\n" not in self.buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise Broken
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self.refused(answer["error"])
        return answer

    def answer_to(self, request_id: str) -> dict[str, Any]:
        """Answers to batches may come before it."""
        while (answer := self.answer())["id"] != request_id:
            self.heard(answer)
        return answer

    def refused(self, error: dict[str, Any]) -> NoReturn:
        self.violations.append(f"refused: {error}")
        raise Broken

    # What it records

    def record(self) -> None:
        """The next batch: made, kept, and sent once."""
        records = [self.one() for _ in range(self.random.randint(1, 40))]
        self.seq += 1
        self.kept[self.seq] = records
        self.send_batch(self.seq)

    def one(self) -> dict[str, Any]:
        if self.random.random() < 0.2:
            return {"type": "error", "error": self.random.choice(ERRORS)}
        model = self.random.choice(MODELS)
        return {"type": "inference", "model_id": model, "version": "1", "latency_ms": self.random.randint(0, 5000)}

    def hear(self) -> None:
        self.heard(self.answer())

    def heard(self, answer: dict[str, Any]) -> None:
        last_seq = answer["result"]["last_seq"]
        if last_seq < answer["id"]:
            self.violations.append(f"the answer to batch {answer['id']} says last_seq {last_seq}")
        # An answer is about its own batch: those before it are answered by themselves.
        self.keep(answer["id"])

    def settle(self, last_seq: int) -> None:
        for seq in [seq for seq in self.kept if seq <= last_seq]:
            self.keep(seq)

    def keep(self, seq: int) -> None:
        """The daemon has said that this batch is kept."""
        records = self.kept.pop(seq, None)
        if records is None:
            return
        self.acknowledged = max(self.acknowledged, seq)
        self.batches += 1
        self.records += len(records)
        for record in records:
            if record["type"] == "error":
                self.errors[record["error"]] += 1
            else:
                self.calls[record["model_id"]] += 1
                self.latency_ms[record["model_id"]] += record["latency_ms"]

    # Its life

    def run(self) -> None:
        deadline: float | None = None
        while deadline is None or self.kept:
            try:
                if self.sock is None:
                    self.connect()
                if deadline is None and len(self.kept) < WINDOW:
                    self.record()
                elif self.kept:
                    self.hear()
            except (OSError, Broken):
                self.disconnect()
                time.sleep(0.01)
            if deadline is None and select.select([sys.stdin], [], [], 0)[0]:
                deadline = time.monotonic() + PATIENCE_S
            if deadline is not None and time.monotonic() > deadline:
                self.violations.append(f"{len(self.kept)} batches could not be brought home")
                break

    def report(self) -> dict[str, Any]:
        return {
            "session_id": self.session_id,
            "client_id": self.client_id,
            "last_seq": self.seq,
            "batches": self.batches,
            "records": self.records,
            "resent": self.resent,
            "connections": self.connections,
            "calls": self.calls,
            "latency_ms": self.latency_ms,
            "errors": self.errors,
            "violations": self.violations,
        }


if __name__ == "__main__":
    producer = Producer(sys.argv[1], int(sys.argv[2]))
    producer.run()
    print(json.dumps(producer.report()))  # noqa: T201
