"""What is lost when the app is killed, when the agent that it talks to is, and when both are, at a moment of chance.

Every run has an app and an agent of its own, real processes, killed with SIGKILL. What the app recorded stands beside
it (`losing.Oracle`): a call that returned must arrive, a call that was begun may. What arrived is read where it would
be read afterwards: from our daemon, from what an agent handed on, from the app's own store. Nothing here is timed, so
all runs go at once; the figures of a peer are the sums of its runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from benchmarks.losing import LOSERS, OURS, RATE, Loser, Oracle, Truth, per_second
from benchmarks.rows import Floor, Row, at_most
from tests.support import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

#: What is killed.
KILLED = ("app", "agent", "both")

#: What a process may take to start on a machine at which many do.
_PATIENCE_S = 120.0

#: How long a killed agent is away, and how long the app goes on recording after its return.
_AWAY_S = 1.0
_AFTERWARDS_S = 5.0

_BETWEEN_STARTS_S = 0.5


class Outcome(NamedTuple):
    """Of one run, in records. ``recorded``: by calls that returned."""

    recorded: int
    arrived: int
    lost: int
    acknowledged: int
    lost_acknowledged: int
    twice: int


def outcome_of(truth: Truth, arrived: Counter[str]) -> Outcome:
    """Second by second, so that what arrived twice does not stand for what is lost."""
    lost = per_second(truth.returned) - arrived
    lost_acknowledged = per_second(truth.acknowledged) - arrived
    twice = arrived - per_second(truth.begun)
    return Outcome(
        truth.returned, arrived.total(), lost.total(), truth.acknowledged, lost_acknowledged.total(), twice.total()
    )


# Who it arrives at


class Agent(Protocol):
    def start(self) -> object: ...

    def kill(self) -> None: ...

    def settle(self) -> None:
        """Wait until it has handed on what has reached it, or could have been fetched by it."""

    def arrived(self) -> Counter[str]: ...

    def end(self) -> None: ...


class StandIn:
    """One of `benchmarks.agents`."""

    def __init__(self, loser: Loser, folder: Path) -> None:
        self._loser, self._arrived, self._folder = loser, folder / "arrived", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.agents", str(self._loser.agent), str(self._folder)]
        self._process = _ready(subprocess.Popen(command, stdout=subprocess.PIPE))

    def kill(self) -> None:
        if self._process is not None:
            _kill(self._process)

    end = kill

    def settle(self) -> None:
        """Two lines more: the first of them may have been begun before. None come of an app that is not there."""
        pause, wanted = threading.Event(), len(self._lines()) + 2
        deadline = time.monotonic() + 4 * self._loser.interval_s
        while len(self._lines()) < wanted and time.monotonic() < deadline:
            pause.wait(0.5)

    def _lines(self) -> list[bytes]:
        return self._arrived.read_bytes().splitlines() if self._arrived.exists() else []

    def arrived(self) -> Counter[str]:
        lines = [Counter(json.loads(line)) for line in self._lines()]
        return sum(lines, Counter()) if self._loser.adds else Counter(lines[-1] if lines else {})


class Ours(Daemon):
    def start(self) -> Daemon:
        """With more patience than a test has: many start at once."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._ready_since(seen) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return self

    def settle(self) -> None:
        """It reads the rings of an app that lives by itself."""

    def arrived(self) -> Counter[str]:
        """When no ring is left: one is removed when everything in it is on disk."""
        deadline = time.monotonic() + _PATIENCE_S
        while any(self.data.rglob("*.ring")) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        found: Counter[str] = Counter()
        with self.wire() as wire:
            wire.call("daemon.flush")
            for session in wire.call("session.list", app="losing")["sessions"]:
                models = wire.call("session.get", session_id=session["session_id"])["by_model"]
                for name, model in models.items():
                    found[name.removeprefix("second-").removesuffix("@1")] += model["call_count"]
        return found


