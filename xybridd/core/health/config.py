"""The config file: whether it can be used, whether every key is known, and who may change it."""

from __future__ import annotations

import msgspec

from xybridd.core.health.finding import Finding, Topic

CONFIG = Topic("config", "a file that cannot be used keeps the daemon from starting; an unknown key does nothing")
MODE = Topic("config permissions", "who may write it decides where what was recorded is sent to")
OPT_OUT = Topic("opt-out", "with these variables an app records nothing, and a daemon sends nothing")


class ConfigFacts(msgspec.Struct, frozen=True, kw_only=True):
    #: None: there is no file, the defaults hold.
    path: str | None
    #: It is there, and not ours to read.
    hidden: bool = False
    error: str | None = None
    warnings: tuple[str, ...] = ()
    mode: int | None = None
    #: Whether it belongs to us or to root.
    trusted_owner: bool = True
    #: Variables of this environment that decline telemetry, as NAME=value.
    declined: tuple[str, ...] = ()


def judge(facts: ConfigFacts) -> list[Finding]:
    found = []
    if facts.hidden:
        found.append(CONFIG.unknown(f"we may not read {facts.path}", "sudo xybridd doctor"))
    elif facts.error is not None:
        found.append(CONFIG.problem(facts.error, "xybridd config check"))
    elif facts.warnings:
        found += [CONFIG.warning(warning, "xybridd config show") for warning in facts.warnings]
    elif facts.path is None:
        found.append(CONFIG.ok("no file; the defaults hold"))
    else:
        found.append(CONFIG.ok(f"{facts.path} is sound"))
    if facts.mode is not None and (facts.mode & 0o022 or not facts.trusted_owner):
        says = f"others may change {facts.path} (mode {facts.mode:04o})"
        mend = f"chmod go-w {facts.path}" if facts.trusted_owner else f"sudo chown root {facts.path}"
        found.append(MODE.problem(says if facts.trusted_owner else f"{facts.path} belongs to another user", mend))
    if facts.declined:
        names = " and ".join(facts.declined)
        drop = " ".join(each.partition("=")[0] for each in facts.declined)
        found.append(OPT_OUT.warning(f"{names} is set here: apps started from here record nothing", f"unset {drop}"))
    else:
        found.append(OPT_OUT.ok("not asked for in this environment"))
    return found
