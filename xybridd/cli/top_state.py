"""What the live screen knows: made of polls, asked for rows. Pure, so that a test plays an hour in no time.

A poll brings what was recorded lately minute by minute, closed and open. A minute is known by its session and its
beginning; a later poll of the same one replaces it, so that counts only grow while a minute is open, closed, or on its
way to disk in between. What it grew by since the poll before is what was called meanwhile; less than nothing (sessions
that were deleted, a daemon of another data folder) counts as nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from xybridd.cli.figures import figures, splits
from xybridd.core.grouping import Group, group

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xybridd.core.minute import AppMinute

    Row = dict[str, Any]

WINDOWS_S = (60, 300, 900)

#: A poll asks for what began so long ago; the first for the longest window.
RECENT_MS = 180_000
_KEPT_MS = (max(WINDOWS_S) + 60) * 1000

#: Over so long the rate is taken, and so much of it is drawn.
RATE_S = 10.0
TREND_STEPS = 20
_TREND_STEP_S = 3.0

#: What the rows may be sorted by: a name, and whether the largest comes first.
SORTS = {
    "rate": ("calls_per_second", True),
    "calls": ("calls", True),
    "errors": ("errors", True),
    "p50": ("p50_ms", True),
    "p99": ("p99_ms", True),
    "name": ("app", False),
}

NO_MODEL = "(no model)"


class Poll(NamedTuple):
    """``mono_s`` is the monotonic clock's; ``device`` the details of the device, None when they were not asked for."""

    at_ms: int
    mono_s: float
    minutes: Sequence[AppMinute]
    sessions: int
    device: dict[str, Any] | None = None


class _Grown(NamedTuple):
    mono_s: float
    calls: int


class TopState:
    def __init__(self) -> None:
        self.at_ms = 0
        self.sessions = 0
        self.device: dict[str, Any] | None = None
        self._minutes: dict[tuple[str, int], AppMinute] = {}
        self._grown: dict[tuple[str, str], deque[_Grown]] = {}
        self._first_s: float | None = None
        self._last_s = 0.0
        #: Percentages and degrees as they were, by what they are of.
        self.history: dict[str, deque[float]] = {}

    def since_ms(self, now_ms: int) -> int:
        """From when on the next poll should ask for minutes."""
        return max(0, now_ms - (_KEPT_MS if self._first_s is None else RECENT_MS))

    def take(self, poll: Poll) -> None:
        first = self._first_s is None
        grown: dict[tuple[str, str], int] = {}
        for each in poll.minutes:
            key = (each.minute.session_id, each.minute.started_at_ms)
            before = self._minutes.get(key)
            for name, calls in _calls(each).items():
                was = 0 if before is None else _calls(before).get(name, 0)
                grown[name] = grown.get(name, 0) + max(0, calls - was)
            self._minutes[key] = each
        self._forget_old(poll.at_ms)
        if first:
            self._first_s = poll.mono_s
        else:
            for name, calls in grown.items():
                self._grown.setdefault(name, deque()).append(_Grown(poll.mono_s, calls))
        self._last_s = poll.mono_s
        self.at_ms, self.sessions = poll.at_ms, poll.sessions
        if poll.device is not None:
            self.device = poll.device
            self._remember(poll.device)

    def forget_rates(self) -> None:
        """The daemon was gone: what came meanwhile came nobody knows when."""
        self._first_s = None
        self._grown.clear()

    def rows(self, window_s: float, sort: str = "rate", wanted: str = "", *, backwards: bool = False) -> list[Row]:
        """A row for each app and model of the window whose names contain `wanted`, in the order of `sort`."""
        inside = [each for each in self._minutes.values() if each.minute.ended_at_ms >= self.at_ms - window_s * 1000]
        found = [
            self._row(one.key[0], one.key[1], figures(one) | splits(one)) for one in group(inside, ("app", "model"))
        ]
        found += [self._row(app, NO_MODEL, _errors_alone(count)) for app, count in _unnamed(inside).items()]
        words = wanted.lower().split()
        found = [row for row in found if all(word in f"{row['app']} {row['model']}".lower() for word in words)]
        field, largest = SORTS[sort]
        found.sort(key=lambda row: (row["app"], row["model"]))
        if field != "app":
            known = [row for row in found if row[field] is not None]
            known.sort(key=lambda row: row[field], reverse=largest)
            found = known + [row for row in found if row[field] is None]
        return found[::-1] if backwards else found

    def trend(self, app: str, model: str) -> list[float]:
        """Calls a second, a step of `_TREND_STEP_S` each, the latest last."""
        steps = [0.0] * TREND_STEPS
        for each in self._grown.get((app, model), ()):
            back = int((self._last_s - each.mono_s) / _TREND_STEP_S)
            if 0 <= back < TREND_STEPS:
                steps[-1 - back] += each.calls / _TREND_STEP_S
        return steps

    def _row(self, app: str, model: str, shown: Row) -> Row:
        return {"app": app, "model": model, "calls_per_second": self._rate(app, model)} | shown

    def _rate(self, app: str, model: str) -> float | None:
        """Over the last seconds; over the last minute or two before there are any; None where nobody knows."""
        if model == NO_MODEL or self._first_s is None:
            return None
        watched_s = self._last_s - self._first_s
        if watched_s < 1:
            return round(_minute_rate(self._minutes.values(), app, model, self.at_ms), 3)
        over_s = min(RATE_S, watched_s)
        recent = (each.calls for each in self._grown.get((app, model), ()) if each.mono_s > self._last_s - over_s)
        return round(sum(recent) / over_s, 3)

    def _forget_old(self, now_ms: int) -> None:
        old = [key for key, each in self._minutes.items() if each.minute.ended_at_ms < now_ms - _KEPT_MS]
        for key in old:
            del self._minutes[key]
        oldest_s = self._last_s - TREND_STEPS * _TREND_STEP_S - RATE_S
        for grown in self._grown.values():
            while grown and grown[0].mono_s < oldest_s:
                grown.popleft()

    def _remember(self, device: dict[str, Any]) -> None:
        for name, value in measures(device).items():
            self.history.setdefault(name, deque(maxlen=TREND_STEPS)).append(value)


