"""Whether there is a daemon, whether it is well and of this version, and whether its ledger adds up."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from xybridd.core.health.finding import Finding, Topic
from xybridd.core.words import span

DAEMON = Topic("daemon", "without it apps keep their records themselves, up to a limit, and nothing is sent on")
VERSION = Topic("version", "after an upgrade the old daemon goes on until it is started again")
LEDGER = Topic("ledger", "every record and export stands in it once; where it does not add up, something was lost")

#: running: it answered. silent: something listens and does not answer in time. denied: we may not connect.
Answers = Literal["running", "silent", "denied", "absent"]

_ENDS = ("delivered", "queued", "superseded", "dead", "evicted", "forgotten")


class DaemonFacts(msgspec.Struct, frozen=True, kw_only=True):
    answers: Answers
    #: Of the command that asks.
    version: str
    #: What `daemon.status` answered.
    status: dict[str, Any] | None = None
    #: Of the peer, by the kernel.
    user: str | None = None
    #: A service of this user, or of the system, is installed.
    service: Literal["user", "system"] | None = None
    #: What stands in the way of connecting, with what mends it.
    denied: str | None = None


def judge(facts: DaemonFacts) -> list[Finding]:
    if facts.status is None:
        return [_absent(facts)]
    return [_running(facts, facts.status), _version(facts, facts.status), _ledger(facts.status["ledger"])]


def _absent(facts: DaemonFacts) -> Finding:
    steer = "sudo xybridd service {} --system" if facts.service == "system" else "xybridd service {}"
    if facts.answers == "denied":
        return DAEMON.unknown("we may not connect to it, so much below was not looked at", "sudo xybridd doctor")
    if facts.answers == "silent":
        again = steer.format("restart") if facts.service else "xybridd bugreport, then end it and: xybridd run"
        return DAEMON.problem("something listens at its socket and does not answer within 3 s", again)
    if facts.service:
        return DAEMON.problem("its service is installed, but no daemon answers", steer.format("start"))
    return DAEMON.problem("does not run", "xybridd run")


def _running(facts: DaemonFacts, status: dict[str, Any]) -> Finding:
    whose = f" as {facts.user}" if facts.user else ""
    if status["state"] == "ok":
        return DAEMON.ok(f"runs{whose} for {span(status['uptime_s'])}, pid {status['pid']}")
    folder = status["storage"]["path"].rpartition("/")[0]
    # What is not for want of space is the disk's own trouble: mounted read-only, or failing, and then the kernel tells.
    look = f"df -h {folder}" if "full" in status["reason"] else f"findmnt -T {folder}; sudo dmesg | tail"
    return DAEMON.problem(f"{status['state']}: {status['reason']}", look)


def _version(facts: DaemonFacts, status: dict[str, Any]) -> Finding:
    there = status["version"]
    if there == facts.version:
        return VERSION.ok(f"command and daemon are both {there}")
    mend = {
        "system": "sudo xybridd service install --system",
        "user": "xybridd service install",
        None: f"kill {status['pid']}; xybridd run",
    }[facts.service]
    return VERSION.warning(f"the daemon is {there}, this command is {facts.version}", mend)


def _ledger(ledger: dict[str, Any]) -> Finding:
    wrong = []
    known = ledger["counted"] + ledger["duplicates"] + sum(ledger["rejected"].values())
    if ledger["received"] != known:
        wrong.append(f"{ledger['received']:,} records received, {known:,} accounted for")
    for sink, tally in ledger.get("exports", {}).items():
        became = sum(tally[end] for end in _ENDS)
        if tally["made"] != became:
            wrong.append(f"{tally['made']:,} exports made for {sink}, {became:,} accounted for")
    if wrong:
        return LEDGER.problem("; ".join(wrong), "xybridd bugreport")
    sinks = len(ledger.get("exports", {}))
    also = f", and the exports of {sinks} sink{'s' if sinks > 1 else ''}" if sinks else ""
    return LEDGER.ok(f"{ledger['received']:,} records received, each accounted for{also}")
