"""Whether telemetry was declined: in an app's environment nothing is recorded then, in the daemon's nothing sent."""

from __future__ import annotations

import os


def opted_out() -> bool:
    """``XYBRID_TELEMETRY_OPTOUT`` = 1, true or yes (any case), or ``DO_NOT_TRACK=1``."""
    asked = os.environ.get("XYBRID_TELEMETRY_OPTOUT", "").strip().lower()
    return asked in {"1", "true", "yes"} or os.environ.get("DO_NOT_TRACK", "").strip() == "1"
