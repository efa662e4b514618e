"""Facts about the service, of this user and of the system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xybridd.core.health.service import ServiceFacts, judge
from xybridd.errors import ServiceError

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding
    from xybridd.units.plan import Scope

_SCOPES: tuple[Scope, ...] = ("user", "system")


def look(scene: Scene) -> list[Finding]:
    from xybridd.cli import service_page
    from xybridd.units.observed import on_mac, surroundings

    if not on_mac() and not surroundings().booted:
        return judge(ServiceFacts(manager_runs=False, daemon_runs=scene.daemon_runs))
    gathered, obstacle = list[dict[str, Any]](), None
    for scope in _SCOPES:
        try:
            gathered.append((service_page.gather_on_mac if on_mac() else service_page.gather)(scope))
        except (ServiceError, OSError) as error:
            obstacle = str(error)
    return judge(ServiceFacts(gathered=tuple(gathered), obstacle=obstacle, daemon_runs=scene.daemon_runs))


def installed_scope() -> Scope | None:
    """By the files alone: whose service is installed, a user's own first."""
    from xybridd.units import launchd, systemd
    from xybridd.units.observed import observe, on_mac

    for scope in _SCOPES:
        facts = observe(scope)
        names = (launchd if on_mac() else systemd).wanted(facts)
        if any(Path(name).exists() for name in names):
            return scope
    return None
