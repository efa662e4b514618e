"""The clients of other languages as processes: each demo records a latency a line, and says at its end what it did."""

from __future__ import annotations

import array
import fcntl
import shutil
import subprocess
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.support import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support import Daemon

FOLDER = Path(__file__).parents[2] / "examples" / "clients"

#: What the document tells an app's developer to compile with.
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZED = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiled(place: Path, *flags: str) -> str:
    """The demo in C, built in `place`."""
    program = place / "demo"
    sources = [str(FOLDER / "demo.c"), str(FOLDER / "xybridd.c")]
    done = subprocess.run(
        ["gcc", *STRICT, *flags, "-o", str(program), *sources], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(program)


def command_of(client: str, place: Path) -> list[str]:
    """How to start the demo of a language. Skips, and says so, where the language is not there."""
    if client == "shell":
        _needs("nc", "netcat-openbsd")
        return ["sh", str(FOLDER / "demo.sh")]
    if client == "node":
        _needs("node", "nodejs")
        return ["node", str(FOLDER / "demo.mjs")]
    _needs("gcc", "gcc and libc6-dev")
    return [compiled(place, *(SANITIZED if client == "c-sanitized" else ["-O2", "-Wconversion", "-Wshadow"]))]


def _needs(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: {package})")


class Demo:
    """One of them at work. What it is fed are the latencies 1, 2, 3 …, so that their sum says which of them came."""

    def __init__(self, command: list[str], daemon: Daemon, *names: str, patience_s: float = PATIENCE_S) -> None:
        """``names``: of the app, the model and its version; ``patience_s``: how long it waits for a daemon at its end."""
        self.app = names[0]
        self.fed = 0
        self.process = subprocess.Popen(
            [*command, *names, str(int(patience_s))],
            env={**daemon.env, "TMPDIR": str(daemon.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def feed(self, count: int) -> None:
        self.feed_lines(str(self.fed + number).encode() for number in range(1, count + 1))
        self.fed += count

    def feed_lines(self, lines: Iterable[bytes]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def has_read_all(self) -> bool:
        """Whether nothing that it was fed is left in the pipe."""
        assert self.process.stdin is not None
        left = array.array("i", [0])
        fcntl.ioctl(self.process.stdin, termios.FIONREAD, left)
        return left[0] == 0

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Close its input: its exit code, what it says became of the records, its standard error."""
        out, err = self.process.communicate(timeout=2 * PATIENCE_S)
        report = dict(word.split("=", 1) for word in out.decode().split())
        session_id = report.pop("session")
        return (
            self.process.returncode,
            {**{key: int(n) for key, n in report.items()}, "session": session_id},
            err.decode(),
        )


def sum_up_to(count: int) -> int:
    """Of the latencies 1 … count."""
    return count * (count + 1) // 2
