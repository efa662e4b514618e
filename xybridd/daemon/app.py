"""The composition root: everything the daemon is made of, built here, once, in order, and drained in reverse.

lock → listen → database → sinks → recorder resumes → server accepts → "ready" → jobs
stop listening → carry out nothing new → stop sending → commit what was taken → answer → close → unlock
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xybridd import __version__
from xybridd.config import Config, keys, load
from xybridd.core.ledger import RECEIVED
from xybridd.core.registry import Lifetimes
from xybridd.core.session import SessionLimits
from xybridd.daemon import lifecycle, logs
from xybridd.daemon.handed import handed_over
from xybridd.daemon.host import is_alive, is_local
from xybridd.daemon.listener import Listener
from xybridd.daemon.orphans import OrphanRings
from xybridd.daemon.refusals import Refusals
from xybridd.daemon.reply import Services
from xybridd.daemon.scheduler import Scheduler
from xybridd.daemon.server import Server
from xybridd.daemon.targets import settings_of
from xybridd.errors import ConfigError, StorageError
from xybridd.paths import data_folder, named_socket, ring_folder, spool_folder, user_socket
from xybridd.probes.events import KernelEvents
from xybridd.services.clock import SystemClock, since_boot_ms
from xybridd.services.device import Device
from xybridd.services.forgetting import Forgetting
from xybridd.services.lane import UploadContext
from xybridd.services.recorder import Recorder
from xybridd.services.retention import Retention
from xybridd.services.rings import RingHost, Rings
from xybridd.services.sampler import Sampler
from xybridd.services.sessions import Installation
from xybridd.services.uploader import Uploader
from xybridd.services.watching import Watching
from xybridd.storage.store import Store
from xybridd.upload.process import Sender

if TYPE_CHECKING:
    import socket

    from xybridd.config import Loaded
    from xybridd.daemon.metrics import Metrics

log = logging.getLogger(__name__)

#: SIGTERM to exit, all together; what is not on disk by then was never acknowledged.
_DRAIN_S = 4.0
_LAST_ANSWERS_S = 0.5

#: Applying a config asks the database; one that refuses is asked again after so long.
_DISK_RETRY_S = 2.0


def run(loaded: Loaded, config_name: str | None) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT. Raises StartError."""
    logs.start_logging(loaded.config.log.level, loaded.config.log.format)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    os.umask(0o077)
    lifecycle.raise_file_limit()
    asyncio.run(_Daemon(loaded, config_name).run())


class _Parts(NamedTuple):
    """What the daemon is made of, as far as its life and its signals need it."""

    recorder: Recorder
    retention: Retention
    uploader: Uploader
    scheduler: Scheduler
    server: Server
    services: Services
    rings: Rings
    orphans: OrphanRings


