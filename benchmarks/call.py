"""What `record_inference` costs the thread that calls it, alone and beside the calls of other libraries.

Alone, the flusher is busy beside it: a second thread asks for a flush, waits for it and asks again, so that the
flusher never rests, the worst case for who shares an interpreter with it. Beside the peers nobody asks for a flush.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import xybridd
from benchmarks.caller import Cost, cost_of, each_ns
from benchmarks.peers import OURS, PEERS, Peer
from benchmarks.rows import Floor, Row, at_most, at_most_times_floor, median, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench

_BURST = 1000

#: Between bursts: the flusher catches up a little, as it would in an app; it never runs dry.
_PAUSE_S = 0.004

#: Half of what the client's queue holds: past it the bursts wait, since nothing may be dropped here.
_MOST_WAITING = 50_000


#: The app's threads, of those rows that have several.
_THREADS = 8

_PERCENTILES = ("median", "p99", "p99.9")


class _Empty:
    def method(self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Any) -> None:
        pass


class _Appending:
    def __init__(self) -> None:
        self.queue: deque[Any] = deque()

    def method(self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Any) -> None:
        self.queue.append((model_id, version, latency_ms, 0.0, stats))


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
            each = each_ns(lambda: record("whisper-tiny", "1.0", 212.5), bursts, let_catch_up)
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
    for threads in (1, _THREADS):
        rows += _beside_peers(bench, threads)
    return rows


def _beside_peers(bench: Bench, threads: int) -> list[Row]:
    """Every call of ours and of each peer, by the same loop, in turns. The cheapest peer has the lowest median."""
    rounds = bench.rounds(5, 1)
    turns: dict[Peer, list[Cost]] = {}
    for _ in range(rounds):
        for peer in (OURS, *PEERS):
            cost = _turn(bench, peer, threads)
            if cost is not None:
                turns.setdefault(peer, []).append(cost)
    costs = {peer: Cost(*map(median, zip(*each, strict=True))) for peer, each in turns.items()}
    ours = costs.pop(OURS)
    when = f"{threads} thread{'s' if threads > 1 else ''}"
    cheapest = min((peer for peer in costs if peer.alike), key=lambda peer: costs[peer].median, default=None)
    rows = []
    for place, (at, value) in enumerate(zip(_PERCENTILES, ours, strict=True)):
        floor = None if cheapest is None else Floor(f"{cheapest.name} (the cheapest)", costs[cheapest][place])
        target = at_most_times_floor(0.25) if at == "median" and floor is not None else None
        rows.append(Row(f"xybridd, {when}: {at}", value, "ns a call", floor, target))
    if cheapest is not None:
        worst = max(own.median / its.median for own, its in zip(turns[OURS], turns[cheapest], strict=True))
        rows.append(
            Row(f"xybridd, {when}, beside the cheapest: worst of {rounds} rounds", worst, "×", None, at_most(0.25))
        )
    for peer, cost in costs.items():
        for at, theirs, value in zip(_PERCENTILES, cost, ours, strict=True):
            rows.append(Row(f"{peer.name}, {when}: {at}", theirs, "ns a call", Floor("xybridd", value)))
    return rows


def _turn(bench: Bench, peer: Peer, threads: int) -> Cost | None:
    """Ours goes to a daemon."""
    bursts = 40 // threads
    if peer is OURS:
        with bench.daemon() as daemon:
            return cost_of(peer, daemon.folder, threads, bursts)
    with bench.own_folder() as folder:
        return cost_of(peer, folder, threads, bursts)
