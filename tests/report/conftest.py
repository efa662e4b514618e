"""One Chromium for all tests of pages; where there is none, they skip and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.report import browser

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def chromium() -> Iterator[browser.Chromium]:
    if browser.found() is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    with browser.Chromium() as running:
        yield running
