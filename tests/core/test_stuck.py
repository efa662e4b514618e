from __future__ import annotations

import pytest

from xybridd.core.delivery import Outcome
from xybridd.core.retry import Verdict
from xybridd.core.stuck import MOST_ASIDE, Stuck

RETRY = Verdict("retry", 1.0)


def failing(stuck: Stuck, key: str, outcome: Outcome, times: int = 1) -> None:
    for _ in range(times):
        stuck.note(key, outcome, RETRY)


@pytest.mark.parametrize(
    "outcome", [Outcome(status=500), Outcome(failure="sender"), Outcome(failure="timeout"), Outcome(failure="broken")]
)
def test_three_failures_in_a_row_put_a_batch_aside(outcome: Outcome) -> None:
    stuck = Stuck()
    failing(stuck, "a", outcome, 2)
    assert not stuck.aside
    failing(stuck, "a", outcome)
    assert "a" in stuck.aside


@pytest.mark.parametrize(
    "outcome", [Outcome(status=503), Outcome(status=429), Outcome(failure="connect"), Outcome(failure="dns")]
)
def test_a_network_or_a_receiver_that_is_busy_puts_none_aside(outcome: Outcome) -> None:
    stuck = Stuck()
    failing(stuck, "a", outcome, 100)
    assert stuck.aside == ()


def test_if_all_fail_it_is_not_the_batches() -> None:
    """No more of them than so many are ever begun."""
    stuck, begun = Stuck(), set[str]()
    for _ in range(200):
        key = next(key for key in map(str, range(100)) if key not in stuck.aside)
        begun.add(key)
        failing(stuck, key, Outcome(status=500))
    assert len(begun) == MOST_ASIDE + 1


def test_one_that_got_through_in_between_starts_the_count_again() -> None:
    stuck = Stuck()
    failing(stuck, "a", Outcome(status=500), 2)
    stuck.note("b", Outcome(status=200), Verdict("deliver"))
    failing(stuck, "a", Outcome(status=500), 2)
    assert stuck.aside == ()
