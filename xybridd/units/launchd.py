"""What launchd is asked for, as plans; written from its manuals (launchctl(1), launchd.plist(5)) and not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.units.plan import Facts, Plan, Remove, Run, Step, reconcile, removable
from xybridd.units.shipped import plist_for, shipped

if TYPE_CHECKING:
    from xybridd.units.systemd import Verb

ACCOUNT = "_xybridd"
GROUP = "xybrid"
SYSTEM_LOG = "/Library/Logs/xybridd/xybridd.log"


def label(facts: Facts) -> str:
    return "dev.xybrid.xybridd.daemon" if facts.scope == "system" else "dev.xybrid.xybridd.agent"


def _domain(facts: Facts) -> str:
    return "system" if facts.scope == "system" else f"gui/{facts.uid}"


def _plist(facts: Facts) -> str:
    folder = "/Library/LaunchDaemons" if facts.scope == "system" else f"{facts.home}/Library/LaunchAgents"
    return f"{folder}/{label(facts)}.plist"


def log_file(facts: Facts) -> str:
    return SYSTEM_LOG if facts.scope == "system" else f"{facts.home}/Library/Logs/xybridd.log"


def wanted(facts: Facts) -> dict[str, str]:
    group_id = facts.group_id if facts.scope == "system" else None
    text = plist_for(shipped(f"launchd/{label(facts)}.plist"), facts.command, facts.home, group_id)
    return {_plist(facts): text}


def install(facts: Facts, *, force: bool = False) -> Plan:
    writes, kept = reconcile(wanted(facts), facts, force=force)
    if kept:
        return Plan(kept=tuple(kept))
    steps: list[Step] = []
    if facts.scope == "system":
        steps += _account(facts)
        steps.append(_owned_folder("/Library/Logs/xybridd"))
        steps.append(_owned_folder(facts.data))
    if writes:
        if _plist(facts) in facts.files:
            steps.append(Run(("launchctl", "bootout", f"{_domain(facts)}/{label(facts)}"), may_fail=True))
        steps += [*writes, Run(("launchctl", "bootstrap", _domain(facts), _plist(facts)))]
    else:
        steps.append(Run(("launchctl", "kickstart", f"{_domain(facts)}/{label(facts)}")))
    return Plan(tuple(steps), notes=(f"the data: {facts.data}; the log: {log_file(facts)}",))


def _account(facts: Facts) -> list[Step]:
    if facts.account:
        return []
    number = str(facts.group_id)
    return [
        Run(("dseditgroup", "-o", "create", "-i", number, GROUP)),
        Run(("dscl", ".", "-create", f"/Users/{ACCOUNT}", "UniqueID", number)),
        Run(("dscl", ".", "-create", f"/Users/{ACCOUNT}", "PrimaryGroupID", number)),
        Run(("dscl", ".", "-create", f"/Users/{ACCOUNT}", "UserShell", "/usr/bin/false")),
        Run(("dscl", ".", "-create", f"/Users/{ACCOUNT}", "NFSHomeDirectory", "/var/empty")),
    ]


def _owned_folder(path: str) -> Run:
    return Run(("install", "-d", "-o", ACCOUNT, "-g", GROUP, "-m", "0700", path))


def uninstall(facts: Facts, *, force: bool = False) -> Plan:
    removals, kept = removable(wanted(facts), facts, force=force)
    there = bool(removals or kept)
    steps: list[Step] = []
    if there:
        steps.append(Run(("launchctl", "bootout", f"{_domain(facts)}/{label(facts)}"), may_fail=True))
        steps += [*removals, Remove(log_file(facts))]
    if facts.scope == "system" and facts.account and not kept:
        if facts.data_there:
            steps.append(Run(("chown", "-R", "-h", "root:wheel", facts.data)))
        steps += [
            Run(("dscl", ".", "-delete", f"/Users/{ACCOUNT}")),
            Run(("dseditgroup", "-o", "delete", GROUP), may_fail=True),
        ]
    notes = [] if there else ["it is not installed"]
    if facts.data_there:
        notes.append(f"the data stays: {facts.data}; to delete it: rm -r '{facts.data}'")
    return Plan(tuple(steps), tuple(kept), tuple(notes))


def steer(facts: Facts, verb: Verb) -> Plan:
    target = f"{_domain(facts)}/{label(facts)}"
    commands = {
        # KeepAlive brings back what is only killed: to stop is to have launchd forget it until it is started again.
        "start": ("launchctl", "bootstrap", _domain(facts), _plist(facts)),
        "stop": ("launchctl", "bootout", target),
        "restart": ("launchctl", "kickstart", "-k", target),
    }
    return Plan((Run(commands[verb]),))


def logs(facts: Facts, lines: int, *, follow: bool) -> tuple[str, ...]:
    return ("tail", "-n", str(lines), *(("-f",) if follow else ()), log_file(facts))


def question(facts: Facts) -> tuple[str, ...]:
    return ("launchctl", "print", f"{_domain(facts)}/{label(facts)}")
