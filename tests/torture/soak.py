"""A day of a device in minutes: what the daemon takes must not grow.

``python -m tests.torture.soak --minutes 15`` has a daemon whose clock goes so fast that a day passes in that time
(`fast_daemon`), with an app at work, scripts that come and go, somebody who watches the device, sessions that end, are
sent, and after a quarter of the time are past theirs. Once in the first third it has what it keeps; of the other two the
last may not be larger than the middle one, by more than `TOLERANCE` allows.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from tests.daemon.scenes import database, new_id
from tests.support import RECEIVER_KEY, Daemon, Wire, inference, ledger_balances, until
from tests.survival.scene import config, give_key
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_S = 86_400.0

#: How much the mean of the last third may be above that of the middle one: a share of it, and so much besides.
TOLERANCE = {"rss_mib": (0.05, 1.0), "files": (0.0, 2.0), "threads": (0.0, 1.0), "database_kib": (0.2, 64.0)}

#: Batches of the app in a minute of the day, and records in each; how long its sessions are, in minutes.
BATCHES, RECORDS, SESSION_MINUTES = 4, 25, 20
MODELS = ("whisper", "kokoro", "qwen", "magika")


class Sample(NamedTuple):
    rss_mib: float
    files: float
    threads: float
    database_kib: float


@dataclass
class SoakSummary:
    """``middle`` and ``last`` are the means of those thirds."""

    seed: int
    took_s: float = 0.0
    day_s: float = 0.0
    factor: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    start: dict[str, float] = field(default_factory=dict)
    middle: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations

    def compare(self, samples: list[Sample]) -> None:
        third = len(samples) // 3
        for name, (share, more) in TOLERANCE.items():
            values = [getattr(sample, name) for sample in samples]
            middle, last = mean(values[third : 2 * third]), mean(values[2 * third :])
            self.start[name], self.middle[name], self.last[name] = values[0], round(middle, 1), round(last, 1)
            if last > middle * (1 + share) + more:
                self.violations.append(f"{name} grew from {middle:.1f} to {last:.1f}")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerance": TOLERANCE, "passed": self.passed}

    def lines(self) -> list[str]:
        counts = ", ".join(f"{number} {name}" for name, number in sorted(self.counts.items()))
        return [
            f"seed {self.seed}: {self.day_s / 3600:.1f} h in {self.took_s:.0f} s ({self.factor:.0f} times as fast); {counts}",
            *(
                f"{name:13} {self.start[name]:9.1f} at first, {self.middle[name]:9.1f} in the middle third,"
                f" {self.last[name]:9.1f} in the last (at most {share:.0%} + {more:g} more)"
                for name, (share, more) in TOLERANCE.items()
            ),
            *(f"VIOLATION {each}" for each in self.violations),
            "flat" if self.passed else "NOT FLAT",
        ]


class FastDaemon(Daemon):
    factor = 1.0

    def launch(self) -> None:
        command = [sys.executable, "-m", "tests.torture.fast_daemon", str(self.factor)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stderr=log, stdin=subprocess.DEVNULL)


class Day:
    """What happens on the device, a minute of its day after the other."""

    def __init__(self, daemon: FastDaemon, chance: random.Random, counts: Counter[str], stack: ExitStack) -> None:
        self.daemon = daemon
        self.chance = chance
        self.counts = counts
        self.app = stack.enter_context(daemon.wire())
        self.app.hello("kiosk")
        self.seq = 0
        self.left = 0
        self.watcher = Watcher(stack.enter_context(daemon.wire()))
        stack.callback(self.watcher.stop)

    def minute(self) -> None:
        if self.left == 0:
            if self.seq:
                self.app.call("session.end")
            self.app.call("session.start")
            self.counts["sessions"] += 1
            self.left = self.chance.randint(1, 2 * SESSION_MINUTES)
        self.left -= 1
        for _ in range(BATCHES):
            self.seq += 1
            self.app.call("record.batch", seq=self.seq, records=self.records(), flush=True)
        if self.chance.random() < 0.2:
            self.script()
        if self.chance.random() < 0.2:
            self.app.call("device.capabilities")
            self.app.call("device.advice", model_size_mb=100)
            self.counts["questions"] += 2
        if self.chance.random() < 0.05:
            self.app.call("session.get")
            self.app.call("daemon.status")
            self.counts["questions"] += 2

    def records(self) -> list[dict[str, Any]]:
        chance = self.chance
        self.counts["records"] += RECORDS
        return [
            inference(chance.choice(MODELS), "1", chance.uniform(1, 3000))
            if chance.random() > 0.05
            else {
                "type": "error",
                "error": chance.choice(("gpu lost", "out of memory", f"job {chance.randrange(500)}")),
            }
            for _ in range(RECORDS)
        ]

    def script(self) -> None:
        """A process that records once and is gone: half of them with a session that is lost with it."""
        with self.daemon.wire() as wire:
            wire.hello(f"script-{self.chance.randrange(20)}", client_id=new_id())
            if self.chance.random() < 0.5:
                wire.call("session.start")
                self.counts["sessions"] += 1
            wire.call("record.inference", model_id="m", version="1", latency_ms=5)
            self.counts["records"] += 1
            self.counts["connections"] += 1


class Watcher:
    """Somebody who watches the device, and reads what it is told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        wire.call("device.watch")
        self.heard = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while self.wire.sock.fileno() >= 0:
            try:
                if not self.wire.sock.recv(65_536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
            self.heard += 1

    def stop(self) -> None:
        import socket  # noqa: PLC0415

        self.wire.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)


