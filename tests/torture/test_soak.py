"""The soak, short: an hour and a half of a device in some seconds. ``make soak MINUTES=`` is a whole day.

``XYBRIDD_SOAK_S`` is how long it takes (20).
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.torture.soak import Sample, SoakSummary, soak

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = float(os.environ.get("XYBRIDD_SOAK_S", "20"))


@pytest.mark.campaign
@pytest.mark.timeout(120 + 3 * SECONDS)
def test_what_the_daemon_takes_does_not_grow(say: Callable[[str], None]) -> None:
    summary = soak(SECONDS, 1.5 if SECONDS < 60 else 24, random.randrange(2**32), lambda _: None)
    say("\n".join(summary.lines()))
    assert summary.passed, summary.violations
    assert summary.counts["records"] > 1000


@pytest.mark.parametrize(
    ("name", "grown"), [("rss_mib", 3.0), ("files", 3.0), ("threads", 1.5), ("database_kib", 300.0)]
)
def test_what_grows_is_seen(name: str, grown: float) -> None:
    flat = Sample(rss_mib=30.0, files=15.0, threads=4.0, database_kib=900.0)
    steady, growing = SoakSummary(1), SoakSummary(1)
    steady.compare([flat] * 30)
    growing.compare([flat] * 20 + [flat._replace(**{name: getattr(flat, name) + grown})] * 10)
    assert steady.passed
    assert not growing.passed
    assert name in growing.violations[0]
