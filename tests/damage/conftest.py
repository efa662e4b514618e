"""Where accidents happen."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose syncs cost nothing, where there is one: the disk that matters here is ours."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="xyb-", dir=shm if os.access(shm, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print past pytest: a figure."""

    def aloud(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")  # noqa: T201

    return aloud
