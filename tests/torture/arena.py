"""What is fought over: a daemon that sends to a receiver, producers that record, and what has been seen of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from tests.daemon.scenes import new_id
from tests.support import PATIENCE_S, Daemon, WireFailure, until
from tests.survival.scene import config, give_key
from tests.torture.journal import Standing, Wanted, id_of, wanted_by_client
from xybridd.testing import Behaviour, Receiver

if TYPE_CHECKING:
    from pathlib import Path

#: The kinds of producers, in the order in which they are started.
KINDS = ("raw", "raw", "steady", "raw", "forking")

#: Where exports go to as well: the daemon's other sink.
EXPORTS_NAME = "exports.jsonl"

#: How long producers may take to bring home what they have.
HOME_S = 150.0

#: What the receiver never takes: a batch of more than so many. Always, for one that took a batch, did not say so, and then
#: refuses the same as too large, or invalid, gets its parts once more, under keys of their own.
MOST_EVENTS = 20

#: What else the receiver may do to a request; each for a share of them, several at once.
MISHAPS = (
    Behaviour("status", status=500),
    Behaviour("status", status=503, retry_after="1"),
    Behaviour("status", status=500, takes=True),
    Behaviour("status", status=429, retry_after="2"),
    Behaviour("status", status=401),
    Behaviour("reset_before"),
    Behaviour("reset_during"),
    Behaviour("reset_after"),
    Behaviour("silent"),
    Behaviour("silent", takes=True),
    Behaviour("drip", pause_s=0.05),
    Behaviour("truncated"),
    Behaviour("garbage"),
    Behaviour("portal"),
    Behaviour("redirect"),
)


class TracedDaemon(Daemon):
    """A daemon that may be started by another command."""

    prefix: tuple[str, ...] = ()

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "xybridd", "run"],
                env=self.env,
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Worker:
    """A producer: a process and its journal. When it was killed, another one goes on with the journal."""

    def __init__(self, daemon: Daemon, folder: Path, kind: str, seed: int) -> None:
        self.daemon = daemon
        self.kind = kind
        self.journal = folder / f"{seed}.{kind}"
        self.process: subprocess.Popen[str] | None = None
        #: Whether all that it recorded is known to have come home, so that it can be compared to the last record.
        self.whole = False

    @property
    def is_raw(self) -> bool:
        return self.kind == "raw"

    @property
    def first_session(self) -> str:
        """Of a producer that speaks lines."""
        return id_of(self.journal.stem, "session", 0)

    @property
    def app(self) -> str:
        """What its producers say hello as."""
        seed = int(self.journal.stem)
        return f"raw-{id_of(seed, 'client')[:4]}" if self.is_raw else f"app-{seed}"

    def start(self) -> Worker:
        script = "tests.torture.producer_raw" if self.is_raw else "tests.torture.producer_client"
        self.process = subprocess.Popen(
            [sys.executable, "-m", script, str(self.daemon.socket), str(self.journal)]
            + ([] if self.is_raw else [self.kind]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.daemon.env,
        )
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def end(self) -> None:
        """Whatever state it is in; its pipes are closed."""
        process = self.process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()

    def call_home(self) -> None:
        """Its input ends; `home` waits for it."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def home(self) -> dict[str, Any]:
        """What it says at its end."""
        assert self.process is not None
        said, complaint = self.process.communicate(timeout=HOME_S)
        if self.process.returncode:
            return {"batches": 0, "records": 0, "resent": 0, "violations": [f"{self.kind} ended: {complaint[-2000:]}"]}
        report: dict[str, Any] = json.loads(said)
        self.whole = not report["violations"]
        return report

    def wanted(self) -> dict[str, Wanted]:
        return Standing.read(self.journal).wanted() if self.is_raw else wanted_by_client(self.journal)


@dataclass
class Noise:
    """Records outside of the journals, by app: at least as many as were acknowledged, at most those sent."""

    acknowledged: int = 0
    sent: int = 0


@dataclass
class Memory:
    """RSS of the daemon, MiB."""

    first: float = 0.0
    peak: float = 0.0
    last: float = 0.0

    def see(self, mib: float) -> None:
        self.first = self.first or mib
        self.peak = max(self.peak, mib)
        self.last = mib


