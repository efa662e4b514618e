"""Fixtures for everybody: a folder with a short name, daemons in it, and nothing left behind."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import Daemon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A test that leaves a thread alive has not ended what it started."""
    before = set(threading.enumerate())
    yield
    until(lambda: not (set(threading.enumerate()) - before), f"threads to end: {threading.enumerate()}")
