from __future__ import annotations

from typing import Any

import pytest

from tests.core.given import NOW_MS, call, session
from xybridd.core.changes import Changes
from xybridd.core.registry import EndReason, Identity, Lifetimes, Producer, Registry, Tracked

LIVES = Lifetimes(lost_after_s=30, idle_timeout_s=1800, rollover_s=86_400)
START_S = 1000.0
BOUND: dict[str, Any] = {"client_id": "c"}
UNBOUND: dict[str, Any] = {}


def track(registry: Registry, session_id: str = "s", **head: Any) -> Tracked:
    return registry.track(session(session_id=session_id, **head), START_S)


# Every row: whose it is, whether somebody is attached, seconds since the last record, since it was left, since its
# start; and why it ends, if it does.
DUE = [
    (BOUND, True, 0, None, 0, None),
    (BOUND, True, 5000, None, 5000, None),
    (BOUND, True, 5000, None, 86_399, None),
    (BOUND, True, 0, None, 86_400, "rollover"),
    (BOUND, False, 0, 29.9, 100, None),
    (BOUND, False, 0, 30, 100, "client_lost"),
    (BOUND, False, 0, 30, 86_400, "client_lost"),
    (UNBOUND, False, 1799.9, 5000, 5000, None),
    (UNBOUND, False, 1800, 1800, 1800, "idle"),
    (UNBOUND, True, 1800, None, 1800, "idle"),
    (UNBOUND, False, 0, 86_400, 86_400, "rollover"),
    (UNBOUND, False, 1800, 86_400, 86_400, "idle"),
    ({"implicit": True}, False, 1800, 1800, 1800, "idle"),
]


@pytest.mark.parametrize(("head", "attached", "silent_s", "lonely_s", "age_s", "reason"), DUE)
def test_due(
    head: dict[str, Any], attached: bool, silent_s: float, lonely_s: float | None, age_s: float, reason: str | None
) -> None:
    registry = Registry()
    now_s = START_S + age_s
    tracked = track(registry, **head)
    if attached:
        registry.attach(tracked, 1)
    else:
        tracked.lonely_since_s = None if lonely_s is None else now_s - lonely_s
    tracked.heard_at_s = now_s - silent_s
    assert tracked.due(now_s, LIVES) == reason
    assert registry.due(now_s, LIVES) == ([(tracked, reason)] if reason else [])


@pytest.mark.parametrize("reason", ["ended", "reset", "client_lost", "idle", "rollover", "device_restarted"])
def test_what_has_ended_does_not_end_again(reason: EndReason) -> None:
    registry = Registry()
    tracked = track(registry, **BOUND)
    registry.end(tracked, reason, NOW_MS)
    assert registry.due(START_S + 10**6, LIVES) == []
    assert registry.next_loss_in_s(START_S, LIVES) is None


def test_a_bound_session_that_nobody_ever_held_is_lost_in_time() -> None:
    registry = Registry()
    tracked = track(registry, **BOUND)
    assert tracked.due(START_S + 30, LIVES) == "client_lost"


def test_only_the_last_to_leave_a_bound_session_leaves_it_lonely() -> None:
    registry = Registry()
    bound, unbound = track(registry, "a", **BOUND), track(registry, "b")
    for tracked in (bound, unbound):
        registry.attach(tracked, 1)
        registry.attach(tracked, 2)
    assert registry.detach(1, START_S + 1) == []
    assert registry.detach(1, START_S + 1) == []
    assert registry.detach(2, START_S + 2) == [bound]
    assert bound.lonely_since_s == START_S + 2
    registry.attach(bound, 3)
    assert bound.due(START_S + 5000, LIVES) is None


def test_leaving_an_ended_session_loses_nobody() -> None:
    registry = Registry()
    tracked = track(registry, **BOUND)
    registry.attach(tracked, 1)
    registry.end(tracked, "ended", NOW_MS)
    assert registry.detach(1, START_S) == []


@pytest.mark.parametrize(
    ("left_at_s", "now_s", "wait_s"),
    [([], 0, None), ([0.0], 10, 20), ([0.0, 5.0], 10, 20), ([7.0, 5.0], 10, 25), ([0.0], 100, 0)],
)
def test_the_next_loss_is_of_whoever_left_first(left_at_s: list[float], now_s: float, wait_s: float | None) -> None:
    registry = Registry()
    track(registry, "unbound")
    registry.attach(track(registry, "held", **BOUND), 99)
    for number, left_s in enumerate(left_at_s):
        registry.attach(track(registry, f"b{number}", **BOUND), number)
        registry.detach(number, START_S + left_s)
    assert registry.next_loss_in_s(START_S + now_s, LIVES) == wait_s


