"""The service: whether it is installed, starts by itself and runs, and whether its files are of this version."""

from __future__ import annotations

from typing import Any

import msgspec

from xybridd.core.health.finding import Finding, Topic

SERVICE = Topic("service", "without one nothing starts the daemon at boot, and nothing brings it back after a crash")
UNITS = Topic("unit files", "a unit of another version may lack a permission or a limit that this one counts on")


class ServiceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``gathered``: of each scope what `xybridd service status --json` says; ``obstacle``: why nobody could ask."""

    gathered: tuple[dict[str, Any], ...] = ()
    obstacle: str | None = None
    manager_runs: bool = True
    daemon_runs: bool = False


def judge(facts: ServiceFacts) -> list[Finding]:
    if not facts.manager_runs:
        return [SERVICE.ok("no systemd here; whatever starts your app starts `xybridd run`")]
    installed = [each for each in facts.gathered if each["installed"]]
    if not installed:
        if not facts.gathered:
            return [SERVICE.unknown(f"could not be asked: {facts.obstacle}")]
        says = "none is installed" + ("; the daemon was started by hand" if facts.daemon_runs else "")
        return [SERVICE.warning(says, "xybridd service install")]
    return [finding for each in installed for finding in (_service(each), _units(each))]


def _flags(each: dict[str, Any]) -> tuple[str, str, str]:
    return ("sudo ", " --system", "the system's") if each["scope"] == "system" else ("", "", "yours")


def _service(each: dict[str, Any]) -> Finding:
    sudo, flag, whose = _flags(each)
    if each.get("result", "success") not in {"success", ""}:
        return SERVICE.problem(f"{whose}, ended by itself: {each['result']}", f"{sudo}xybridd service logs{flag}")
    if not each["running"]:
        return SERVICE.problem(f"{whose}, does not run", f"{sudo}xybridd service start{flag}")
    if each.get("at_boot") is False:
        return SERVICE.warning(f"{whose}, runs, but does not start at boot", f"{sudo}xybridd service install{flag}")
    if each.get("listening") is False:
        return SERVICE.warning(f"{whose}, runs without its socket", f"{sudo}xybridd service install{flag}")
    if each.get("lingers") is False:
        return SERVICE.ok(f"{whose}, runs, started at login (from boot on: loginctl enable-linger)")
    return SERVICE.ok(f"{whose}, runs, started at boot")


def _units(each: dict[str, Any]) -> Finding:
    sudo, flag, _whose = _flags(each)
    states = [(entry["path"], entry["state"]) for entry in each["files"]]
    bad = [f"{path}: {state}" for path, state in states if state in {"missing", "of another version"}]
    if bad:
        return UNITS.warning("; ".join(bad), f"{sudo}xybridd service install{flag}")
    changed = [path for path, state in states if state == "changed by hand"]
    if changed:
        return UNITS.ok(f"changed by hand, and left as they are: {', '.join(changed)}")
    return UNITS.ok("as this version wrote them")
