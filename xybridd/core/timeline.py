"""What the wall clock did in this boot, and which of the times that it wrote are to be corrected, by how much.

A board without a battery-backed clock boots in 1970, or at the time at which it was switched off, and jumps when NTP
answers. Between two jumps lies a *stretch*: its offset is the wall clock minus the time since the boot. The rule:

- A jump is more than 5 s. What is less is slewing.
- A stretch is *wrong* when its clock stands before 2023 or after 2060; the first stretch of a boot also when it began
  before the newest session of an earlier boot, since time does not run backwards over a reboot.
- When a clock that is right follows, what this boot wrote in a wrong stretch is moved by the difference of the two.
- Nothing else is moved: that a clock which could be right is set by a day, or an hour, says nothing about which of the
  two was wrong, and history is not rewritten on a guess.
- Ages, by which old sessions are deleted, are not reckoned by a clock that leapt ahead until it has held for an hour.

A time is known to be of a wrong stretch by its value: between what the wall clock showed when that began and when it
ended. So correcting twice changes nothing, and times that producers send later, from their queues, are corrected alike.
Times here are milliseconds; ``up_ms`` is since the boot, sleep included.
"""

from __future__ import annotations

from typing import NamedTuple

#: A clock outside of these is wrong: 2023 is before any release of this program, 2060 after the life of its devices.
PLAUSIBLE_FROM_MS = 1_672_531_200_000
PLAUSIBLE_UNTIL_MS = 2_840_140_800_000

_JUMP_MS = 5_000
#: How far a clock may be slewed within a stretch, and times be rounded.
_SLACK_MS = 1_000
_LEAP_MS = 86_400_000
_HELD_MS = 3_600_000

#: A clock that is set again and again must not fill memory.
_MOST = 50


def plausible(wall_ms: int) -> bool:
    return PLAUSIBLE_FROM_MS <= wall_ms < PLAUSIBLE_UNTIL_MS


class Stretch(NamedTuple):
    """``from_ms`` to ``until_ms`` since the boot; ``wrong``: its times are to be corrected, once known by ``by_ms``."""

    offset_ms: int
    from_ms: int
    until_ms: int
    wrong: bool
    by_ms: int | None = None

    def wrote(self, time_ms: int) -> bool:
        """Whether a time is one that its clock showed."""
        return self.offset_ms + self.from_ms - _SLACK_MS <= time_ms <= self.offset_ms + self.until_ms + _SLACK_MS


class Correction(NamedTuple):
    """Times from ``from_ms`` to ``until_ms`` on the wrong clock, both included, move by ``by_ms``."""

    from_ms: int
    until_ms: int
    by_ms: int

    def of(self, time_ms: int) -> int:
        return time_ms + self.by_ms if self.from_ms <= time_ms <= self.until_ms else time_ms


class Timeline:
    """The stretches of one boot. ``newest_ms``: the start of the newest session of an earlier boot, 0 for none."""

    def __init__(self, boot_id: str = "", stretches: list[Stretch] | None = None, newest_ms: int = 0) -> None:
        self.boot_id = boot_id
        self.stretches = list(stretches or [])
        self._newest_ms = newest_ms if plausible(newest_ms) else 0
        #: By which ages are reckoned while the clock has not held: the wall clock, as it would be without its leap.
        self._before_leap_ms: int | None = None
        self._leapt_at_ms = 0

    @property
    def right(self) -> bool:
        """Whether the clock, as it was seen last, is taken to be right."""
        return bool(self.stretches) and not self.stretches[-1].wrong

    @property
    def corrections(self) -> list[Correction]:
        """Of everything that is known to be wrong in this boot, in its order."""
        return [
            Correction(
                stretch.offset_ms + stretch.from_ms - _SLACK_MS,
                stretch.offset_ms + stretch.until_ms + _SLACK_MS,
                stretch.by_ms,
            )
            for stretch in self.stretches
            if stretch.by_ms is not None
        ]

    def corrected(self, time_ms: int) -> int:
        """A time of this boot, as the clock that is right would have shown it."""
        for stretch in self.stretches:
            if stretch.by_ms is not None and stretch.wrote(time_ms):
                return time_ms + stretch.by_ms
        return time_ms

    def look(self, wall_ms: int, up_ms: int) -> bool:
        """Note what the clocks show now; whether there is something new to be written down, or to be corrected."""
        offset_ms = wall_ms - up_ms
        if not self.stretches:
            wrong = not plausible(wall_ms) or wall_ms < self._newest_ms
            self.stretches.append(Stretch(offset_ms, 0, up_ms, wrong))
            if self._newest_ms and wall_ms > self._newest_ms + _LEAP_MS:
                self._leap(self._newest_ms + _LEAP_MS - up_ms, up_ms)
            return wrong
        last = self.stretches[-1]
        if abs(offset_ms - last.offset_ms) <= _JUMP_MS:
            self.stretches[-1] = last._replace(offset_ms=offset_ms, until_ms=up_ms)
            return False
        self.stretches[-1] = last._replace(until_ms=up_ms)
        if offset_ms > last.offset_ms + _LEAP_MS and not last.wrong:
            self._leap(last.offset_ms, up_ms)
        elif offset_ms < last.offset_ms:
            self._before_leap_ms = None
        right = plausible(wall_ms) and not (last.wrong and wall_ms < self._newest_ms)
        # Of those that are right nobody asks for more than the last one.
        self.stretches = [each for each in self.stretches if each.wrong][-_MOST:]
        self.stretches.append(Stretch(offset_ms, last.until_ms, up_ms, wrong=not right))
        if right:
            self.stretches = [self._settled(each, offset_ms) for each in self.stretches]
        return last.wrong or not right

    @staticmethod
    def _settled(stretch: Stretch, offset_ms: int) -> Stretch:
        if not stretch.wrong or stretch.by_ms is not None:
            return stretch
        return stretch._replace(by_ms=offset_ms - stretch.offset_ms)

    def _leap(self, offset_ms: int, up_ms: int) -> None:
        if self._before_leap_ms is None:
            self._before_leap_ms = offset_ms
        self._leapt_at_ms = up_ms

    def age_now_ms(self, wall_ms: int, up_ms: int) -> int:
        """What time it is at least, to reckon by it how old something is: what looks older may be only from a leap."""
        if not plausible(wall_ms):
            return 0
        if self._before_leap_ms is None:
            return wall_ms
        if up_ms - self._leapt_at_ms >= _HELD_MS:
            self._before_leap_ms = None
            return wall_ms
        return min(wall_ms, self._before_leap_ms + up_ms)
