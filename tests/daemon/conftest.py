"""A daemon that the tests of one file share, where they do not get into each other's way."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Wire


@pytest.fixture(scope="module")
def config() -> str:
    """The config of this file's shared daemon; a test file may define its own."""
    return ""


@pytest.fixture(scope="module")
def served(config: str) -> Iterator[Daemon]:
    home = Path(tempfile.mkdtemp(prefix="xyb-"))
    daemon = Daemon(home, config)
    try:
        yield daemon.start()
    finally:
        daemon.end()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def wire(served: Daemon) -> Iterator[Wire]:
    """A connection to the shared daemon that has said nothing yet."""
    with served.wire() as connection:
        yield connection
