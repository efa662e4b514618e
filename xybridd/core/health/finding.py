"""One answer of the doctor: what was found, why it matters, and the command that mends it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(StrEnum):
    """``unknown``: nobody could look, for want of a daemon or of permission; it is no fault by itself."""

    PROBLEM = "problem"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"


#: What is to be seen first stands first.
ORDER = (Level.PROBLEM, Level.WARNING, Level.UNKNOWN, Level.OK)

#: The exit code of `xybridd doctor` by the worst that was found.
EXIT_CODES = {Level.PROBLEM: 7, Level.WARNING: 6, Level.UNKNOWN: 0, Level.OK: 0}


class Finding(msgspec.Struct, frozen=True):
    """``says``: what was found. ``why``: why it matters. ``mend``: the command, None where there is nothing to do."""

    check: str
    level: Level
    says: str
    why: str
    mend: str | None = None


class Topic(msgspec.Struct, frozen=True):
    """One thing that is checked, and why it matters to whoever owns the device."""

    check: str
    why: str

    def ok(self, says: str) -> Finding:
        return Finding(self.check, Level.OK, says, self.why)

    def unknown(self, says: str, mend: str | None = None) -> Finding:
        return Finding(self.check, Level.UNKNOWN, says, self.why, mend)

    def warning(self, says: str, mend: str) -> Finding:
        return Finding(self.check, Level.WARNING, says, self.why, mend)

    def problem(self, says: str, mend: str) -> Finding:
        return Finding(self.check, Level.PROBLEM, says, self.why, mend)


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Problems first; within a level in the order in which they were found."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.level))


def worst(findings: Iterable[Finding]) -> Level:
    return min((finding.level for finding in findings), key=ORDER.index, default=Level.OK)


def counts(findings: Iterable[Finding]) -> dict[Level, int]:
    found = list(findings)
    return {level: sum(finding.level is level for finding in found) for level in ORDER}
