"""Prometheus, for those who switched it on: a page to be scraped, a file for node_exporter.

Both are made by the official client library, on a thread; the facts come from the event loop. Who scrapes does not wake
an idle daemon but by its own request: the loop watches the listening socket, and each request has a thread for as long
as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from functools import partial
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.registry import Collector

from xybridd.core.address import is_loopback
from xybridd.core.metering import Totals
from xybridd.core.minute import MinuteFilter, sample_of
from xybridd.daemon.exposition import Facts, families
from xybridd.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from xybridd.daemon.reply import Services

log = logging.getLogger(__name__)

#: Whoever asks has so long to say what, and the loop has so long to answer.
_PATIENCE_S = 5.0

#: The device is not read more often for somebody who scrapes often.
_DEVICE_FRESH_S = 10.0

#: More than one Prometheus, its second replica and a curious person.
_MOST_AT_ONCE = 8


class _Collector(Collector):
    """Runs on a thread that asks; the facts are taken on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, facts: Callable[[], Awaitable[Facts]]) -> None:
        self._loop = loop
        self._facts = facts

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not ask."""
        return []

    def collect(self) -> Iterator[Metric]:
        async def take() -> Facts:
            return await self._facts()

        found = asyncio.run_coroutine_threadsafe(take(), self._loop).result(_PATIENCE_S)
        return (family for family in families(found) if family.samples)


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, *_: Any) -> None:
        """A scrape is nothing to speak of."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    timeout = 0  # `handle_request` is called when somebody is there

    def __init__(self, family: socket.AddressFamily, place: tuple[str, int]) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        """Without asking DNS for a name of ours, as the library's would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, _request: object, client_address: object) -> None:
        log.debug("metrics: a request from %s failed: %r", client_address, sys.exc_info()[1])


class Metrics:
    def __init__(self, loop: asyncio.AbstractEventLoop, services: Services) -> None:
        self._loop = loop
        self._services = services
        self._totals = Totals(services.config.metrics.max_models)
        services.recorder.pending.on_minute = self._totals.add
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(loop, self._facts))
        self._server: _Server | None = None
        self._written = b""

    def listen(self, address: str) -> None:
        """Be scraped there. A port that is taken is an error in the log: records are taken all the same."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            family, _, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            self._server = server = _Server(family, (str(place[0]), int(port)))
        except (OSError, OverflowError) as error:
            log.error("metrics.listen = %s: cannot listen there: %s", address, error)  # noqa: TRY400
            return
        server.set_app(make_wsgi_app(self._registry))
        self._loop.add_reader(server.socket, server.handle_request)
        log.info("metrics: http://%s:%d/metrics", address.rpartition(":")[0], server.server_port)
        if not is_loopback(host):
            log.warning("metrics.listen: whoever reaches %s can read the figures of every app", address)

    async def write(self, path: Path) -> None:
        """Write the file whole, if anything changed."""
        try:
            text = await self._loop.run_in_executor(None, partial(generate_latest, self._registry))
            if text != self._written:
                await self._loop.run_in_executor(None, _replace, path, text)
                self._written = text
        except (OSError, TimeoutError) as error:
            log.warning("metrics.textfile = %s: cannot be written: %s", path, error)

    async def _facts(self) -> Facts:
        services, recorder = self._services, self._services.recorder
        state = await services.device.sample(_DEVICE_FRESH_S)
        try:
            used_bytes: int | None = (await services.store.use()).used_bytes
        except StorageError:
            used_bytes = None
        clock, installation = services.clock, recorder.installation
        return Facts(
            totals=self._totals.with_open(recorder.registry.open_minutes(MinuteFilter())),
            ended={(app, str(reason)): count for (app, reason), count in recorder.registry.ended.items()},
            sample=sample_of(state, clock.wall_ms(), int(clock.monotonic_s() * 1000), installation.boot_id),
            ledger=recorder.pending.shown_ledger(),
            sessions_active=recorder.registry.active_count(),
            well=recorder.committer.failure is None,
            used_bytes=used_bytes,
            quota_bytes=services.retention.quota_bytes,
            device_id=installation.device_id,
        )

    def close(self) -> None:
        if self._server is not None:
            self._loop.remove_reader(self._server.socket)
            self._server.server_close()
            self._server = None


def _replace(path: Path, text: bytes) -> None:
    """node_exporter, another user, may read it, and never sees half of it."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_bytes(text)
        half.chmod(0o644)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
