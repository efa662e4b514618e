"""Who an app's figures go to, where a peer has somebody: ``python -m benchmarks.agents NAME FOLDER``.

They are stand-ins, as small as can be, that do what the real ones do with memory and intervals: a statsd agent adds up
in memory and hands on what it has every 10 s; a scraper reads every 15 s, as Prometheus does with the configuration
that it ships; a receiver of OTLP writes down each export before it answers. What they hand on is in ``arrived`` in
their folder: how many records of each second of the recording, in whole lines, the last of which counts (a statsd
agent's lines are added up). Ours is no stand-in: it is the daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATSD_S = 10.0
SCRAPE_S = 15.0


def hand_on(folder: Path, counts: Mapping[str, int]) -> None:
    """Out of this process, as to a backend that loses nothing: a line at once, which a kill does not undo."""
    with (folder / "arrived").open("ab", buffering=0) as out:
        out.write(json.dumps(counts).encode() + b"\n")


def _every(interval_s: float, act: Callable[[], None]) -> None:
    pause = threading.Event()
    due = time.monotonic()
    while True:
        due += interval_s
        pause.wait(max(0.0, due - time.monotonic()))
        act()


def statsd(folder: Path) -> None:
    """``latency:10.0|h|#second:7`` is one record of second 7."""
    path = folder / "dsd"
    path.unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def flush() -> None:
        with lock:
            taken = dict(counts)
            counts.clear()
        hand_on(folder, taken)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        threading.Thread(target=_every, args=(STATSD_S, flush), daemon=True).start()
        print("ready", flush=True)
        while data := sock.recv(2**16):
            seconds = re.findall(r"^latency:[^|]*\|h\|#second:(\d+)", data.decode(), re.MULTILINE)
            with lock:
                counts.update(seconds)


def scraper(folder: Path) -> None:
    """Reads what the app serves; the port is in its folder. An app that is not there is asked again the next time."""

    def scrape() -> None:
        with contextlib.suppress(OSError):
            port = (folder / "port").read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                _hand_on_scraped(folder, answer.read().decode())

    print("ready", flush=True)
    _every(SCRAPE_S, scrape)


def multiprocess_scraper(folder: Path) -> None:
    """What another process of the app serves, for all of them: the sum of their files."""
    files = folder / "multi"
    files.mkdir(exist_ok=True)  # the app may take long to start
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
    client, multiprocess = import_module("prometheus_client"), import_module("prometheus_client.multiprocess")

    def scrape() -> None:
        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        _hand_on_scraped(folder, client.generate_latest(registry).decode())

    print("ready", flush=True)
    _every(SCRAPE_S, scrape)


def _hand_on_scraped(folder: Path, text: str) -> None:
    found = re.findall(r'^latency_count\{second="(\d+)"\} ([\d.]+)', text, re.MULTILINE)
    hand_on(folder, {second: int(float(count)) for second, count in found})


def otlp(folder: Path) -> None:
    """A receiver of metrics over HTTP; started again it listens where it did before."""
    service = import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

    class Receiver(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = service.ExportMetricsServiceRequest.FromString(body)
            counts = {
                point.attributes[0].value.string_value: point.count
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.name == "latency"
                for point in metric.histogram.data_points
            }
            hand_on(folder, counts)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(service.ExportMetricsServiceResponse().SerializeToString())

    kept = folder / "port"
    with HTTPServer(("127.0.0.1", int(kept.read_text()) if kept.exists() else 0), Receiver) as server:
        kept.write_text(str(server.server_port))
        print("ready", flush=True)
        server.serve_forever()


AGENTS: dict[str, Callable[[Path], None]] = {
    "statsd": statsd,
    "scraper": scraper,
    "multiprocess_scraper": multiprocess_scraper,
    "otlp": otlp,
}


if __name__ == "__main__":
    AGENTS[sys.argv[1]](Path(sys.argv[2]))
