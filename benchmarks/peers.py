"""The call of an app that records something, here and in other libraries. None of them has to be installed.

A peer is one entry in `PEERS`: its name and a function that opens it in a folder of its own and yields its `Caller`.
Each runs in a process of its own (`caller`), so that no peer's threads stand in another's figures, and an import that
fails leaves out its rows and no others.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import xybridd
from benchmarks.writers import WRITERS, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

#: Who listens at a datagram socket and throws away what comes, as fast as it comes.
LISTENER = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
    collector.bind(sys.argv[1])
    print("ready", flush=True)
    while collector.recv(2**16):
        pass
"""


class Caller(NamedTuple):
    """``call`` is what is measured; ``between`` happens between bursts, and is not."""

    call: Callable[[], Any]
    between: Callable[[], Any] = lambda: None


class Peer(NamedTuple):
    """``alike`` says whether the call is told what it is about (model, version), as ours is: only then can it be the
    cheapest peer. ``most_bursts``: for one whose own thread takes seconds to catch up with a burst."""

    name: str
    open: Callable[[Path], AbstractContextManager[Caller]]
    alike: bool = True
    most_bursts: int = 1_000


@contextlib.contextmanager
def _xybridd(writer: Writer, folder: Path) -> Iterator[Caller]:
    """To a daemon that is ready, whose folder it is. Nobody asks for a flush: the rings hold all that is recorded."""
    with writer.chosen(), xybridd.connect(app="bench", socket=folder / "s") as client:
        yield Caller(lambda: client.record_inference("whisper-tiny", "1.0", 212.5))
        assert client.flush(timeout_s=30)
        dropped = client.counters()["dropped"]
    assert not dropped, f"{dropped} records were dropped: what was measured is the dropping"


@contextlib.contextmanager
def _prometheus_counter(_folder: Path) -> Iterator[Caller]:
    counter = import_module("prometheus_client").Counter("inferences", "count", ["model", "version"])
    yield Caller(lambda: counter.labels("whisper-tiny", "1.0").inc())


@contextlib.contextmanager
def _prometheus_histogram(_folder: Path) -> Iterator[Caller]:
    histogram = import_module("prometheus_client").Histogram("latency", "ms", ["model", "version"])
    yield Caller(lambda: histogram.labels("whisper-tiny", "1.0").observe(212.5))


@contextlib.contextmanager
def _prometheus_kept(_folder: Path) -> Iterator[Caller]:
    """The app keeps the counter of the one model that it has."""
    counter = import_module("prometheus_client").Counter("inferences", "count", ["model", "version"])
    kept = counter.labels("whisper-tiny", "1.0")
    yield Caller(kept.inc)


@contextlib.contextmanager
def _prometheus_multiprocess(folder: Path) -> Iterator[Caller]:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read when it is imported
    with _prometheus_histogram(folder) as caller:
        yield caller


@contextlib.contextmanager
def _opentelemetry(_folder: Path) -> Iterator[Caller]:
    metrics, export = (import_module(f"opentelemetry.sdk.metrics{suffix}") for suffix in ("", ".export"))
    provider = metrics.MeterProvider([export.InMemoryMetricReader()])
    histogram = provider.get_meter("bench").create_histogram("latency")
    yield Caller(lambda: histogram.record(212.5, {"model": "whisper-tiny", "version": "1.0"}))
    provider.shutdown()


@contextlib.contextmanager
def _datadog(folder: Path) -> Iterator[Caller]:
    """To a Unix socket that somebody listens at, as to an agent on the same machine."""
    dogstatsd = import_module("datadog.dogstatsd")
    path = str(folder / "dsd")
    with subprocess.Popen([sys.executable, "-c", LISTENER, path], stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"ready\n"
        statsd = dogstatsd.DogStatsd(socket_path=path)
        tags = ["model:whisper-tiny", "version:1.0"]
        yield Caller(lambda: statsd.histogram("latency", 212.5, tags=tags))
        listener.kill()


def glean(folder: Path) -> Any:
    """Glean's metrics, with it running: its uploads find nobody.

    With uploads disabled it records nothing at all, nor for a ping that it does not know.
    """
    module, metrics = import_module("glean"), import_module("glean.metrics")
    metrics.PingType(
        name="bench",
        include_client_id=True,
        send_if_empty=False,
        precise_timestamps=True,
        include_info_sections=True,
        schedules_pings=[],
        reason_codes=[],
        uploader_capabilities=[],
    )
    module.Glean.initialize(
        application_id="bench",
        application_version="1",
        upload_enabled=True,
        data_dir=folder / "glean",
        configuration=module.Configuration(server_endpoint="http://127.0.0.1:1"),
    )
    return metrics


def glean_named(metrics: Any, name: str) -> Any:
    return metrics.CommonMetricData(
        category="bench", name=name, send_in_pings=["bench"], lifetime=metrics.Lifetime.PING, disabled=False
    )


@contextlib.contextmanager
def _glean_counter(folder: Path) -> Iterator[Caller]:
    """Glean's own thread catches up between bursts: asking for the value waits for it."""

    def let_catch_up() -> None:
        assert counter.test_get_value(), "Glean recorded nothing"

    metrics = glean(folder)
    counter = metrics.CounterMetricType(glean_named(metrics, "inferences"))
    yield Caller(lambda: counter.add(1), let_catch_up)


@contextlib.contextmanager
def _glean_distribution(folder: Path) -> Iterator[Caller]:
    metrics = glean(folder)
    timing = metrics.TimingDistributionMetricType(glean_named(metrics, "latency"), metrics.TimeUnit.MILLISECOND)

    def let_catch_up() -> None:
        assert timing.test_get_value(), "Glean recorded nothing"

    yield Caller(lambda: timing.accumulate_single_sample(212), let_catch_up)


OURS = tuple(Peer(f"xybridd, {writer.name}", partial(_xybridd, writer)) for writer in WRITERS)

#: Those whose calls stand beside ours.
PEERS = (
    Peer("prometheus_client counter", _prometheus_counter),
    Peer("prometheus_client histogram", _prometheus_histogram),
    Peer("prometheus_client counter, its labels looked up before", _prometheus_kept, alike=False),
    Peer("prometheus_client histogram, multiprocess", _prometheus_multiprocess),
    Peer("datadogpy histogram", _datadog),
    Peer("OpenTelemetry histogram", _opentelemetry),
    Peer("Glean counter", _glean_counter, alike=False, most_bursts=4),
    Peer("Glean timing distribution", _glean_distribution, alike=False, most_bursts=4),
)
