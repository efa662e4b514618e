"""What strace does to a daemon: it dies at its n-th call of the system, or its calls fail, for a while.

`attached` takes hold of a daemon that runs, and lets go of it unharmed; `inject` is the prefix of a command that has it
from its first call on. Whoever may not trace has neither (`permitted`), and the campaign says so.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The calls by which a commit gets to the disk, and an answer to its client.
COMMIT_CALLS = ("pwrite64", "fdatasync", "sendto", "write", "openat", "ftruncate")

#: Those by which a database is opened, recovered, migrated, salvaged and closed.
OPENING_CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "fchmod", "mkdir")

ENDS_WITHIN_S = 10.0


@cache
def permitted() -> str:
    """Why there is no tracing here; empty when there is."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=none", sys.executable, "-c", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"strace: {tried.stderr.strip()[-200:]}"


def inject(calls: str, what: str, log: Path) -> list[str]:
    """The prefix of a command; the process that is started is the command itself, strace stands beside it."""
    return [
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-o",
        str(log),
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{what}",
    ]


def injected(log: Path) -> int:
    """How many calls failed by our doing."""
    return log.read_text("utf-8", "replace").count("(INJECTED)") if log.exists() else 0


def _is_held(pid: int) -> bool:
    """Whether every thread has a tracer, or there is no such process any more."""
    states = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                states.append("TracerPid:\t0\n" not in (task / "status").read_text())
    return all(states)


@contextlib.contextmanager
def attached(pid: int, calls: str, what: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """While inside, this is done to a process's calls; it may be dead afterwards."""
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}", "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        try:
            until(lambda: tracer.poll() is not None or _is_held(pid), "strace to take hold of the daemon")
            yield tracer
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGTERM)
                try:
                    tracer.wait(ENDS_WITHIN_S)
                except subprocess.TimeoutExpired:
                    tracer.kill()
