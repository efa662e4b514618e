"""What a report is made of, as it was read from a daemon."""

from __future__ import annotations

from typing import Any

import msgspec

from xybridd.core.minute import HOUR_MS, MINUTE_MS, Sample
from xybridd.core.report.figures import SessionFigures
from xybridd.core.report.sums import Sums

DAY_MS = 24 * HOUR_MS

#: Older minutes stand by the hour (retention), so that finer steps would show what is not there.
FINE_FOR_MS = 2 * DAY_MS

#: So many steps fill a chart on a desk, and are still told apart on a phone.
_MOST_STEPS = 200

_STEPS_MS = (
    MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS, 6 * HOUR_MS, 12 * HOUR_MS, DAY_MS,
)  # fmt: skip


class Facts(msgspec.Struct):
    """``status`` and ``capabilities`` are the answers of `daemon.status` and `device.capabilities`.

    ``sessions``: those that were open in that time, newest first. ``utc_offset_ms``: of the reader's clock.
    """

    made_at_ms: int
    since_ms: int
    until_ms: int
    utc_offset_ms: int
    app: str | None
    status: dict[str, Any]
    capabilities: dict[str, Any]
    sums: Sums
    samples: list[Sample]
    sessions: list[SessionFigures]


def step_for(since_ms: int, until_ms: int, now_ms: int) -> int:
    """The shortest step that a chart of that time can take, and no shorter than what is kept of it."""
    least = HOUR_MS if since_ms < now_ms - FINE_FOR_MS else MINUTE_MS
    for step_ms in _STEPS_MS:
        if step_ms >= least and (until_ms - since_ms) / step_ms <= _MOST_STEPS:
            return step_ms
    days = -(-(until_ms - since_ms) // (_MOST_STEPS * DAY_MS))
    return int(days) * DAY_MS