@dataclass
class Arena:
    folder: Path
    chance: random.Random
    receiver: Receiver
    #: Where the minutes go to, as OTLP; without a key.
    collector: Receiver
    daemon: TracedDaemon
    #: Never set: what waits on it waits its time.
    never: threading.Event = field(default_factory=threading.Event)
    workers: list[Worker] = field(default_factory=list)
    noise: dict[str, Noise] = field(default_factory=dict)
    figures: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    #: How far the n-th call was swept, by call.
    sweep: Counter[str] = field(default_factory=Counter)
    #: Sessions made to be forgotten: how many records each has, while it is there.
    doomed: dict[str, int] = field(default_factory=dict)
    #: Those whose forgetting was asked for, and those of which that was acknowledged.
    asked_to_forget: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    @classmethod
    def build(cls, folder: Path, seed: int, receiver: Receiver, collector: Receiver) -> Arena:
        home = folder / "d"
        home.mkdir()
        (folder / "journals").mkdir()
        text = config(
            receiver.url,
            storage="quota_mib = 1024",
            upload="snapshot_interval_s = 5",
            more=(
                f'[session]\nlost_after_s = 2\n[file]\npath = "{home / EXPORTS_NAME}"\n'
                f'[otlp]\nendpoint = "{collector.url}"\n'
            ),
        ).replace("commit_interval_ms = 0", "commit_interval_ms = 30")
        daemon = TracedDaemon(home, text)
        give_key(daemon)
        return cls(folder, random.Random(seed), receiver, collector, daemon)

    @property
    def exports(self) -> Path:
        """What the sink `file` wrote."""
        return self.daemon.folder / EXPORTS_NAME

    # Producers

    def hire(self, kind: str) -> Worker:
        worker = Worker(self.daemon, self.folder / "journals", kind, self.chance.randrange(2**32))
        self.workers.append(worker.start())
        return worker

    def at_work(self, *kinds: str) -> list[Worker]:
        return [
            worker
            for worker in self.workers
            if worker.process is not None and worker.process.poll() is None and worker.kind in (kinds or KINDS)
        ]

    # The daemon

    def pause(self, least_s: float, most_s: float) -> None:
        self.never.wait(self.chance.uniform(least_s, most_s))

    def look(self) -> None:
        """See how much memory the daemon has."""
        if self.daemon.runs:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(self.daemon.pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    self.memory.see(process.memory_info().rss / 2**20)

    def kill(self) -> None:
        """SIGKILL; counted."""
        self.daemon.kill()
        self.figures["kills"] += 1

    def revive(self) -> None:
        """It runs, takes writes, a fresh record passes, and the ledger balances."""
        self.daemon.prefix = ()
        if not self.daemon.runs:
            self.daemon.start()
        until(lambda: self.daemon.status()["state"] == "ok", f"the daemon to be well: {self.daemon.said()[-2000:]}")
        self.fresh_record()
        self.look()

    def fresh_record(self) -> None:
        noise = self.noise.setdefault("noise-fresh", Noise())
        noise.sent += 1
        with self.daemon.wire() as wire:
            wire.hello("noise-fresh")
            try:
                wire.call("record.inference", model_id="fresh", version="1", latency_ms=1)
            except WireFailure as failure:
                self.violations.append(f"a fresh record was refused: {failure}")
            else:
                noise.acknowledged += 1

    def upset_receivers(self) -> None:
        """Other misbehaviours than before, and no waiting for what came of the last.

        Large batches and the first session of each producer of lines it refuses whatever its mood: those are dead letters.
        """
        chance = self.chance
        chosen = [Behaviour("too_large", times=None, limit=MOST_EVENTS)]
        chosen += [
            Behaviour("poisoned", times=None, status=422, session_id=worker.first_session)
            for worker in self.workers
            if worker.is_raw
        ]
        self.receiver.misbehave(*chosen, *self._mishaps("/moved/v1/events/batch"), seed=chance.randrange(2**32))
        self.collector.misbehave(*self._mishaps("/moved/v1/metrics"), seed=chance.randrange(2**32))
        self.figures["receiver_moods"] += 1
        with contextlib.suppress(OSError, AssertionError, WireFailure), self.daemon.wire() as wire:
            wire.sock.settimeout(2)
            wire.call("upload.now")

    def _mishaps(self, moved: str) -> list[Behaviour]:
        """``moved`` is where redirects lead: one that takes what is sent, for elsewhere it would be invalid; see above."""
        return [
            Behaviour(**{**_fields(each), "times": None, "share": self.chance.uniform(0.1, 0.6), "location": moved})
            for each in self.chance.sample(MISHAPS, self.chance.randint(0, 4))
        ]

    def calm_receivers(self) -> None:
        """They behave again."""
        self.receiver.misbehave()
        self.collector.misbehave()

    def end(self) -> None:
        """Whatever state all is in."""
        for worker in self.workers:
            worker.end()
        self.daemon.end()

    def new_folder(self, name: str) -> Path:
        """A place for something that is not to touch the rest."""
        path = self.folder / f"{name}-{new_id()[:8]}"
        path.mkdir()
        return path


def _fields(behaviour: Behaviour) -> dict[str, Any]:
    return {name: getattr(behaviour, name) for name in behaviour.__struct_fields__}


def wait_for_end(daemon: Daemon, within_s: float) -> int | None:
    """Its exit code; None when it still runs."""
    assert daemon.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        return daemon.process.wait(within_s)
    return None


def is_root() -> bool:
    return os.geteuid() == 0


PATIENCE = PATIENCE_S
