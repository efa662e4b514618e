"""What leaves the device: is it on, may it, does it get there, and what waits."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from xybridd.core.health.finding import Finding, Topic
from xybridd.core.words import many, size, span

UPLOAD = Topic("upload", "what cannot be sent waits here, and is let go of when the quota is full")
KEY = Topic("API key", "who can read it can send in your name; a file that others may read is not used")
NETWORK = Topic("network", "nothing is sent while the receiver cannot be reached; nothing was sent to find out")
DEAD = Topic("dead letters", "the receiver refused these for good: they never arrive unless somebody looks")
SPOOL = Topic("spool", "undelivered rings of exited processes; a daemon reads them, or the next process delivers them")

_LONG_S = 600.0


class KeyFacts(msgspec.Struct, frozen=True):
    """A file that a key may be in. ``mode`` None: it is there, and we may not look."""

    path: str
    mode: int | None
    ours: bool = True


class ReachFacts(msgspec.Struct, frozen=True):
    """How far we got: to an address, a connection, trust. ``done``: all that the endpoint needs."""

    sink: str
    place: str
    stage: Literal["resolve", "connect", "tls", "done"]
    detail: str = ""
    by_proxy: str | None = None


class UploadFacts(msgspec.Struct, frozen=True, kw_only=True):
    #: What `upload.status` says, or, without a daemon, the same of the config; None: not known.
    status: dict[str, Any] | None
    by_daemon: bool = False
    keys: tuple[KeyFacts, ...] = ()
    key_in_environment: bool = False
    reached: tuple[ReachFacts, ...] = ()


class SpoolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``files``: undelivered rings of exited processes. ``damaged``: files that are no rings, and were set aside.

    ``path``: the folders that hold them, with spaces between.
    """

    path: str
    files: int = 0
    size_bytes: int = 0
    oldest_s: float = 0.0
    damaged: int = 0
    daemon_runs: bool = False


def judge(facts: UploadFacts) -> list[Finding]:
    if facts.status is None:
        return [UPLOAD.unknown("neither the daemon nor the config could be asked")]
    found = [_upload(facts.status), _key(facts, facts.status)]
    found += [_reached(each) for each in facts.reached] or [NETWORK.ok(_not_tried(facts.status))]
    return [*found, _dead(facts)]


def _upload(status: dict[str, Any]) -> Finding:
    if status["problems"]:
        says, found, mend = "; ".join(status["problems"]).partition("; run: ")
        return UPLOAD.problem(says, mend if found else "xybridd upload status")
    sinks = status["sinks"]
    queued = sum(sink["queued"] for sink in sinks)
    match status["state"]:
        case "off":
            return _off(status)
        case "paused":
            return UPLOAD.warning(f"paused, {many(queued, 'export')} wait", "xybridd upload resume")
        case "unknown":
            return UPLOAD.unknown(status["reason"])
        case _:
            pass
    for state, make in (("blocked", UPLOAD.problem), ("retrying", UPLOAD.warning)):
        for sink in sinks:
            if sink["state"] == state:
                says = f"{sink['sink']}: {sink['last_error'] or state}; {many(sink['queued'], 'export')} to send"
                return make(says, "xybridd upload status")
    names = ", ".join(sink["sink"] for sink in sinks)
    return UPLOAD.ok(f"on, to {names}" + (f", {many(queued, 'export')} to send" if queued else ", nothing waits"))


def _off(status: dict[str, Any]) -> Finding:
    left = {sink: tally["queued"] for sink, tally in status.get("not_configured", {}).items()}
    if left:
        waiting = ", ".join(f"{many(queued, 'export')} for {sink}" for sink, queued in left.items())
        return UPLOAD.warning(f"off, and {waiting} wait", "xybridd upload status")
    return UPLOAD.ok(f"off, nothing leaves this device ({status['reason']})")


def _key(facts: UploadFacts, status: dict[str, Any]) -> Finding:
    for key in facts.keys:
        if key.mode is not None and key.mode & 0o077:
            return KEY.problem(f"others may read {key.path} (mode {key.mode:04o}): not used", f"chmod 600 {key.path}")
        if not key.ours:
            return KEY.problem(f"{key.path} belongs to another user: not used", f"sudo chown root {key.path}")
    if facts.keys:
        return KEY.ok(f"in {facts.keys[0].path}" + ("" if facts.keys[0].mode is not None else ", not ours to look at"))
    if facts.key_in_environment:
        return KEY.ok("in the environment; a file of mode 0600 is seen by fewer")
    if any(sink["sink"] == "xybrid" for sink in status["sinks"]):
        # The daemon may have one that we do not see: in its environment, or as a credential of its service.
        if facts.by_daemon:
            return KEY.ok("none that we see; the daemon may have been handed one")
        return KEY.warning("there is an endpoint and no key: a receiver may refuse us", "xybridd upload status")
    return KEY.ok("none, and none is needed")


def _not_tried(status: dict[str, Any]) -> str:
    return "not tried: nothing is sent over a network" if status["state"] != "unknown" else "not tried"


def _reached(each: ReachFacts) -> Finding:
    way = f" by the proxy {each.by_proxy}" if each.by_proxy else ""
    host = each.place.rpartition(":")[0].strip("[]")
    match each.stage:
        case "resolve":
            return NETWORK.problem(f"{each.sink}: no address for {host}: {each.detail}", f"getent hosts {host}")
        case "connect":
            return NETWORK.problem(
                f"{each.sink}: {each.place} takes no connection{way}: {each.detail}", "xybridd upload status"
            )
        case "tls":
            return NETWORK.problem(
                f"{each.sink}: {each.place} is not trusted: {each.detail}", f"openssl s_client -connect {each.place}"
            )
        case _:
            return NETWORK.ok(f"{each.sink}: {each.place} answers{way}")


def _dead(facts: UploadFacts) -> Finding:
    if not facts.by_daemon:
        return DEAD.unknown("only the daemon knows")
    sinks = facts.status["sinks"] if facts.status else []
    dead = {sink["sink"]: sink["dead"] for sink in sinks if sink["dead"]}
    if dead:
        says = ", ".join(f"{many(number, 'export')} for {sink}" for sink, number in dead.items())
        return DEAD.warning(says, "xybridd upload dead list")
    return DEAD.ok("none")


def judge_spool(facts: SpoolFacts) -> list[Finding]:
    if facts.damaged:
        says = f"{many(facts.damaged, 'file')} could not be read as a ring, and were set aside"
        return [SPOOL.warning(f"{says} ({facts.path})", f"ls -l {facts.path}")]
    if not facts.files:
        return [SPOOL.ok("empty")]
    says = f"{many(facts.files, 'ring')} of exited processes, {size(facts.size_bytes)}, for {span(facts.oldest_s)}"
    if not facts.daemon_runs:
        return [SPOOL.warning(f"{says}; they wait for a daemon", "xybridd run")]
    if facts.oldest_s > _LONG_S:
        return [SPOOL.warning(f"{says}, though a daemon runs ({facts.path})", "xybridd service logs")]
    return [SPOOL.ok(f"{says}; the daemon reads them")]
