from __future__ import annotations

from itertools import permutations
from typing import get_args

from xybridd.core.outbox import EDGES, KEPT, UNSENT, Event, Row, State, Tally, batch_key, sources

ROWS = [Row(1, "session", "a", 1, 5, 7), Row(2, "session", "b", 2, 6, 8)]


def test_every_state_is_reached_and_every_event_leads_somewhere() -> None:
    assert {state for state, _ in EDGES} | set(EDGES.values()) == set(State)
    assert {event for _, event in EDGES} == set(get_args(Event))


def test_what_is_over_stays_over() -> None:
    ends = {State.DELIVERED, State.SUPERSEDED, State.EVICTED, State.FORGOTTEN}
    assert not any(state in ends for state, _ in EDGES)


def test_what_is_unsent_can_end_in_every_way() -> None:
    reached = set(UNSENT)
    for _ in State:
        reached |= {to for (state, _), to in EDGES.items() if state in reached}
    assert reached == set(State)
    assert set(UNSENT) < set(KEPT)


def test_only_what_was_never_sent_is_superseded() -> None:
    assert sources("supersede") == (State.QUEUED,)


def test_a_key_follows_from_what_is_in_the_batch() -> None:
    key = batch_key("device", "xybrid", ROWS)
    assert key == batch_key("device", "xybrid", list(ROWS))
    others = [
        batch_key("other", "xybrid", ROWS),
        batch_key("device", "file", ROWS),
        batch_key("device", "xybrid", ROWS[:1]),
        *(batch_key("device", "xybrid", rows) for rows in permutations(ROWS) if list(rows) != ROWS),
        batch_key("device", "xybrid", [Row(3, "session", "a", 1, 5, 7), ROWS[1]]),
    ]
    assert len({key, *others}) == len(others) + 1


def test_where_the_body_is_does_not_matter_to_the_key() -> None:
    assert batch_key("d", "file", [Row(1, "session", "a", 1, 5, 7)]) == batch_key(
        "d", "file", [Row(1, "session", "a", 1, 5, 99)]
    )


def test_a_tally_balances_or_not() -> None:
    assert Tally(made=21, delivered=1, queued=2, superseded=3, dead=4, evicted=5, forgotten=6).balances()
    assert not Tally(made=2, delivered=1).balances()
