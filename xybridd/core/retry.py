"""What to do after an attempt: one pure function of what came of it, and when the next one is due.

    2xx                                   delivered
    network failures, a captive portal,   retry: full jitter over 1 s doubling to 300 s, or Retry-After if that is
    408, 425, 429, 5xx but 501, 505         later, at most 24 h; from the third failure on not before 30 s (the
                                            circuit breaker: one probe at a time)
    401, 403, 404, any other status       pause: nothing of ours will make it work; tried every 15 minutes, and at once
                                            when the configuration changes
    413, 400, 422                         halve the batch until the bad one is alone; that one is a dead letter
    no request can be made of it          likewise: it would be no other the next time
    some refused for good (OTLP)          dead letters: sending it again would double the rest

Waiting is reckoned on the monotonic clock. It outlives a restart, and a reboot, after which the wall clock has a say,
but never for longer than the wait was.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from xybridd.core.timeline import plausible

if TYPE_CHECKING:
    from xybridd.core.delivery import Failure, Outcome

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 300.0
LONGEST_RETRY_AFTER_S = 86_400.0
PAUSE_S = 900.0
BREAKER_FAILURES = 3
BREAKER_S = 30.0

_RETRIED = frozenset({408, 425, 429})
_NEVER_OF_USE = frozenset({501, 505})
_HALVED = frozenset({400, 413, 422})
_PAUSING: frozenset[Failure] = frozenset({"refused"})

Action = Literal["deliver", "retry", "pause", "halve", "bury"]


class Verdict(msgspec.Struct, frozen=True):
    """``wait_s``: until the next attempt of this sink; 0 when there is no reason to wait."""

    action: Action
    wait_s: float = 0.0


def decide(outcome: Outcome, items: int, failures: int, now_ms: int, jitter: float) -> Verdict:
    """``items`` in the batch; ``failures`` in a row before this one; ``jitter`` from 0 to 1."""
    status, failure = outcome.status, outcome.failure
    if failure is None and (status is None or 200 <= status < 300):
        return Verdict("deliver")
    if failure == "partial":
        return Verdict("bury")
    if failure == "unsendable" or (failure is None and status in _HALVED):
        return Verdict("halve" if items > 1 else "bury")
    asked_s = retry_after_s(outcome.retry_after, now_ms)
    if failure in _PAUSING or (failure is None and not _is_retried(status)):
        return Verdict("pause", max(PAUSE_S, asked_s))
    return Verdict("retry", max(backoff_s(failures + 1, jitter), asked_s))


def _is_retried(status: int | None) -> bool:
    return status in _RETRIED or (status is not None and 500 <= status < 600 and status not in _NEVER_OF_USE)


def backoff_s(failures: int, jitter: float) -> float:
    """The wait after so many failures in a row (1, 2, …)."""
    longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 30))
    wait_s = jitter * longest_s
    return max(wait_s, BREAKER_S) if failures >= BREAKER_FAILURES else wait_s


def retry_after_s(header: str | None, now_ms: int) -> float:
    """Seconds that a ``Retry-After`` asks for, in either form (RFC 9110, 10.2.3), at most a day; 0 for none or past."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        # So many digits that they are no number of this world are as good as a day.
        return min(float(text[:20]), LONGEST_RETRY_AFTER_S)
    if not text or not plausible(now_ms):
        return 0.0  # a date says nothing to who does not know the time
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few receivers ask, and fewer by a date

    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    wait_s = (when - datetime.fromtimestamp(0, UTC)).total_seconds() - now_ms / 1000
    return min(max(0.0, wait_s), LONGEST_RETRY_AFTER_S)


class Wait(msgspec.Struct, frozen=True):
    """A wait as it is written down: until when on the monotonic clock of a boot, and on the wall clock."""

    boot_id: str
    until_mono_ms: int
    until_wall_ms: int
    length_ms: int

    def left_s(self, mono_s: float) -> float:
        """Seconds that are left, in the boot that it is of."""
        return max(0.0, self.until_mono_ms / 1000 - mono_s)

    def carried_over(self, boot_id: str, mono_s: float, wall_ms: int) -> Wait:
        """The same wait in this boot; after a reboot the wall clock says what is left, at most all of it."""
        if boot_id == self.boot_id:
            return self
        left_ms = max(0, min(self.until_wall_ms - wall_ms, self.length_ms))
        return wait_of(left_ms / 1000, boot_id, mono_s, wall_ms)


def wait_of(length_s: float, boot_id: str, mono_s: float, wall_ms: int) -> Wait:
    length_ms = int(length_s * 1000)
    return Wait(boot_id, int(mono_s * 1000) + length_ms, wall_ms + length_ms, length_ms)


class RateLimit:
    """At most so many requests in any minute."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._sent_s: list[float] = []

    def left_s(self, now_s: float) -> float:
        """Seconds until the next request may go."""
        self._sent_s = [at_s for at_s in self._sent_s if now_s - at_s < 60]
        return 0.0 if len(self._sent_s) < self.most else self._sent_s[-self.most] + 60 - now_s

    def sent(self, now_s: float) -> None:
        self._sent_s.append(now_s)
