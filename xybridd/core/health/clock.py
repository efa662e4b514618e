"""The clock: of this century or not, kept right by somebody, set while the daemon ran."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from xybridd.core.health.finding import Finding, Topic
from xybridd.core.words import span

CLOCK = Topic("clock", "records carry its time: where it is wrong, so are they, and certificates are refused")

#: No machine that runs this is older: one that says so has no battery for its clock, and no network yet.
_EARLIEST_MS = 1_704_067_200_000  # 2024-01-01
_LATEST_MS = 4_102_444_800_000  # 2100-01-01
_JUMP_S = 60.0

_MEND = "sudo timedatectl set-ntp true   (or install chrony)"


class ClockFacts(msgspec.Struct, frozen=True, kw_only=True):
    now_ms: int
    #: By the kernel, or by whoever keeps the clock; None: not known.
    synchronised: bool | None = None
    #: Whether something keeps it right (NTP is on); None: not known.
    kept: bool | None = None
    #: How far it was moved while the daemon ran, in s; None without a daemon.
    moved_s: float | None = None


def judge(facts: ClockFacts) -> list[Finding]:
    when = datetime.fromtimestamp(min(max(facts.now_ms, 0), _LATEST_MS) / 1000, UTC)
    if not _EARLIEST_MS <= facts.now_ms < _LATEST_MS:
        return [CLOCK.problem(f"it says {when:%Y-%m-%d}", _MEND)]
    if facts.moved_s is not None and abs(facts.moved_s) > _JUMP_S:
        way = "forward" if facts.moved_s > 0 else "back"
        says = f"it was set {way} by {span(abs(facts.moved_s))} while the daemon ran; what came before has the old time"
        return [CLOCK.warning(says, "timedatectl status")]
    if facts.synchronised is False:
        says = "it is not synchronised" + ("" if facts.kept is None else ", NTP is " + ("on" if facts.kept else "off"))
        return [CLOCK.warning(says, "timedatectl status" if facts.kept else _MEND)]
    if facts.synchronised is None:
        return [CLOCK.ok(f"{when:%Y-%m-%d %H:%M} UTC; whether it is synchronised is not known")]
    return [CLOCK.ok(f"{when:%Y-%m-%d %H:%M} UTC, synchronised")]
