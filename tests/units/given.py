"""Facts as they are on a machine where nothing is installed, to be varied."""

from __future__ import annotations

from typing import Any

from xybridd.units import systemd
from xybridd.units.plan import Facts, Plan, Run, Scope, Write


def facts(scope: Scope = "system", **more: Any) -> Facts:
    given: dict[str, Any] = {
        "uid": 0 if scope == "system" else 1000,
        "user": "root" if scope == "system" else "ada",
        "home": "/root" if scope == "system" else "/home/ada",
        "command": ("/opt/xybridd/bin/xybridd",),
        "version": "0.1.0",
        "files": {},
        "data": "/var/lib/xybridd" if scope == "system" else "/home/ada/.local/share/xybridd",
        "data_there": False,
    }
    return Facts(scope=scope, **{**given, **more})


def installed(scope: Scope = "system", **more: Any) -> Facts:
    """As a machine is after the plan of `install` was carried out."""
    bare = facts(scope, **more)
    return facts(scope, **{"files": written(systemd.install(bare)), "account": True, "data_there": True, **more})


def written(plan: Plan) -> dict[str, str]:
    return {step.path: step.text for step in plan.steps if isinstance(step, Write)}


def commands(plan: Plan) -> list[str]:
    return [" ".join(step.command) for step in plan.steps if isinstance(step, Run)]
