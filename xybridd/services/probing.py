"""Running probes on a thread: all of them with one hand-over, each with its time limit, a hanging one left behind.

The thread goes through the list by itself and says where it is; the loop sleeps until it is through, and only looks
when the probe that runs may have taken too long. So a full probe costs the loop two wakeups, not two for each probe.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

from xybridd.probes.probe import Probe, unknown
from xybridd.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.core.capabilities import Reading
    from xybridd.probes.tree import Tree

    Readings = dict[str, Reading]

log = logging.getLogger(__name__)


class Round:
    """Some probes, one after the other on a thread. ``readings`` grows as it goes on, by the probe's name."""

    def __init__(self, probes: Sequence[Probe], tree: Tree, now_s: float) -> None:
        self.readings: dict[str, Readings] = {}
        self._probes = probes
        self._tree = tree
        self._now_s = now_s
        self._lock = threading.Lock()
        self._running: tuple[Probe, float] | None = None
        self._asked_s = time.monotonic()
        self._left = False

    def run(self) -> None:
        for probe in self._probes:
            if not self._begin(probe) or not self._finish(probe, self._read(probe)):
                return

    def _begin(self, probe: Probe) -> bool:
        """Whether somebody still waits for it."""
        with self._lock:
            self._running = probe, time.monotonic()
            return not self._left

    def _finish(self, probe: Probe, found: Readings) -> bool:
        with self._lock:
            if not self._left:
                self.readings[probe.name] = found
            return not self._left

    def _read(self, probe: Probe) -> Readings:
        try:
            return probe.read(self._tree, self._now_s)
        except Exception as error:  # whatever a probe of hardware runs into, the others go on
            log.exception("the probe %s failed", probe.name)
            return all_unknown(probe, self._now_s, f"the probe failed: {error}")

    def left_s(self) -> float:
        """Until the probe that runs, or the wait for the first to run, has taken too long."""
        probe, since_s = self._running or (self._probes[0], self._asked_s)
        return since_s + probe.limit_s - time.monotonic()

    def leave(self) -> Probe | None:
        """Give up waiting: nothing is read any more after what runs now. The probe that hangs, if one was begun."""
        with self._lock:
            self._left = True
            return None if self._running is None else self._running[0]


class Probing:
    """The thread, and the probes that are away on threads of their own. Nothing runs until somebody asks."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._worker: Worker | None = None
        #: Probes that did not come back yet, and since when they are away.
        self._away: dict[str, float] = {}

    async def run(self, probes: Sequence[Probe], tree: Tree, so_far: dict[str, Readings]) -> Readings:
        """The readings of the probes, in their order; `so_far` is filled meanwhile, by the probe's name."""
        now_s = self._clock_s()
        for probe in probes:
            if probe.name in self._away:
                so_far[probe.name] = all_unknown(
                    probe, now_s, f"still reading, for {now_s - self._away[probe.name]:.0f} s"
                )
        rest = [probe for probe in probes if probe.name not in so_far]
        while rest:
            await self._go_on(rest, tree, now_s, so_far)
            rest = [probe for probe in rest if probe.name not in so_far]
        return {name: reading for probe in probes for name, reading in so_far[probe.name].items()}

    async def _go_on(self, probes: list[Probe], tree: Tree, now_s: float, so_far: dict[str, Readings]) -> None:
        """As far as the first probe that hangs, which counts as done."""
        worker = self._thread()
        current = Round(probes, tree, now_s)
        current.readings = so_far
        answer = worker.run(current.run)
        while not answer.done():
            await asyncio.wait([answer], timeout=max(0.0, current.left_s()))
            if answer.done() or current.left_s() > 0:
                continue
            hanging = current.leave()
            if hanging is None or hanging.name in so_far:
                # It was not begun, since the thread hangs in what another asked for.
                self._replace(worker)
                return
            so_far[hanging.name] = all_unknown(hanging, now_s, f"no answer within {hanging.limit_s:g} s")
            self._leave(hanging, answer, now_s, worker)
            return
        answer.result()

    def _thread(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(asyncio.get_running_loop(), "xybridd-probes")
            self._worker.start()
        return self._worker

    def _leave(self, probe: Probe, answer: asyncio.Future[None], now_s: float, worker: Worker) -> None:
        log.warning("the probe %s does not come back; the others go on without it", probe.name)
        self._away[probe.name] = now_s
        self._replace(worker)

        def back(answer: asyncio.Future[None]) -> None:
            self._away.pop(probe.name, None)
            answer.exception()

        answer.add_done_callback(back)

    def _replace(self, worker: Worker) -> None:
        """Its thread ends when what hangs there comes back."""
        if self._worker is worker:
            worker.stop()
            self._worker = None

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()


def all_unknown(probe: Probe, now_s: float, reason: str) -> Readings:
    return {quantity.name: unknown(now_s, reason) for quantity in probe.quantities}
