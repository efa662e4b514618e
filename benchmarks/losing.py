"""An app that records at a fixed rate until it is told to stop, or killed: ``python -m benchmarks.losing NAME FOLDER``.

Beside each record stands the truth, in a file that is shared memory to both sides and outlives them: how many calls
the app has begun, before each, how many returned, after each, and how many records it knows to be acknowledged. Every
second's records go under a name of their own, so that a record that arrives twice does not hide one that is lost.

A line on its standard input stops the recording, the end of it ends the app in order.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import struct
import sys
import time
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xybridd
from benchmarks.agents import SCRAPE_S, STATSD_S
from benchmarks.peers import glean, glean_named
from benchmarks.writers import WRITERS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

#: Records a second: an app at work, with little load of its own, since many of these run at once.
RATE = 50

_LONGEST_S = 600


class Truth(NamedTuple):
    """Calls that were begun, those that returned, and records known to be acknowledged."""

    begun: int
    returned: int
    acknowledged: int


class Oracle:
    """The truth of one app."""

    def __init__(self, folder: Path) -> None:
        path = folder / "oracle"
        if not path.exists():
            path.write_bytes(bytes(24))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 24)

    def set(self, begun: int, returned: int, acknowledged: int) -> None:
        struct.pack_into("qqq", self._shared, 0, begun, returned, acknowledged)

    def get(self) -> Truth:
        return Truth(*struct.unpack_from("qqq", self._shared, 0))


class App(NamedTuple):
    """``record`` records one inference of that second; ``acknowledged`` is how many the app knows to be safe."""

    record: Callable[[int], Any]
    acknowledged: Callable[[], int] = lambda: 0


class Loser(NamedTuple):
    """``agent`` is one of `benchmarks.agents`, our daemon, or nobody; ``interval_s`` is how often it hands on
    what it has, 0 for at once. ``adds``: its lines are added up, else the last says it all."""

    name: str
    open: Callable[[Path], AbstractContextManager[App]]
    agent: str | None
    interval_s: float = 0.0
    adds: bool = False
    acknowledges: bool = False


@contextlib.contextmanager
def _xybridd(writer: Writer, folder: Path) -> Iterator[App]:
    with writer.chosen(), xybridd.connect(app="losing", socket=folder / "s") as client:
        yield App(
            lambda second: client.record_inference(f"second-{second}", "1", 10.0),
            lambda: client.counters()["acknowledged"],
        )
        client.close(timeout_s=30)


@contextlib.contextmanager
def _datadog(folder: Path) -> Iterator[App]:
    statsd = import_module("datadog.dogstatsd").DogStatsd(socket_path=str(folder / "dsd"))
    yield App(lambda second: statsd.histogram("latency", 10.0, tags=[f"second:{second}"]))


@contextlib.contextmanager
def _prometheus(folder: Path) -> Iterator[App]:
    client = import_module("prometheus_client")
    histogram = client.Histogram("latency", "ms", ["second"])
    server, _ = client.start_http_server(0, addr="127.0.0.1")
    (folder / "port").write_text(str(server.server_port))
    yield App(lambda second: histogram.labels(str(second)).observe(10.0))


@contextlib.contextmanager
def _prometheus_multiprocess(folder: Path) -> Iterator[App]:
    files = folder / "multi"
    files.mkdir(exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)  # read when it is imported
    histogram = import_module("prometheus_client").Histogram("latency", "ms", ["second"])
    yield App(lambda second: histogram.labels(str(second)).observe(10.0))


@contextlib.contextmanager
def _opentelemetry(folder: Path) -> Iterator[App]:
    """At the SDK's own interval, which is a minute."""
    metrics, export = (import_module(f"opentelemetry.sdk.metrics{suffix}") for suffix in ("", ".export"))
    exporter = import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter").OTLPMetricExporter(
        endpoint=f"http://127.0.0.1:{(folder / 'port').read_text()}/v1/metrics"
    )
    provider = metrics.MeterProvider([export.PeriodicExportingMetricReader(exporter)])
    histogram = provider.get_meter("bench").create_histogram("latency")
    yield App(lambda second: histogram.record(10.0, {"second": str(second)}))
    provider.shutdown()


@contextlib.contextmanager
def _glean(folder: Path) -> Iterator[App]:
    """A counter for each second: its labelled ones have sixteen labels at most."""
    metrics = glean(folder)
    counters: dict[int, Any] = {}

    def record(second: int) -> None:
        if second not in counters:
            counters[second] = metrics.CounterMetricType(glean_named(metrics, f"second_{second}"))
        counters[second].add(1)

    yield App(record)


def _held_by_glean(folder: Path) -> dict[str, int]:
    """What the app's next process finds in its store."""
    metrics = glean(folder)
    named = ((str(second), glean_named(metrics, f"second_{second}")) for second in range(_LONGEST_S))
    found = {second: metrics.CounterMetricType(name).test_get_value() for second, name in named}
    return {second: count for second, count in found.items() if count}


OURS = tuple(
    Loser(f"xybridd, {writer.name}", partial(_xybridd, writer), "xybridd", acknowledges=True) for writer in WRITERS
)

LOSERS = (
    *OURS,
    Loser("datadogpy", _datadog, "statsd", STATSD_S, adds=True),
    Loser("prometheus_client", _prometheus, "scraper", SCRAPE_S),
    Loser("prometheus_client, multiprocess", _prometheus_multiprocess, "multiprocess_scraper", SCRAPE_S),
    Loser("OpenTelemetry", _opentelemetry, "otlp"),
    Loser("Glean", _glean, None),
)


def per_second(records: int) -> Counter[str]:
    """How many of the first so many records belong to each second."""
    whole, rest = divmod(records, RATE)
    return +Counter({**{str(second): RATE for second in range(whole)}, str(whole): rest})


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name == "held by Glean":
        print(json.dumps(_held_by_glean(folder)), flush=True)
        return
    loser = next(loser for loser in LOSERS if loser.name == name)
    oracle = Oracle(folder)
    with loser.open(folder) as app:
        print("ready", flush=True)
        started, number = time.monotonic(), 0
        while not select.select([sys.stdin], [], [], max(0.0, started + number / RATE - time.monotonic()))[0]:
            acknowledged = app.acknowledged()
            oracle.set(number + 1, number, acknowledged)
            app.record(number // RATE)
            number += 1
            oracle.set(number, number, acknowledged)
        sys.stdin.buffer.readline()
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
