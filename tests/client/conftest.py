"""Clients of these tests keep their spools in a folder of the test, where their daemons do not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def spool_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XYBRIDD_DATA_DIR", str(folder / "mine"))
    return folder / "mine" / "spool"
