"""Facts about the clients that the daemon refused, from its own answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xybridd.core.health.clients import ClientFacts, judge

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding


def look(scene: Scene) -> list[Finding]:
    # A daemon of an earlier version says nothing of them.
    refused = None if scene.status is None else scene.status.get("refused_clients")
    return judge(ClientFacts(refused=refused, now_ms=int(time.time() * 1000)))
