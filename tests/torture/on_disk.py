"""Attacks on the disk: calls of the system that fail for a while, and then do not any more."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.support import until
from tests.torture import tracing
from tests.torture.arena import wait_for_end

if TYPE_CHECKING:
    from tests.torture.arena import Arena

ERRORS = ("EIO", "ENOSPC")

#: What fails together; `write` is the log's and the spool's. What a commit needs comes most often.
WHAT = (
    "pwrite64",
    "pwrite64",
    "fdatasync,fsync",
    "pwrite64,write",
    "fdatasync,fsync",
    "ftruncate",
    "rename,renameat,renameat2",
    "openat",
    "pwrite64,fdatasync,fsync,ftruncate",
)

#: Every call, or every so many-th: a disk that is full fails always, one that dies now and then.
WHEN = ("1+", "1+2", "2+3", "3+7")


def trouble(arena: Arena) -> tuple[str, str]:
    """Which calls fail, and how."""
    chance = arena.chance
    return chance.choice(WHAT), f"error={chance.choice(ERRORS)}:when={chance.choice(WHEN)}"


def errors(arena: Arena, *, then_kill: bool = False) -> None:
    """For some seconds, under load. It may refuse what it is asked, it must not die."""
    calls, what = trouble(arena)
    log = arena.folder / "strace.log"
    with tracing.attached(arena.daemon.pid, calls, what, log):
        arena.pause(0.3, 3.0)
        if not arena.daemon.runs:
            arena.violations.append(f"it died of {what} in {calls}: {arena.daemon.said()[-2000:]}")
        elif then_kill:
            arena.kill()
    count(arena, calls)


def errors_and_kill(arena: Arena) -> None:
    errors(arena, then_kill=True)


def errors_while_opening(arena: Arena) -> None:
    """It says why it does not come up, or it comes up."""
    arena.kill()
    daemon, log = arena.daemon, arena.folder / "strace.log"
    # Not openat: with that, Python does not start.
    calls = arena.chance.choice([each for each in WHAT if each != "openat"])
    seen = len(daemon.said())
    when = f"{arena.chance.randint(1, 12)}+"
    daemon.prefix = tuple(tracing.inject(calls, f"error={arena.chance.choice(ERRORS)}:when={when}", log))
    daemon.launch()
    daemon.prefix = ()
    until(lambda: not daemon.runs or "ready" in daemon.said()[seen:], "it to give up or to be ready")
    if daemon.runs:
        arena.pause(0.1, 1.0)
        daemon.signal(signal.SIGTERM)
    code = wait_for_end(daemon, 30)
    if code not in {0, 1}:
        arena.violations.append(f"with {calls} failing it ended with {code}: {daemon.said()[seen:][-2000:]}")
        daemon.end()
    count(arena, calls)


def count(arena: Arena, calls: str) -> None:
    failed = tracing.injected(arena.folder / "strace.log")
    arena.figures["errors_injected"] += failed
    arena.figures[f"errors in {calls}"] += failed
