"""What sending costs: a queue that is drained, what the recording path feels of it, and how a dead server is pestered.

The receiver would be on another machine. Here it is on this one, at the lowest priority, so that what is measured is
ours; the bare loop that stands beside the drain has the same receiver, and the same bodies.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.bench import Frames, cpu_s, frame
from benchmarks.rows import Floor, Row, at_most, at_most_times_floor, median, percentile
from tests.survival.scene import config, ended, sender_of, sinks, status_of
from xybridd.core.delivery import Outcome
from xybridd.core.retry import BREAKER_S, decide
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from tests.support import Daemon

_PARAMS = {"model_id": "whisper-tiny", "version": "1.0", "latency_ms": 212.5}
_MB = 10**6

#: Posts what it is given, a length and a body at a time, and says how long that took.
_BARE = """
import sys, time, requests
bodies = []
while head := sys.stdin.buffer.read(4):
    bodies.append(sys.stdin.buffer.read(int.from_bytes(head, "big")))
session = requests.Session()
headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
started = time.perf_counter()
for body in bodies:
    session.post(sys.argv[1] + "/v1/events/batch", data=body, headers=headers).raise_for_status()
print(time.perf_counter() - started, time.process_time())
"""


def measure(bench: Bench) -> list[Row]:
    exports = bench.rounds(10_000, 1_000)
    with _receiver() as receiver, bench.daemon(config(receiver.url)) as daemon:
        _paused(daemon, paused=True)
        ended(daemon, exports)
        # Started again, so that its peak is that of sending.
        daemon.stop()
        daemon.start()
        rows = _drain(daemon, receiver, exports)
        rows += _beside_recording(bench, daemon)
    return [*rows, _dead_server()]


@contextlib.contextmanager
def _receiver() -> Iterator[Receiver]:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with Receiver() as receiver:
        assert receiver._process is not None  # noqa: SLF001
        os.setpriority(os.PRIO_PROCESS, receiver._process.pid, max(before, 19))  # noqa: SLF001
        yield receiver


def _paused(daemon: Daemon, *, paused: bool) -> None:
    with daemon.wire() as wire:
        wire.call("upload.pause" if paused else "upload.resume")


def _drain(daemon: Daemon, receiver: Receiver, exports: int) -> list[Row]:
    before_s = cpu_s(daemon.pid)
    started = time.perf_counter()
    _paused(daemon, paused=False)
    # Looked at rarely: each look counts the whole outbox.
    while status_of(daemon)["queued"]:
        time.sleep(0.2)
    took_s = time.perf_counter() - started
    daemon_s = cpu_s(daemon.pid) - before_s
    sender = sender_of(daemon)
    assert sender is not None
    sender_s = cpu_s(sender.pid)
    assert sinks(daemon)["xybrid"]["delivered"] == exports
    seen = receiver.seen()
    assert all(row["count"] == 1 for row in seen["counts"])
    bodies = [gzip.compress(body, 6) for body in map(_body, seen["batches"])]
    bare_s, bare_cpu_s = _bare(bodies)
    return [
        Row(
            f"{exports:,} queued exports drained",
            exports / took_s,
            "exports/s",
            Floor("a bare loop of requests with the same bodies", exports / bare_s),
        ),
        Row("requests made for that", len(seen["requests"]), "requests", Floor("full batches", exports / 50)),
        Row("on the wire", sum(map(len, bodies)) / exports, "bytes an export"),
        Row(
            "CPU of daemon and sender",
            (daemon_s + sender_s) / exports * 1e6,
            "µs an export",
            Floor("that loop", bare_cpu_s / exports * 1e6),
        ),
        Row("of which the daemon", daemon_s / exports * 1e6, "µs an export"),
        Row("of which the sender, with its start", sender_s / exports * 1e6, "µs an export"),
        Row("peak memory of the daemon (RSS) while it drains", _peak_bytes(daemon.pid) / _MB, "MB"),
        Row("peak memory of the sender (RSS)", _peak_bytes(sender.pid) / _MB, "MB"),
    ]


def _body(batch: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"events": batch["events"], "idempotency_key": batch["key"]})


def _bare(bodies: list[bytes]) -> tuple[float, float]:
    """Seconds and CPU seconds that a process takes which does nothing but post these."""
    given = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    with _receiver() as receiver:
        said = subprocess.run(
            [sys.executable, "-c", _BARE, receiver.url], input=given, capture_output=True, check=True
        ).stdout.split()
    return float(said[0]), float(said[1])


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _beside_recording(bench: Bench, daemon: Daemon) -> list[Row]:
    """One durable request after the other, first with nothing to send, then until what waits is sent."""
    line = frame("record.inference", msgspec.json.encode(_PARAMS))
    _paused(daemon, paused=True)
    ended(daemon, bench.rounds(5_000, 1_000))
    with Frames(daemon.socket) as connection:
        connection.begin()
        idle = [_once(connection, line) for _ in range(bench.rounds(2000, 300))]
        _paused(daemon, paused=False)
        busy = list[float]()
        while not busy or status_of(daemon)["queued"]:
            busy += [_once(connection, line) for _ in range(200)]
    return [
        Row(
            "one request, durable, while it drains: median",
            median(busy),
            "µs",
            Floor("with nothing to send", median(idle)),
            at_most_times_floor(2),
        ),
        Row(
            "one request, durable, while it drains: p99",
            percentile(busy, 0.99),
            "µs",
            Floor("with nothing to send, p99", percentile(idle, 0.99)),
        ),
    ]


def _once(connection: Frames, line: bytes) -> float:
    started = time.perf_counter()
    connection.sock.sendall(line)
    while not connection.answers():
        pass
    return (time.perf_counter() - started) * 1e6


def _dead_server() -> Row:
    """A simulated day at a server that refuses every connection, by the decision that the daemon makes."""
    refused = Outcome(failure="connect", detail="refused")
    chance, now_s, requests, failures = random.Random(1), 0.0, 0, 0
    while now_s < 86_400:
        now_s += decide(refused, 50, failures, int(now_s * 1000), chance.random()).wait_s
        requests, failures = requests + 1, failures + 1
    most = 3600 / BREAKER_S
    what = "requests at a dead server, over a simulated day"
    return Row(
        what, requests / 24, "an hour", Floor("the most that the circuit breaker lets pass", most), at_most(most)
    )