def test_an_implicit_session_is_found_by_user_and_app_until_it_ends() -> None:
    registry = Registry()
    tracked = track(registry, implicit=True)
    track(registry, "explicit")
    assert registry.implicit_of(Identity(1000, "app")) is tracked
    assert registry.implicit_of(Identity(1001, "app")) is None
    assert registry.implicit_of(Identity(1000, "other")) is None
    registry.end(tracked, "idle", NOW_MS)
    assert registry.implicit_of(Identity(1000, "app")) is None


def test_an_implicit_session_that_has_ended_is_not_taken_up() -> None:
    registry = Registry()
    ended = session(implicit=True)
    ended.end("idle", NOW_MS)
    registry.track(ended, START_S)
    assert registry.implicit_of(Identity(1000, "app")) is None


def test_a_producers_sessions_are_its_active_ones_alone() -> None:
    registry = Registry()
    first, second = track(registry, "a", **BOUND), track(registry, "b", **BOUND)
    track(registry, "c", client_id="else")
    track(registry, "d", client_id="c", uid=7)
    assert registry.bound_to((1000, "c")) == [first, second]
    registry.end(first, "ended", NOW_MS)
    assert registry.bound_to((1000, "c")) == [second]
    assert registry.active_count() == 3


@pytest.mark.parametrize(("last", "seq", "gap"), [(0, 1, 0), (0, 3, 2), (5, 5, None), (5, 1, None), (5, 6, 0)])
def test_the_gap_before_a_batch(last: int, seq: int, gap: int | None) -> None:
    assert Producer(1, "c", "app", last).gap_before(seq) == gap


def test_a_batch_that_is_applied_is_known_before_it_is_durable() -> None:
    producer = Producer(1, "c", "app", 4)
    producer.apply(5, NOW_MS)
    assert (producer.applied_seq, producer.durable_seq) == (5, 4)
    assert producer.gap_before(5) is None
    assert producer.image().last_seq == 5


# Memory


def many_ended(registry: Registry) -> list[Tracked]:
    """More than are kept, none of them waiting to be written."""
    made = [track(registry, f"s{number}", **BOUND) for number in range(Registry.KEPT + 10)]
    for tracked in made:
        registry.end(tracked, "ended", NOW_MS)
    registry.take_changes(Changes())
    registry.settle()
    return made


def test_only_the_latest_ended_sessions_are_kept() -> None:
    registry = Registry()
    made = many_ended(registry)
    registry.trim()
    assert list(registry.sessions) == [tracked.session.session_id for tracked in made[-Registry.KEPT :]]


@pytest.mark.parametrize("why", ["active", "attached", "changed", "being written"])
def test_what_is_needed_is_not_let_go(why: str) -> None:
    registry = Registry()
    needed = [track(registry, f"n{number}", **BOUND) for number in range(Registry.KEPT + 10)]
    if why != "active":
        for tracked in needed:
            registry.end(tracked, "ended", NOW_MS)
        if why != "changed":
            registry.take_changes(Changes())
        if why == "attached":
            registry.settle()
            for tracked in needed:
                registry.attach(tracked, 1)
    registry.trim()
    assert len(registry.sessions) == len(needed)


def test_what_changed_again_while_it_was_written_is_kept() -> None:
    registry = Registry()
    made = many_ended(registry)
    late = made[0].session
    late.apply([call()], NOW_MS)
    registry.note(late)
    registry.take_changes(Changes())
    registry.trim()
    assert late.session_id in registry.sessions
    registry.settle()
    registry.trim()
    assert late.session_id not in registry.sessions


def test_departed_producers_are_let_go_once_all_of_theirs_is_durable() -> None:
    registry = Registry()
    for number in range(Registry.KEPT + 10):
        producer = Producer(1, f"c{number}", "app", 1)
        registry.producers[producer.key] = producer
    registry.producers[1, "c0"].connections = 1
    registry.producers[1, "c1"].apply(2, NOW_MS)
    registry.trim()
    assert len(registry.producers) == Registry.KEPT + 2
    assert {(1, "c0"), (1, "c1")} <= set(registry.producers)


def test_changes_are_taken_once_and_all_again_when_the_file_is_gone() -> None:
    registry, first, second, third = Registry(), Changes(), Changes(), Changes()
    producer = Producer(1, "c", "app")
    registry.producers[producer.key] = producer
    tracked = track(registry)
    tracked.session.apply([call()], NOW_MS)
    registry.note(tracked.session, producer)
    assert registry.take_changes(first) == [producer]
    assert (len(first.heads), len(first.models), len(first.producers)) == (1, 1, 1)
    assert registry.take_changes(second) == []
    assert second == Changes()
    registry.note_all()
    assert registry.take_changes(third) == [producer]
    assert third == first
