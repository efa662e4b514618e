from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.given import NOW_MS
from xybridd.core.delivery import Failure, Outcome
from xybridd.core.retry import (
    BREAKER_FAILURES,
    BREAKER_S,
    LONGEST_RETRY_AFTER_S,
    LONGEST_RETRY_S,
    PAUSE_S,
    RateLimit,
    Verdict,
    backoff_s,
    decide,
    retry_after_s,
    wait_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY_S = 86_400

#: Every status that the design names, and some of every class that it does not: what becomes of a batch of two.
STATUSES: Mapping[int, str] = {
    200: "deliver", 201: "deliver", 202: "deliver", 204: "deliver", 207: "deliver", 299: "deliver",
    300: "pause", 304: "pause", 399: "pause",
    400: "halve", 413: "halve", 422: "halve",
    401: "pause", 403: "pause", 404: "pause",
    402: "pause", 405: "pause", 406: "pause", 407: "pause", 409: "pause", 410: "pause", 411: "pause", 415: "pause",
    418: "pause", 426: "pause", 431: "pause", 451: "pause",
    408: "retry", 425: "retry", 429: "retry",
    500: "retry", 502: "retry", 503: "retry", 504: "retry", 507: "retry", 508: "retry", 511: "retry", 520: "retry",
    501: "pause", 505: "pause",
    600: "pause", 999: "pause",
}  # fmt: skip

FAILURES: Mapping[Failure, str] = {
    "dns": "retry", "connect": "retry", "tls": "retry", "proxy": "retry", "timeout": "retry", "broken": "retry",
    "garbage": "retry", "redirect": "retry", "portal": "retry", "file": "retry", "sender": "retry",
    "refused": "pause",
    "partial": "bury",
    "unsendable": "halve",
}  # fmt: skip


def verdict(outcome: Outcome, items: int = 2, failures: int = 0, jitter: float = 0.5) -> Verdict:
    return decide(outcome, items, failures, NOW_MS, jitter)


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_status_means(status: int) -> None:
    assert verdict(Outcome(status=status)).action == STATUSES[status]


@pytest.mark.parametrize("failure", FAILURES)
def test_what_a_failure_means(failure: Failure) -> None:
    assert verdict(Outcome(failure=failure)).action == FAILURES[failure]


def test_every_failure_there_is_has_a_meaning() -> None:
    assert set(FAILURES) == set(get_args(Failure))


def test_a_failure_counts_though_there_was_a_status() -> None:
    assert verdict(Outcome(status=200, failure="portal")).action == "retry"
    assert verdict(Outcome(status=200, failure="broken")).action == "retry"
    assert verdict(Outcome(status=200, failure="partial")).action == "bury"


def test_a_file_that_was_written_is_delivered() -> None:
    assert verdict(Outcome()).action == "deliver"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_bad_one_alone_is_a_dead_letter(status: int) -> None:
    assert verdict(Outcome(status=status), items=1).action == "bury"


def test_waits_grow_and_are_spread_over_all_of_their_length() -> None:
    assert [backoff_s(failures, 1.0) for failures in range(1, 12)] == [1, 2, 30, 30, 30, 32, 64, 128, 256, 300, 300]
    assert [backoff_s(failures, 0.0) for failures in (1, 2)] == [0, 0]
    assert backoff_s(10_000, 1.0) == LONGEST_RETRY_S


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_longest_nor_shorter_than_the_breaker(failures: int, jitter: float) -> None:
    wait_s = backoff_s(failures, jitter)
    assert 0 <= wait_s <= LONGEST_RETRY_S
    assert failures < BREAKER_FAILURES or wait_s >= BREAKER_S


RETRY_AFTER: list[tuple[str | None, float]] = [
    (None, 0),
    ("", 0),
    ("120", 120),
    (" 7 ", 7),
    ("0", 0),
    ("-5", 0),
    ("1.5", 0),
    ("99999999999999999999999999999999", LONGEST_RETRY_AFTER_S),
    ("soon", 0),
    ("Wed, 99 Nov 2026 25:61:61 GMT", 0),
    (formatdate(NOW_MS / 1000 + 90, usegmt=True), 90),
    (formatdate(NOW_MS / 1000 - 90, usegmt=True), 0),
    (formatdate(NOW_MS / 1000 + 400 * DAY_S, usegmt=True), LONGEST_RETRY_AFTER_S),
    ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER_S),
]


@pytest.mark.parametrize(("header", "expected_s"), RETRY_AFTER)
def test_what_retry_after_asks_for(header: str | None, expected_s: float) -> None:
    assert retry_after_s(header, NOW_MS) == pytest.approx(expected_s, abs=1)


@given(st.text(max_size=60))
def test_no_header_makes_it_fail_or_wait_for_ever(header: str) -> None:
    assert 0 <= retry_after_s(header, NOW_MS) <= LONGEST_RETRY_AFTER_S


def test_the_larger_of_the_two_waits_counts() -> None:
    assert verdict(Outcome(status=503, retry_after="120")).wait_s == 120
    assert verdict(Outcome(status=503, retry_after="1"), failures=9, jitter=1.0).wait_s == 300
    assert verdict(Outcome(status=404, retry_after="5")).wait_s == PAUSE_S
    assert verdict(Outcome(status=403, retry_after="7200")).wait_s == 7200
    assert verdict(Outcome(status=400, retry_after="7200")).wait_s == 0


class TestWait:
    """A wait is of the monotonic clock; a wall clock that steps does not move it."""

    wait = wait_of(300, "boot", 1000, NOW_MS)

    @pytest.mark.parametrize("step_ms", [0, 365 * DAY_S * 1000, -365 * DAY_S * 1000])
    def test_the_wall_clock_does_not_matter(self, step_ms: int) -> None:
        wait = self.wait.carried_over("boot", 1100, NOW_MS + step_ms)
        assert (wait.left_s(1100), wait.left_s(1300), wait.left_s(5000)) == (200, 0, 0)

    def test_after_a_reboot_the_wall_clock_counts(self) -> None:
        assert self.wait.carried_over("next", 3, NOW_MS + 100_000).left_s(3) == 200
        assert self.wait.carried_over("next", 3, NOW_MS + 900_000).left_s(3) == 0

    def test_but_never_for_longer_than_the_wait_was(self) -> None:
        """A board without a battery for its clock is in 1970 again."""
        carried = self.wait.carried_over("next", 3, 0)
        assert (carried.left_s(3), carried.left_s(103)) == (300, 200)


def test_at_most_so_many_requests_in_any_minute() -> None:
    limit, now_s, sent = RateLimit(15), 0.0, list[float]()
    for _ in range(100):
        now_s += limit.left_s(now_s)
        limit.sent(now_s)
        sent.append(now_s)
        now_s += 0.25
    assert all(sum(start <= at_s < start + 60 for at_s in sent) <= 15 for start in sent)
    assert sent[-1] < 100 / 15 * 60 + 1


def test_a_date_says_nothing_to_who_does_not_know_the_time() -> None:
    assert retry_after_s("Sat, 10 Oct 2026 00:00:00 GMT", 60_000) == 0
    assert retry_after_s("30", 60_000) == 30
