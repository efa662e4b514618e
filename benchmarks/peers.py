"""The same call in other libraries, of those that are installed; none has to be."""

from __future__ import annotations

import contextlib
import socket
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rows import median

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench

_LOOP = 1000


def _prometheus() -> Callable[[], Any]:
    client = import_module("prometheus_client")
    histogram = client.Histogram("latency", "ms", ["model", "version"], registry=client.CollectorRegistry())
    return lambda: histogram.labels("whisper-tiny", "1.0").observe(212.5)


def _opentelemetry() -> Callable[[], Any]:
    metrics, export = (import_module(f"opentelemetry.sdk.metrics{suffix}") for suffix in ("", ".export"))
    provider = metrics.MeterProvider([export.InMemoryMetricReader()])
    histogram = provider.get_meter("bench").create_histogram("latency")
    return lambda: histogram.record(212.5, {"model": "whisper-tiny", "version": "1.0"})


@contextlib.contextmanager
def _datadog(bench: Bench) -> Iterator[Callable[[], Any]]:
    """To a Unix socket that somebody listens at, as to a collector on the same machine."""
    with bench.own_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(str(folder / "dsd"))
        collector.setblocking(False)
        statsd = import_module("datadog.dogstatsd").DogStatsd(socket_path=str(folder / "dsd"))
        tags = ["model:whisper-tiny", "version:1.0"]

        def call() -> None:
            statsd.histogram("latency", 212.5, tags=tags)

        def drain() -> None:
            with contextlib.suppress(BlockingIOError):
                while collector.recv(2**16):
                    pass

        call.drain = drain  # type: ignore[attr-defined] # a function carries what empties its peer
        yield call


def _loop_ns(call: Callable[[], Any], rounds: int) -> float:
    drain = getattr(call, "drain", lambda: None)
    out = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        for _ in range(_LOOP):
            call()
        out.append((time.perf_counter_ns() - started) / _LOOP)
        drain()
    return median(out)


def cheapest_call_ns(bench: Bench) -> dict[str, float]:
    """Nanoseconds a call, for each peer that is installed."""
    rounds = bench.rounds(100, 20)
    found = {}
    for name, make in (("prometheus_client", _prometheus), ("OpenTelemetry", _opentelemetry)):
        with contextlib.suppress(ImportError):
            found[name] = _loop_ns(make(), rounds)
    with contextlib.suppress(ImportError), _datadog(bench) as call:
        found["datadogpy"] = _loop_ns(call, rounds)
    return found