def sample_of(daemon: Daemon) -> Sample:
    process = psutil.Process(daemon.pid)
    size = sum(each.stat().st_size for each in daemon.data.glob("xybridd.db*"))
    return Sample(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), size / 1024)


def soak(seconds: float, hours: float, seed: int, say: Callable[[str], None]) -> SoakSummary:
    """So many hours of a day within so many seconds."""
    day_s = hours * 3600
    summary = SoakSummary(seed, day_s=day_s, factor=day_s / seconds)
    folder = Path(tempfile.mkdtemp(prefix="xyb-"))
    began_s = time.monotonic()
    try:
        with Receiver(key=RECEIVER_KEY) as receiver:
            kept_days = day_s / DAY_S / 4
            text = config(receiver.url, storage=f"retention_days = {kept_days}").replace(
                "commit_interval_ms = 0", "commit_interval_ms = 30"
            )
            daemon = FastDaemon(folder, text)
            daemon.factor = summary.factor
            give_key(daemon)
            daemon.start()
            try:
                summary.compare(pass_a_day(daemon, seconds, day_s, summary, say))
                weigh(daemon, summary)
            finally:
                daemon.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary.took_s = time.monotonic() - began_s
    return summary


def pass_a_day(
    daemon: FastDaemon, seconds: float, day_s: float, summary: SoakSummary, say: Callable[[str], None]
) -> list[Sample]:
    samples = [sample_of(daemon)]
    never, chance = threading.Event(), random.Random(summary.seed)
    with ExitStack() as stack:
        day = Day(daemon, chance, summary.counts, stack)
        began_s = said_s = time.monotonic()
        minutes = int(day_s / 60)
        for number in range(minutes):
            day.minute()
            summary.counts["minutes"] += 1
            ahead_s = number * seconds / minutes - (now_s := time.monotonic()) + began_s
            if now_s - began_s > seconds:
                break  # a busy machine: fewer minutes had something happen in them
            if number % max(1, minutes // 300) == 0:
                samples.append(sample_of(daemon))
            if now_s - said_s > 3:
                said_s = now_s
                say(f"[{now_s - began_s:4.0f} s of {seconds:.0f}] {summary.counts['records']} records; {samples[-1]}")
            never.wait(max(0.0, ahead_s))
        samples.append(sample_of(daemon))
        summary.counts["heard by the watcher"] = day.watcher.heard
    return samples


def weigh(daemon: FastDaemon, summary: SoakSummary) -> None:
    """All records were counted, once; what was removed had been sent."""

    def ledger() -> dict[str, Any]:
        found: dict[str, Any] = daemon.status()["ledger"]
        return found

    until(lambda: ledger()["counted"] >= summary.counts["records"], "all records to be counted")
    found = ledger()
    summary.counts["removed after their time"] = found["removed"].get("retention", 0)
    problems = {
        "the ledger does not balance": not ledger_balances(found),
        "not as many records as were sent": found["counted"] != summary.counts["records"],
        "something was removed for another reason": set(found["removed"]) - {"retention"},
        "nothing was past its time": not found["removed"],
        "the log has a traceback": "Traceback" in daemon.said(),
        "it did not end as it should": daemon.stop() != 0,
        "there is no database": not database(daemon).exists(),
    }
    summary.violations += [f"{problem}: {found}" for problem, holds in problems.items() if holds]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long it takes")
    parser.add_argument("--hours", type=float, default=24.0, help="of the device's day that pass meanwhile")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    summary = soak(given.minutes * 60, given.hours, seed, lambda text: print(text, file=sys.stderr))  # noqa: T201
    print(json.dumps(summary.as_json(), indent=2) if given.json else "\n".join(summary.lines()))  # noqa: T201
    return 0 if summary.passed else 1


if __name__ == "__main__":
    sys.exit(main())