class Nobody:
    """The app keeps what it records in a store of its own; its next process finds it there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self) -> None:
        pass

    def kill(self) -> None:
        pass

    end = settle = kill

    def arrived(self) -> Counter[str]:
        command = [sys.executable, "-m", "benchmarks.losing", "held by Glean", str(self._folder)]
        return Counter(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def _agent(loser: Loser, folder: Path) -> Agent:
    if loser.agent is None:
        return Nobody(folder)
    return Ours(folder) if loser in OURS else StandIn(loser, folder)


# One run


def _ready(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == b"ready\n", f"{process.args!r} did not start: {line!r}"
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def _app(loser: Loser, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "XYBRIDD_DATA_DIR": str(folder / "data")}  # where ours makes its rings
    command = [sys.executable, "-m", "benchmarks.losing", loser.name, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    try:
        yield _ready(process)
    finally:
        _kill(process)


def _run(loser: Loser, killed: str, after_s: float, folder: Path) -> Outcome:
    pause = threading.Event()
    agent = _agent(loser, folder)
    try:
        agent.start()
        with _app(loser, folder) as app:
            pause.wait(after_s)
            if killed != "agent":
                app.send_signal(signal.SIGKILL)
            if killed != "app":
                agent.kill()
                pause.wait(_AWAY_S)
                agent.start()
            if killed == "agent":
                _finish(app, agent)
            app.wait(_PATIENCE_S)
        if killed != "agent":
            agent.settle()
        return outcome_of(Oracle(folder).get(), agent.arrived())
    finally:
        agent.end()


def _finish(app: subprocess.Popen[bytes], agent: Agent) -> None:
    """The app goes on, stops recording, lets what it has be fetched, and ends in order."""
    assert app.stdin is not None
    threading.Event().wait(_AFTERWARDS_S)
    app.stdin.write(b"stop\n")
    app.stdin.flush()
    agent.settle()
    app.stdin.close()


# All of them


def _installed() -> list[Loser]:
    packages = {"datadogpy": "datadog", "OpenTelemetry": "opentelemetry.exporter.otlp.proto.http", "Glean": "glean"}
    found = []
    for loser in LOSERS:
        package = packages.get(loser.name, loser.name.partition(",")[0])
        known = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False)
        if known.returncode == 0:
            found.append(loser)
    return found


def _all_at_once(runs: list[tuple[Loser, str, float, Path]]) -> list[Outcome]:
    """Started one after the other, since two cores would be busy for long with all of them."""

    def later(number: int) -> Outcome:
        threading.Event().wait(number * _BETWEEN_STARTS_S)
        return _run(*runs[number])

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(later, range(len(runs))))


def measure(bench: Bench) -> list[Row]:
    """The moment of each kill is one of an interval that is as long as the longest that a peer has."""
    first_s, last_s = (3.0, 6.0) if bench.quick else (60.0, 120.0)
    chance = random.Random()
    with bench.own_folder() as folder:
        runs = [
            (loser, killed, chance.uniform(first_s, last_s), folder / f"{number}")
            for number, (loser, killed, _) in enumerate(
                (loser, killed, repeat)
                for loser in _installed()
                for killed in KILLED
                for repeat in range(bench.rounds(3, 1))
                if killed == "app" or loser.agent is not None
            )
        ]
        for *_, own in runs:
            own.mkdir()
        outcomes = _all_at_once(runs)
    rows = []
    for loser, killed in dict.fromkeys(run[:2] for run in runs):
        rows += _rows(
            loser, killed, [done for run, done in zip(runs, outcomes, strict=True) if run[:2] == (loser, killed)]
        )
    return rows


def _rows(loser: Loser, killed: str, outcomes: list[Outcome]) -> list[Row]:
    """What arrived is what was recorded, less what is lost, and what was counted twice."""
    recorded, _, lost, acknowledged, lost_acknowledged, twice = map(sum, zip(*outcomes, strict=True))
    what = f"{loser.name}, {'both' if killed == 'both' else f'the {killed}'} killed"
    worst_s = max(done.lost for done in outcomes) / RATE
    promised = at_most(0) if loser in OURS else None
    rows = [
        Row(f"{what}: lost", lost, "records", Floor("recorded", recorded), promised),
        Row(f"{what}: lost at worst", worst_s, "s of recording"),
        Row(f"{what}: counted twice", twice, "records", None, at_most(0)),
    ]
    if loser.acknowledges:
        of = Floor("acknowledged", acknowledged)
        rows.append(Row(f"{what}: lost of the acknowledged", lost_acknowledged, "records", of, at_most(0)))
    return rows