def _calls(each: AppMinute) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for model in each.minute.models:
        found[each.app, model.model_id] = found.get((each.app, model.model_id), 0) + model.calls
    return found


def _unnamed(minutes: Iterable[AppMinute]) -> dict[str, int]:
    """Errors of each app that are laid at no model's door."""
    found: dict[str, int] = {}
    for each in minutes:
        left = each.minute.error_count - sum(model.errors for model in each.minute.models)
        if left > 0:
            found[each.app] = found.get(each.app, 0) + left
    return found


def _errors_alone(count: int) -> Row:
    empty = Group((), 0, 0, set(), errors=count)
    return figures(empty) | splits(empty)


def _minute_rate(minutes: Iterable[AppMinute], app: str, model: str, now_ms: int) -> float:
    mine = [each for each in minutes if each.app == app]
    recent = [each for each in mine if each.minute.ended_at_ms >= now_ms - 60_000]
    if not recent:
        return 0.0
    began_ms = min(each.minute.started_at_ms for each in recent)
    if len(mine) > len(recent):  # it did not just begin: what was quiet before counts too
        began_ms = min(began_ms, now_ms - 60_000)
    return sum(_calls(each).get((app, model), 0) for each in recent) / (max(1000, now_ms - began_ms) / 1000)


# The device


def value(device: dict[str, Any], name: str) -> Any:
    return device.get(name, {}).get("value")


def measures(device: dict[str, Any]) -> dict[str, float]:
    """What of the details is drawn over time: percentages, and degrees."""
    memory, heat = value(device, "memory") or {}, value(device, "thermal") or {}
    battery = value(device, "battery") or {}
    found = {
        "cpu": value(device, "cpu_usage_percent"),
        "heat": heat.get("max_c"),
        "battery": battery.get("level_percent"),
    }
    if memory.get("total_bytes"):
        found["memory"] = 100 * (1 - memory["available_bytes"] / memory["total_bytes"])
    for kind in ("gpu", "npu"):
        for at, each in enumerate(value(device, kind) or []):
            found[f"{kind} {at}"] = each.get("utilization_percent")
    return {name: float(number) for name, number in found.items() if number is not None}
