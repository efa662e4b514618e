"""Which of the reference's platforms this is."""

from __future__ import annotations

import sys

from xybridd.core.capabilities import Confidence, Platform, Reading

_PLATFORMS = {
    "linux": Platform.LINUX,
    "darwin": Platform.MACOS,
    "android": Platform.ANDROID,
    "ios": Platform.IOS,
}


def read_platform(now_s: float) -> dict[str, Reading]:
    found = _PLATFORMS.get(sys.platform, Platform.UNKNOWN)
    sure = Confidence.UNKNOWN if found is Platform.UNKNOWN else Confidence.HIGH
    return {"platform": Reading(found, sure, "sys.platform", now_s)}
