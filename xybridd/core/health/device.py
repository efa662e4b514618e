"""GPU and NPU: how far each is from being used, and what is missing."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from xybridd.core.health.finding import Finding, Topic

GPU = Topic("GPU", "an app that may not use it runs on the processor, slower, and mostly without a word")
NPU = Topic("NPU", GPU.why)

_GROUP = re.compile(r"add the user to the group (\S+)")


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``details`` of `device.capabilities`: for each quantity a reading as it is shown; None: nobody could look."""

    details: dict[str, Any] | None
    #: Who looked; a permission is that one's.
    looked: Literal["daemon", "us"] = "daemon"
    user: str = ""


def judge(facts: DeviceFacts) -> list[Finding]:
    if facts.details is None:
        mend = "xybridd device --explain"
        return [GPU.unknown("could not be looked at", mend), NPU.unknown("could not be looked at", mend)]
    return [*_each(facts, GPU, facts.details.get("gpu")), *_each(facts, NPU, facts.details.get("npu"))]


def _each(facts: DeviceFacts, topic: Topic, reading: dict[str, Any] | None) -> list[Finding]:
    if reading is None or reading["value"] is None:
        reason = (reading or {}).get("reason") or "no source tells"
        return [topic.unknown(f"not known: {reason}", "xybridd device --explain")]
    if not reading["value"]:
        return [topic.ok("there is none")]
    return [_one(facts, topic, each) for each in reading["value"]]


def _one(facts: DeviceFacts, topic: Topic, device: dict[str, Any]) -> Finding:
    name, stage, hint = device.get("name") or "without a name", device.get("stage"), device.get("hint")
    if hint is None or stage in {"permitted", "usable"}:
        return topic.ok(f"{name}: {stage or 'there'}")
    group = _GROUP.search(hint)
    mend = f"sudo usermod -aG {group[1]} {facts.user}" if group else "xybridd device --explain"
    whom = " for the daemon" if group and facts.looked == "daemon" else ""
    return topic.warning(f"{name}: {str(stage).replace('_', ' ')}, not permitted{whom}; {hint}" if group
                         else f"{name}: {str(stage).replace('_', ' ')}; {hint}", mend)  # fmt: skip
