"""Facts about GPU and NPU: the daemon's readings, or our own where there is none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xybridd.core.health.device import DeviceFacts, judge
from xybridd.units.observed import user_name

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding


def look(scene: Scene) -> list[Finding]:
    if scene.capabilities is not None:
        user = scene.user if scene.peer is None else user_name(scene.peer[0])
        return judge(DeviceFacts(details=scene.capabilities["details"], looked="daemon", user=user))
    return judge(DeviceFacts(details=own_details(), looked="us", user=scene.user))


def own_details() -> dict[str, Any]:
    """What this process sees of the device, without a daemon."""
    from xybridd.probes.recorded import open_tree
    from xybridd.probes.register import read_all

    return read_all(open_tree(None), time.monotonic()).details(time.monotonic())
