"""Attacks on the daemon's process."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import psutil

from tests.daemon.scenes import new_id
from tests.support import WireFailure, inference, until
from tests.torture import tracing
from tests.torture.arena import TracedDaemon, wait_for_end

if TYPE_CHECKING:
    from tests.torture.arena import Arena

#: How far the n-th call is swept, and how long one may be waited for.
FARTHEST = {"pwrite64": 60, "fdatasync": 20, "fsync": 6, "sendto": 40, "write": 40, "openat": 10}
DIES_WITHIN_S = 4.0

SWEPT_AT_ONCE = 3

FORGET_AT_ONCE = 12


def kill(arena: Arena) -> None:
    """At any moment."""
    arena.pause(0.05, 1.0)
    arena.kill()


def kill_while_starting(arena: Arena) -> None:
    arena.kill()
    for _ in range(arena.chance.randint(1, 3)):
        arena.daemon.launch()
        arena.pause(0, 0.7)
        arena.kill()


def next_call(arena: Arena, calls: tuple[str, ...], where: str) -> tuple[str, int]:
    """Which call to die at, and at which time: the next of the sweep."""
    call = arena.chance.choice(calls)
    arena.sweep[f"{where} {call}"] += 1
    return call, (arena.sweep[f"{where} {call}"] - 1) % FARTHEST.get(call, 4) + 1


def kill_at_commit_call(arena: Arena) -> None:
    """It dies as the n-th call begins, under load, some times over; each of its threads counts for itself."""
    for _ in range(SWEPT_AT_ONCE):
        if not arena.daemon.runs:
            arena.daemon.start()
        call, number = next_call(arena, tracing.COMMIT_CALLS, "commit")
        with tracing.attached(arena.daemon.pid, call, f"signal=KILL:when={number}", arena.folder / "strace.log"):
            died = wait_for_end(arena.daemon, DIES_WITHIN_S) is not None
        arena.figures["syscalls_swept" if died else "syscalls_not_reached"] += 1
        arena.figures["kills"] += died


def kill_at_opening_call(arena: Arena) -> None:
    """It dies while it opens the database that a kill left behind, or while it closes it."""
    arena.kill()
    call, number = next_call(arena, tracing.OPENING_CALLS, "opening")
    died = dies_opening(arena.daemon, arena, call, number)
    arena.figures["syscalls_swept" if died else "syscalls_not_reached"] += 1


def dies_opening(daemon: TracedDaemon, arena: Arena, call: str, number: int) -> bool:
    """Start it so that it dies at this call; when it comes up all the same, it is told to end, and may die closing."""
    seen = daemon.log.stat().st_size if daemon.log.exists() else 0
    daemon.prefix = tuple(tracing.inject(call, f"signal=KILL:when={number}", arena.folder / "strace.log"))
    daemon.launch()
    daemon.prefix = ()
    until(lambda: not daemon.runs or b"ready" in daemon.log.read_bytes()[seen:], "it to die or to be ready")
    if daemon.runs:
        daemon.signal(signal.SIGTERM)
    code = wait_for_end(daemon, 30)
    if code is None:
        daemon.end()
    arena.figures["kills"] += code == -signal.SIGKILL
    return code == -signal.SIGKILL


def kill_senders(arena: Arena) -> None:
    """The processes that send for it die in the midst of a request, or hang."""
    hung = []
    for _ in range(arena.chance.randint(2, 5)):
        arena.pause(0.05, 0.4)
        for sender in psutil.Process(arena.daemon.pid).children():
            with contextlib.suppress(psutil.Error):
                if arena.chance.random() < 0.3:
                    sender.suspend()
                    hung.append(sender)
                else:
                    sender.kill()
                arena.figures["senders_killed"] += 1
    arena.pause(0.0, 2.0)
    for sender in hung:
        with contextlib.suppress(psutil.Error):
            sender.resume()


def freeze(arena: Arena) -> None:
    """For seconds, as a busy or sleeping device does."""
    arena.daemon.signal(signal.SIGSTOP)
    arena.pause(0.5, 4.0)
    arena.daemon.signal(signal.SIGCONT)
    arena.figures["freezes"] += 1


def restart_storm(arena: Arena) -> None:
    """Told to end as soon as it is up, several times over; a second SIGTERM comes while it drains."""
    for _ in range(arena.chance.randint(2, 4)):
        for _ in range(arena.chance.randint(1, 3)):
            with contextlib.suppress(ProcessLookupError):
                arena.daemon.signal(signal.SIGTERM)
            arena.pause(0, 0.01)
        code = wait_for_end(arena.daemon, 30)
        if code != 0:
            arena.violations.append(f"SIGTERM was answered with {code}")
        arena.figures["restarts"] += 1
        arena.daemon.start()


def two_daemons(arena: Arena) -> None:
    """At once, after a kill: one comes up, the other says why it does not."""
    arena.kill()
    rivals = [TracedDaemon.__new__(TracedDaemon) for _ in range(2)]
    for rival in rivals:
        rival.__dict__.update(arena.daemon.__dict__)
        rival.launch()
    try:
        until(lambda: sum(rival.runs for rival in rivals) == 1, "one of two daemons to give up")
        (loser,) = [rival for rival in rivals if not rival.runs]
        (arena.daemon.process,) = [rival.process for rival in rivals if rival.runs]
        if loser.process is None or loser.process.returncode != 1:
            arena.violations.append(f"the second daemon ended so: {loser.process}")
        until(lambda: answers(arena), "the daemon that is left to answer")
    except AssertionError:
        for rival in rivals:
            rival.end()
        raise
    arena.figures["rivals"] += 1


def answers(arena: Arena) -> bool:
    try:
        return bool(arena.daemon.status()["state"])
    except (OSError, AssertionError):
        return False


def kill_while_forgetting(arena: Arena) -> None:
    """Sessions are made to be forgotten; what is deleted is overwritten and cut off the file; it dies meanwhile."""
    made = [new_id() for _ in range(FORGET_AT_ONCE)]
    with arena.daemon.wire() as wire:
        wire.hello("doomed")
        for session_id in made:
            wire.call("session.start", session_id=session_id)
            arena.doomed[session_id] = 40
            models = [inference(model_id=f"{number:02}" + "m" * 200) for number in range(40)]
            wire.call("record.batch", seq=made.index(session_id) + 1, records=models, flush=True)
            wire.call("session.end")
    call, number = next_call(arena, ("pwrite64", "fdatasync", "ftruncate"), "forgetting")
    log = arena.folder / "strace.log"
    with tracing.attached(arena.daemon.pid, call, f"signal=KILL:when={number}", log):
        with contextlib.suppress(OSError, AssertionError), arena.daemon.wire() as wire:
            for session_id in made:
                arena.asked_to_forget.add(session_id)
                try:
                    wire.call("data.forget", session_id=session_id)
                except WireFailure as failure:
                    arena.violations.append(f"a session could not be forgotten: {failure}")
                else:
                    arena.forgotten.add(session_id)
        died = wait_for_end(arena.daemon, 0.1) is not None
    arena.figures["syscalls_swept" if died else "syscalls_not_reached"] += 1
    arena.figures["kills"] += died
