"""What `record_inference` costs the thread that calls it, alone and beside the calls of other libraries.

A record is a slot of a ring, so nothing of the client's runs beside the call: the daemon reads on another core. The
bursts wait while much has not been read, which is not timed. Beside the peers nothing waits.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import TYPE_CHECKING, Any

import xybridd
from benchmarks.caller import Cost, cost_of, each_ns
from benchmarks.peers import OURS, PEERS, Peer
from benchmarks.rows import Floor, Row, at_most, at_most_times_floor, median, percentile
from benchmarks.writers import WRITERS, backlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench
    from benchmarks.writers import Writer

_BURST = 1000

#: Between bursts: the daemon catches up a little, as it would beside an app; it never runs dry.
_PAUSE_S = 0.004

#: Slots that wait at most: a full ring would be timed with the calls.
_MOST_WAITING = 8_000

#: Of what the cheapest peer that is told model and version takes: at the median, p99 and p99.9.
_TARGETS = (0.25, 0.5, 0.75)

#: The app's threads, of those rows that have several.
_THREADS = 8

_SLOT = struct.Struct("<ddQ32xQ")

_PERCENTILES = ("median", "p99", "p99.9")


class _Empty:
    def method(self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Any) -> None:
        pass


class _Packing:
    """What a writer cannot do without: a number, the time, and 64 bytes of mapped memory."""

    def __init__(self) -> None:
        self._slots, self._number = mmap.mmap(-1, 2**20), 0

    def method(self, _model_id: str, _version: str = "", latency_ms: float = 0.0) -> None:
        self._number = number = self._number + 1
        _SLOT.pack_into(self._slots, (number & 16_383) << 6, latency_ms, time.time(), 1, number)


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


def _alone(bench: Bench, writer: Writer, bursts: int) -> tuple[list[float], list[float], list[float]]:
    """Each call, in loops, in loops with two stats: nanoseconds."""
    with writer.chosen(), bench.daemon() as daemon, xybridd.connect(app="bench", socket=daemon.socket) as client:

        def let_catch_up() -> None:
            while backlog(client) > _MOST_WAITING:
                time.sleep(_PAUSE_S)

        client.record_inference("whisper-tiny", "1.0", 212.5)
        record = client.record_inference
        each = each_ns(lambda: record("whisper-tiny", "1.0", 212.5), bursts, let_catch_up)
        loops = _loops_ns(record, bursts, let_catch_up)
        with_stats = _loops_ns(record, bursts, let_catch_up, stats=True)
        assert client.flush(timeout_s=30)
        dropped = client.counters()["dropped"]
    assert not dropped, f"{dropped} records were dropped: what was measured is the dropping"
    return each, loops, with_stats


def measure(bench: Bench) -> list[Row]:
    bursts = bench.rounds(300, 60)
    empty, packing = _Empty(), _Packing()
    floor = Floor("an empty method", median(_loops_ns(empty.method, bursts)))
    packed = Floor("a slot packed in a method", median(_loops_ns(packing.method, bursts)))
    rows = []
    for writer in WRITERS:
        each, loops, with_stats = _alone(bench, writer, bursts)
        what = f"record_inference, {writer.name}"
        rows += [
            Row(f"{what}, each call: median", median(each), "ns", floor),
            Row(f"{what}, each call: p99", percentile(each, 0.99), "ns", floor),
            Row(f"{what}, each call: p99.9", percentile(each, 0.999), "ns", floor),
            Row(f"{what}, in loops of 1,000", median(loops), "ns a call", packed),
            Row(f"{what}, with two stats, in loops", median(with_stats), "ns a call", packed),
        ]
    for threads in (1, _THREADS):
        rows += _beside_peers(bench, threads)
    return rows


def _beside_peers(bench: Bench, threads: int) -> list[Row]:
    """Every call of ours and of each peer, by the same loop, in turns. The cheapest peer has the lowest median."""
    rounds = bench.rounds(5, 1)
    turns: dict[Peer, list[Cost]] = {}
    for _ in range(rounds):
        for peer in (*OURS, *PEERS):
            cost = _turn(bench, peer, threads)
            if cost is not None:
                turns.setdefault(peer, []).append(cost)
    costs = {peer: Cost(*map(median, zip(*each, strict=True))) for peer, each in turns.items()}
    when = f"{threads} thread{'s' if threads > 1 else ''}"
    peers = [peer for peer in costs if peer in PEERS]
    cheapest = min((peer for peer in peers if peer.alike), key=lambda peer: costs[peer].median, default=None)
    rows = []
    for own in OURS:
        for place, (at, value) in enumerate(zip(_PERCENTILES, costs[own], strict=True)):
            floor = None if cheapest is None else Floor(f"{cheapest.name} (the cheapest)", costs[cheapest][place])
            target = None if cheapest is None else at_most_times_floor(_TARGETS[place])
            rows.append(Row(f"{own.name}, {when}: {at}", value, "ns a call", floor, target))
        if cheapest is not None:
            worst = max(each.median / its.median for each, its in zip(turns[own], turns[cheapest], strict=True))
            what = f"{own.name}, {when}, beside the cheapest: worst of {rounds} rounds"
            rows.append(Row(what, worst, "×", None, at_most(_TARGETS[0])))
    for peer in peers:
        rows += [
            Row(f"{peer.name}, {when}: {at}", value, "ns a call")
            for at, value in zip(_PERCENTILES, costs[peer], strict=True)
        ]
    return rows


def _turn(bench: Bench, peer: Peer, threads: int) -> Cost | None:
    """Ours goes to a daemon."""
    bursts = 40 // threads
    if peer in OURS:
        with bench.daemon() as daemon:
            return cost_of(peer, daemon.folder, threads, bursts)
    with bench.own_folder() as folder:
        return cost_of(peer, folder, threads, bursts)