class _Daemon:
    def __init__(self, loaded: Loaded, config_name: str | None) -> None:
        self.config = loaded.config
        self.config_path = loaded.path
        self.config_name = config_name
        self.clock = SystemClock()
        self.stop = asyncio.Event()
        self.manager = lifecycle.Manager()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        config = self.config
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        folder = data_folder(config.storage.path)
        store = Store(folder, loop)
        listener = self._listener()
        store.lock()
        sock = listener.bind()
        try:
            await store.open(self.clock.wall_ms())
            parts = self._build(loop, store, folder)
            await self._set_sinks(parts)
            await parts.recorder.resume()
            await parts.server.listen(sock)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up, parts)
            parts.orphans.watch(loop)
            _fetch_probes()
            self.manager.say_ready(f"listens at {listener.path}")
            log.info(
                "ready: xybridd %s (pid %d) listens at %s, keeps %s",
                __version__,
                os.getpid(),
                listener.path,
                folder,
            )
            if not parts.recorder.ledger[RECEIVED]:
                logs.say_next("it runs; in another terminal: xybridd record inference whisper-tiny 1.0 212")
            scheduler = parts.scheduler
            metrics = self._metrics(loop, parts.services)
            write_metrics = None
            if metrics is not None and config.metrics.textfile is not None:
                write_metrics = partial(metrics.write, Path(config.metrics.textfile))
            scheduler.start(self.manager.alive_every_s(), partial(self._show_life, store), write_metrics)
            events = KernelEvents()
            events.open()
            for each in events.sockets:
                loop.add_reader(each, self._heard, events, each, scheduler)
            # What was built so far lives as long as the process: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            await self.stop.wait()
            log.info("stopping")
            self.manager.say("stopping")
            scheduler.stop()
            if metrics is not None:
                metrics.close()
            for each in events.sockets:
                loop.remove_reader(each)
            events.close()
            await self._drain(parts)
        finally:
            listener.release()
            with suppress(TimeoutError):
                await asyncio.wait_for(store.close(), _LAST_ANSWERS_S)
        log.info("stopped")

    def _listener(self) -> Listener:
        """Where it is told to listen, else the socket that was handed over, else the user's own."""
        named, handed = named_socket(self.config.socket.path), handed_over()
        if handed is not None and named is not None and str(named) != handed.getsockname():
            log.warning("it is told to listen at %s: the socket of the service manager is left alone", named)
            handed.close()
        elif handed is not None:
            return Listener.taking(handed)
        return Listener(named or user_socket(), int(self.config.socket.mode, 8))

    async def _show_life(self, store: Store) -> None:
        """That the event loop runs shows by this being called; that the database thread does, by its answer."""
        await store.ping()
        self.manager.say_alive()

    def _build(self, loop: asyncio.AbstractEventLoop, store: Store, folder: Path) -> _Parts:
        """Everything between the disk and the socket."""
        config, clock = self.config, self.clock
        sampler = Sampler(clock)
        recorder = self._recorder(store, sampler, lifecycle.device_id(folder, config.device.id))
        device = Device(sampler, clock, recorder.surround)
        quota_bytes = int(config.storage.quota_mib * 2**20)
        retention = Retention(store, recorder, clock, config.storage.retention_days, quota_bytes)
        rings = Rings(recorder, clock, RingHost(is_alive, is_local), config.limits.share(config.limits.max_connections))
        recorder.pending.on_kept = partial(_after_commit, retention, rings)
        uploader = self._uploader(store, sampler, recorder)
        orphans = OrphanRings((folder / "spool", spool_folder(), ring_folder()), rings)
        scheduler = Scheduler(loop, clock, recorder, retention, device, uploader, orphans.fetch)
        recorder.on_lonely = scheduler.sweep_when_lost
        recorder.on_record = scheduler.look_often
        watching = Watching()
        watching.on_watched = partial(setattr, recorder, "on_counted")
        services = Services(
            recorder=recorder,
            rings=rings,
            device=device,
            store=store,
            retention=retention,
            uploader=uploader,
            forgetting=Forgetting(store, recorder, uploader, clock),
            watching=watching,
            refusals=Refusals(),
            clock=clock,
            config=config,
            started_s=clock.monotonic_s(),
            clock_moved_s=clock.moved_s,
            connections=lambda: len(server.connections),
            watch_device=scheduler.look_often,
        )
        server = Server(services)
        return _Parts(recorder, retention, uploader, scheduler, server, services, rings, orphans)

    def _metrics(self, loop: asyncio.AbstractEventLoop, services: Services) -> Metrics | None:
        """For Prometheus, if it is switched on; the library is imported only then."""
        wanted = self.config.metrics
        if wanted.listen is None and wanted.textfile is None:
            return None
        try:
            from xybridd.daemon.metrics import Metrics  # noqa: PLC0415
        except ImportError as error:
            log.error("[metrics] is configured and needs a library: pip install 'xybridd[metrics]' (%s)", error)  # noqa: TRY400
            return None
        metrics = Metrics(loop, services)
        if wanted.listen is not None:
            metrics.listen(wanted.listen)
        return metrics

    def _uploader(self, store: Store, sampler: Sampler, recorder: Recorder) -> Uploader:
        installation = recorder.installation
        around = UploadContext(
            store=store,
            sampler=sampler,
            clock=self.clock,
            device_id=installation.device_id,
            boot_id=installation.boot_id,
            quiet_for_s=recorder.quiet_for_s,
            mend=recorder.committer.later,
        )
        uploader = Uploader(around, Sender)
        recorder.pending.on_queued = uploader.wake
        recorder.time.on_mended = uploader.retry_at_once
        recorder.pending.exports_ledger = uploader.ledger
        return uploader

    async def _set_sinks(self, parts: _Parts) -> None:
        """What is on, by the config and the environment as they are now."""
        settings = settings_of(self.config, self.config_path)
        for problem in settings.problems:
            log.error("%s", problem)
        await parts.uploader.configure(settings)
        parts.recorder.pending.sinks = parts.uploader.on

    def _recorder(self, store: Store, sampler: Sampler, device_id: str) -> Recorder:
        config = self.config
        installation = Installation(
            device_id=device_id,
            boot_id=lifecycle.boot_id(),
            owner_uid=os.getuid(),
            sdk_version=__version__,
            limits=SessionLimits(config.session.max_models, config.session.max_errors),
            max_sessions=config.limits.max_sessions,
            max_sessions_each=config.limits.share(config.limits.max_sessions),
            max_waiting=config.limits.max_waiting_answers,
            max_waiting_each=config.limits.share(config.limits.max_waiting_answers),
        )
        return Recorder(
            store=store,
            sampler=sampler,
            clock=self.clock,
            installation=installation,
            lifetimes=_lifetimes(config),
            commit_interval_s=config.storage.commit_interval_ms / 1000,
            since_boot_ms=since_boot_ms,
        )

    @staticmethod
    def _heard(events: KernelEvents, sock: socket.socket, scheduler: Scheduler) -> None:
        if seen := events.read(sock):
            scheduler.look_now(", ".join(seen[:5]))

    async def _drain(self, parts: _Parts) -> None:
        recorder, server = parts.recorder, parts.server
        server.stop_listening()
        parts.orphans.close()
        await parts.rings.stop()
        recorder.close_minute()
        await parts.uploader.stop()
        await parts.retention.stop()
        try:
            await asyncio.wait_for(recorder.committer.drain(), _DRAIN_S - _LAST_ANSWERS_S)
        except TimeoutError:
            log.error("the disk did not take everything in time; clients keep what was not acknowledged")  # noqa: TRY400
        await server.close(_LAST_ANSWERS_S)
        parts.rings.close()

    def _hang_up(self, parts: _Parts) -> None:
        """One reload at a time; what comes meanwhile is one more after it, since it may be of a later config."""
        self._reload_again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_all(parts), name="reload")

    async def _reload_all(self, parts: _Parts) -> None:
        while self._reload_again:
            self._reload_again = False
            await self._reload(parts)

    async def _reload(self, parts: _Parts) -> None:
        """SIGHUP: read the config again, apply what can be applied, say what needs a restart."""
        try:
            loaded = load(self.config_name)
        except ConfigError as error:
            log.error("the config is not applied: %s", error)  # noqa: TRY400
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        before = {key.name: key.value for key in keys(self.config)}
        changed = [key for key in keys(loaded.config) if key.value != before[key.name]]
        waiting = [key.name for key in changed if not key.live]
        config = loaded.config
        recorder, retention = parts.recorder, parts.retention
        recorder.committer.interval_s = config.storage.commit_interval_ms / 1000
        recorder.lifetimes = _lifetimes(config)
        retention.retention_days = config.storage.retention_days
        retention.quota_bytes = int(config.storage.quota_mib * 2**20)
        logs.set_log_level(config.log.level)
        applied = [key.name for key in changed if key.live]
        log.info("config read again; applied: %s", ", ".join(applied) or "nothing new")
        if waiting:
            log.warning("these changes need a restart: %s", ", ".join(waiting))
        self.config, self.config_path = config, loaded.path
        while not self._reload_again:  # a later config comes first
            try:
                await self._set_sinks(parts)
            except StorageError as error:
                log.warning("nothing is uploaded until the database can be used again: %s", error)
                await asyncio.sleep(_DISK_RETRY_S)
            else:
                return


def _fetch_probes() -> None:
    """Import the probes, on a thread: the first session that starts wants to know the device, and starts soon."""
    fetch = partial(importlib.import_module, "xybridd.probes.register")
    threading.Thread(target=fetch, name="xybridd-probes-import", daemon=True).start()


def _after_commit(retention: Retention, rings: Rings) -> None:
    retention.look()
    rings.publish()


def _lifetimes(config: Config) -> Lifetimes:
    session = config.session
    return Lifetimes(session.lost_after_s, session.idle_timeout_s, session.rollover_s)
