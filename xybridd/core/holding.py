"""When an upload had better wait, though there is something to send: one table.

    no route          until there is one          at most 24 h   (a loopback receiver needs none)
    metered           until it is not             at most 24 h
    battery           under 20 % and not charging at most 24 h
    heat              hot or critical             at most  1 h
    inference         recorded in the last second at most 10 min

What is unknown holds nothing up. Each can be switched off, and ``upload.now`` overrides them all. When one has held for
as long as it may, what is due then goes, until there is nothing more or it fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from xybridd.core.advice import LOW_BATTERY

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.core.capabilities import DeviceState

#: An inference that was recorded so long ago is over.
QUIET_S = 1.0

_HOUR_S = 3600.0


class Facts(msgspec.Struct, frozen=True):
    """What is known of the moment; None is unknown. ``local``: what is sent does not leave by a network."""

    local: bool = False
    routed: bool | None = None
    metered: bool | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    thermal_state: str | None = None
    quiet_s: float = 3600.0


def facts_of(state: DeviceState, *, local: bool, quiet_s: float) -> Facts:
    def value(name: str) -> object:
        reading = state.readings.get(name)
        return None if reading is None else reading.value

    battery, source, heat = value("battery"), value("power_source"), value("thermal_state")
    level = battery.get("level_percent") if isinstance(battery, dict) else None
    charging = True if source == "ac" else battery.get("charging") if isinstance(battery, dict) else None
    route, metered = value("default_route"), value("metered")
    return Facts(
        local=local,
        routed=None if route is None else route != "",
        metered=metered if isinstance(metered, bool) else None,
        battery_percent=level,
        charging=charging,
        thermal_state=None if heat is None else str(heat).lower(),
        quiet_s=quiet_s,
    )


class Rule(NamedTuple):
    """``recheck_s``: nobody tells when it is over, so it is looked at again after so long."""

    name: str
    most_s: float
    holds: Callable[[Facts], bool]
    says: str
    recheck_s: float | None = None


RULES: tuple[Rule, ...] = (
    Rule("route", 24 * _HOUR_S, lambda f: f.routed is False and not f.local, "there is no route to anywhere"),
    Rule("metered", 24 * _HOUR_S, lambda f: f.metered is True and not f.local, "the network is metered"),
    Rule(
        "battery",
        24 * _HOUR_S,
        lambda f: f.battery_percent is not None and f.battery_percent < LOW_BATTERY and not f.charging,
        f"the battery is under {LOW_BATTERY:.0f} % and does not charge",
    ),
    Rule("heat", _HOUR_S, lambda f: f.thermal_state in {"hot", "critical"}, "the device is hot"),
    Rule("inference", _HOUR_S / 6, lambda f: f.quiet_s < QUIET_S, "an inference was just recorded", recheck_s=2.0),
)


class Held(msgspec.Struct, frozen=True):
    """Why it waits, and after how many seconds to look again, if nobody says sooner that something has changed."""

    reason: str
    recheck_s: float


class Holding:
    """Remembers since when each rule holds."""

    def __init__(self, off: frozenset[str] = frozenset()) -> None:
        self.off = off
        self._since_s: dict[str, float] = {}

    def held(self, facts: Facts, now_s: float) -> Held | None:
        """Why what is due has to wait; None when it may go. Asked only while something is due."""
        held: Held | None = None
        for rule in RULES:
            if rule.name in self.off or not rule.holds(facts):
                self._since_s.pop(rule.name, None)
                continue
            left_s = self._since_s.setdefault(rule.name, now_s) + rule.most_s - now_s
            if left_s > 0 and held is None:
                held = Held(rule.says, left_s if rule.recheck_s is None else min(left_s, rule.recheck_s))
        return held

    def clear(self) -> None:
        """Nothing is due any more."""
        self._since_s.clear()
