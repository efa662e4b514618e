"""What the benchmarks share: daemons, raw frames, and what the kernel says of a process."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec
import psutil

from tests.support import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bench(NamedTuple):
    """``folder`` is on the file system that is measured; ``quick`` asks for fewer rounds and shorter waits."""

    folder: Path
    quick: bool

    def rounds(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @contextlib.contextmanager
    def own_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)

    @contextlib.contextmanager
    def daemon(self, config: str = "") -> Iterator[Daemon]:
        """A daemon of its own, ready; ended afterwards. Rings are made in a runtime folder of its own meanwhile."""
        with self.own_folder() as folder, _runtime_folder():
            daemon = Daemon(folder, config)
            try:
                yield daemon.start()
                daemon.stop()
            finally:
                daemon.end()


@contextlib.contextmanager
def _runtime_folder() -> Iterator[None]:
    """In memory where the system has such a folder, as that of a login session is."""
    memory = Path("/dev/shm")  # noqa: S108
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="xb-", dir=memory if memory.is_dir() else None) as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        try:
            yield
        finally:
            del os.environ["XDG_RUNTIME_DIR"]
            if before is not None:
                os.environ["XDG_RUNTIME_DIR"] = before


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Keep this process, and those it starts meanwhile, on these cores; without effect where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Frames:
    """A connection that sends bytes made beforehand, so that what is measured is the daemon."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, method: str, params: object) -> None:
        self.sock.sendall(frame(method, msgspec.json.encode(params)))

    def answers(self) -> int:
        """Wait for the next answers and count them. Fails when one of them is an error."""
        data = self.sock.recv(2**18)
        assert data, "the daemon closed the connection"
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            assert b'"error"' not in line, line
        return len(lines)

    def call(self, method: str, params: object) -> None:
        self.send(method, params)
        while not self.answers():
            pass

    def begin(self, app: str = "bench") -> None:
        """Say hello and start a session."""
        self.call("hello", {"app": app, "client_id": str(uuid.uuid4())})
        self.call("session.start", {})


def frame(method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}\n' % (method.encode(), params)


# What the kernel says of a process


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process: by the nanosecond on Linux, else by the clock tick."""
    try:
        return sum(int(path.read_text().split()[0]) for path in _threads(pid, "schedstat")) / 1e9
    except (OSError, ValueError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)


def wakeups(pid: int) -> int:
    """How often threads of a process that still run have waited for something so far: voluntary context switches."""
    count = 0
    for path in _threads(pid, "status"):
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        count += int(fields["voluntary_ctxt_switches"])
    return count


def written_bytes(pid: int) -> int:
    """Bytes that a process has caused to be written to a disk so far, in whole pages: Linux's own account."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"])


def resident_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _threads(pid: int, name: str) -> list[Path]:
    found = [task / name for task in Path(f"/proc/{pid}/task").iterdir()]
    if not found:
        raise OSError(f"nothing is known of process {pid}")
    return found
