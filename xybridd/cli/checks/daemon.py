"""Facts about the daemon, from its own answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd import __version__
from xybridd.cli.checks.socket import gather
from xybridd.core.health.daemon import Answers, DaemonFacts, judge
from xybridd.units.observed import user_name

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding


def look(scene: Scene) -> list[Finding]:
    return judge(
        DaemonFacts(
            answers=_answers(scene),
            version=__version__,
            status=scene.status,
            user=None if scene.peer is None else user_name(scene.peer[0]),
            service=scene.service,
        )
    )


def _answers(scene: Scene) -> Answers:
    if scene.status is not None:
        return "running"
    if scene.connected is not None:
        return "silent"
    return "denied" if any(each.reached == "denied" for each in gather(scene)) else "absent"
