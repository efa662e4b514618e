"""Fixtures for everybody: a folder with a short name, daemons in it, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import RECEIVER_KEY, Daemon, until
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# In CI a commit is tried with the same examples each time; chance is for those who can look into what it finds.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("default")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's address, which pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="xyb-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_daemon(folder: Path) -> Iterator[Callable[..., Daemon]]:
    """Make (not start) daemons, each in a folder of its own; all are ended after the test."""
    made: list[Daemon] = []

    def make(config: str = "", env: dict[str, str] | None = None) -> Daemon:
        home = folder / str(len(made))
        home.mkdir()
        made.append(Daemon(home, config, env))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon().start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where exports go to: a process of its own, that wants a key."""
    with Receiver(key=RECEIVER_KEY) as running:
        yield running


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell that starts these tests in the background has them ignore Ctrl-C, and all that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def nothing_of_the_users() -> Iterator[None]:
    """What a client in a test's own process keeps for later goes nowhere near what this user's apps have kept."""
    with tempfile.TemporaryDirectory(prefix="xyb-") as apart, pytest.MonkeyPatch.context() as patched:
        patched.setenv("XYBRIDD_DATA_DIR", str(Path(apart) / "data"))
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that leaves a thread alive has not ended what it started; it ends where the test wanted it to."""
    del monkeypatch  # undone only after the threads have ended
    before = set(threading.enumerate())
    yield
    until(lambda: not (set(threading.enumerate()) - before), f"threads to end: {threading.enumerate()}")
