"""What `record_inference` costs the thread that calls it, while the flusher is busy beside it.

A second thread asks for a flush, waits for it and asks again, so that the flusher never rests: the worst case for who
shares an interpreter with it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import xybridd
from benchmarks.peers import cheapest_call_ns
from benchmarks.rows import Floor, Row, at_most, median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench

_BURST = 1000

#: Between bursts: the flusher catches up a little, as it would in an app; it never runs dry.
_PAUSE_S = 0.004

#: Half of what the client's queue holds: past it the bursts wait, since nothing may be dropped here.
_MOST_WAITING = 50_000


class _Empty:
    def method(self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Any) -> None:
        pass


class _Appending:
    def __init__(self) -> None:
        self.queue: deque[Any] = deque()

    def method(self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Any) -> None:
        self.queue.append((model_id, version, latency_ms, 0.0, stats))


def _each_ns(function: Callable[..., Any], bursts: int, between: Callable[[], None]) -> list[float]:
    """Nanoseconds of every call, without what reading the clock twice takes."""
    clock = time.perf_counter_ns
    empty = []
    for _ in range(_BURST):
        started = clock()
        empty.append(clock() - started)
    overhead = median(empty)
    out: list[float] = []
    for _ in range(bursts):
        for _ in range(_BURST):
            started = clock()
            function("whisper-tiny", "1.0", 212.5)
            out.append(clock() - started - overhead)
        between()
        time.sleep(_PAUSE_S)
    return out


def _loops_ns(
    function: Callable[..., Any], bursts: int, between: Callable[[], None] = lambda: None, **stats: Any
) -> list[float]:
    """Nanoseconds a call, over loops of a thousand; the loop itself is in them, what happens between them is not."""
    clock = time.perf_counter_ns
    out = []
    for _ in range(bursts):
        started = clock()
        if stats:
            for _ in range(_BURST):
                function("whisper-tiny", "1.0", 212.5, tokens_per_second=41.5, hardware_used="cpu")
        else:
            for _ in range(_BURST):
                function("whisper-tiny", "1.0", 212.5)
        out.append((clock() - started) / _BURST)
        between()
        time.sleep(_PAUSE_S)
    return out


@contextlib.contextmanager
def _kept_busy(client: xybridd.Client) -> Iterator[None]:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            client.flush(timeout_s=30)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(bench: Bench) -> list[Row]:
    bursts = bench.rounds(300, 60)
    empty, appending = _Empty(), _Appending()
    with bench.daemon() as daemon, xybridd.connect(app="bench", socket=daemon.socket) as client:
        record = client.record_inference

        def let_catch_up() -> None:
            if client.counters()["waiting"] > _MOST_WAITING:
                client.flush(timeout_s=30)

        record("whisper-tiny", "1.0", 212.5)
        with _kept_busy(client):
            each = _each_ns(record, bursts, let_catch_up)
            loops = _loops_ns(record, bursts, let_catch_up)
            with_stats = _loops_ns(record, bursts, let_catch_up, stats=True)
        client.flush(timeout_s=30)
        dropped = client.counters()["dropped"]
    assert not dropped, f"{dropped} records were dropped: what was measured is the dropping"
    floor = Floor("an empty method", median(_loops_ns(empty.method, bursts)))
    appended = Floor(
        "deque.append of a tuple, in a method", median(_loops_ns(appending.method, bursts, appending.queue.clear))
    )
    rows = [
        Row("record_inference, each call: median", median(each), "ns", floor, at_most(500)),
        Row("record_inference, each call: p99", percentile(each, 0.99), "ns", floor),
        Row("record_inference, each call: p99.9", percentile(each, 0.999), "ns", floor),
        Row("record_inference, in loops of 1,000", median(loops), "ns a call", appended, at_most(500)),
        Row("record_inference with two stats, in loops", median(with_stats), "ns a call", appended),
    ]
    for name, nanoseconds in cheapest_call_ns(bench).items():
        rows.append(Row(f"record_inference beside {name}", median(loops), "ns a call", Floor(name, nanoseconds)))
    return rows
