from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ledger_balances
from xybridd.core.ledger import COUNTED, RECEIVED, Ledger

amounts = st.integers(0, 10_000)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["count", "duplicate", "miss", "dropped_by_client"]), st.tuples(amounts)),
        st.tuples(st.just("reject"), st.tuples(amounts, st.sampled_from(["invalid_params", "overloaded"]))),
        st.tuples(st.just("remove"), st.tuples(amounts, st.sampled_from(["retention", "quota"]))),
    )
)
Operations = list[tuple[str, tuple[Any, ...]]]


def after(done: Operations, ledger: Ledger | None = None) -> Ledger:
    ledger = Ledger() if ledger is None else ledger
    for name, arguments in done:
        getattr(ledger, name)(*arguments)
    return ledger


@given(operations)
def test_what_was_received_is_counted_repeated_or_rejected(done: Operations) -> None:
    ledger = after(done)
    assert ledger_balances(ledger.shown())
    assert ledger.removed() == sum(arguments[0] for name, arguments in done if name == "remove")
    assert ledger[RECEIVED] == sum(args[0] for name, args in done if name in ("count", "duplicate", "reject"))


@given(operations, operations)
def test_what_is_written_makes_the_same_ledger_again(before: Operations, later: Operations) -> None:
    ledger = after(before)
    stored = ledger.take_changes()
    assert not ledger.dirty
    after(later, ledger)
    stored |= ledger.take_changes()
    assert Ledger(stored).shown() == ledger.shown()


def test_only_what_changed_is_written() -> None:
    ledger = Ledger({RECEIVED: 5, COUNTED: 5, "duplicates": 1})
    assert not ledger.dirty
    ledger.count(0)
    assert not ledger.dirty
    ledger.count(2)
    assert ledger.take_changes() == {RECEIVED: 7, COUNTED: 7}
    assert ledger.take_changes() == {}


def test_all_is_written_when_the_file_is_gone() -> None:
    ledger = Ledger({RECEIVED: 5, COUNTED: 4, "rejected.overloaded": 1})
    ledger.change_all()
    assert ledger.take_changes() == {RECEIVED: 5, COUNTED: 4, "rejected.overloaded": 1}


@pytest.mark.parametrize(
    ("operation", "part", "shown"),
    [
        (("reject", (3, "invalid_params")), "rejected", {"invalid_params": 3}),
        (("remove", (3, "damage")), "removed", {"damage": 3}),
        (("miss", (2,)), "missing_batches", 2),
        (("dropped_by_client", (9,)), "dropped_by_clients", 9),
    ],
)
def test_each_reason_is_shown_by_its_name(operation: tuple[str, tuple[Any, ...]], part: str, shown: Any) -> None:
    assert after([operation]).shown()[part] == shown
