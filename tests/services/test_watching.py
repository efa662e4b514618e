"""Word of records: who gets what, what is taken out of it, and what becomes of those who do not read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.given import NOW_MS, call, error, head
from xybridd.errors import Overloaded
from xybridd.protocol.records import ErrorRecord, Record
from xybridd.services.sessions import Link
from xybridd.services.watching import MOST_WATCHERS, Wanted, WatchedRecords, Watching


class Watcher:
    """One that reads as long as it is told to, and what it was told."""

    def __init__(self, watching: Watching, link_id: int = 1, **wanted: Any) -> None:
        self.reads = True
        self.told: list[WatchedRecords] = []
        self.link = Link(link_id, 1000, lambda: "test")
        self.link.push = self.push
        watching.watch(self.link, Wanted(**wanted))

    def push(self, method: str, params: WatchedRecords, most_waiting_bytes: int) -> bool:
        assert method == "records.counted"
        assert most_waiting_bytes > 0
        if self.reads:
            self.told.append(params)
        return self.reads

    def records(self) -> list[Record]:
        return [record for each in self.told for record in each.records]


def test_only_while_somebody_watches_is_the_recorder_told_to_call() -> None:
    watching, called = Watching(), list[Any]()
    watching.on_watched = called.append
    one, other = Watcher(watching, 1), Watcher(watching, 2)
    watching.unwatch(one.link.link_id)
    assert called[-1] == watching.tell
    watching.unwatch(other.link.link_id)
    watching.unwatch(99)
    assert called[-1] is None
    assert called.count(None) == 1


def test_what_is_told_is_what_is_kept() -> None:
    watching = Watching()
    watcher = Watcher(watching)
    watching.tell(
        head("s", app="kiosk"),
        [
            call("m", "1", 5.5),
            call(timestamp_ms=7),
            error("no /home/ada/model.onnx", "m"),
            error("x", category="network"),
        ],
        NOW_MS,
    )
    (told,) = watcher.told
    assert (told.session_id, told.app, told.dropped) == ("s", "kiosk", 0)
    first, second, third, fourth = told.records
    assert (first.timestamp_ms, second.timestamp_ms) == (NOW_MS, 7)
    assert isinstance(third, ErrorRecord)
    assert (third.error, third.model_id, third.timestamp_ms) == ("no ~/model.onnx", "m", NOW_MS)
    assert isinstance(fourth, ErrorRecord)
    assert fourth.category == "Network"


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({}, 3),
        ({"uid": 1000}, 3),
        ({"uid": 1001}, 0),
        ({"app": "app"}, 3),
        ({"app": "another"}, 0),
        ({"model_id": "m"}, 2),
        ({"errors_only": True}, 1),
        ({"model_id": "n", "errors_only": True}, 0),
    ],
)
def test_each_gets_what_it_wants_and_may_see(wanted: dict[str, Any], number: int) -> None:
    watching = Watching()
    watcher = Watcher(watching, **wanted)
    watching.tell(head(), [call("m"), call("n"), error("boom", "m")], NOW_MS)
    assert len(watcher.records()) == number
    assert len(watcher.told) == (1 if number else 0)


def test_who_does_not_read_is_told_afterwards_how_much_was_missed() -> None:
    watching = Watching()
    slow, quick = Watcher(watching, 1), Watcher(watching, 2)
    slow.reads = False
    watching.tell(head(), [call()] * 1200, NOW_MS)
    watching.tell(head(), [error()], NOW_MS)
    slow.reads = True
    watching.tell(head(), [call(), call()], NOW_MS)
    watching.tell(head(), [call()], NOW_MS)
    assert [(len(each.records), each.dropped) for each in slow.told] == [(2, 1201), (1, 0)]
    assert [len(each.records) for each in quick.told] == [500, 500, 200, 1, 2, 1]
    assert {each.dropped for each in quick.told} == {0}


def test_so_many_watch_and_no_more_and_one_may_change_its_mind() -> None:
    watching = Watching()
    watchers = [Watcher(watching, link_id) for link_id in range(MOST_WATCHERS)]
    with pytest.raises(Overloaded):
        Watcher(watching, MOST_WATCHERS)
    watching.watch(watchers[0].link, Wanted(errors_only=True))
    watching.tell(head(), [call()], NOW_MS)
    assert [len(each.told) for each in watchers] == [0] + [1] * (MOST_WATCHERS - 1)


def test_one_that_left_before_it_was_heard_is_not_kept() -> None:
    watching, link = Watching(), Link(1, 1000, lambda: "test")
    link.gone = True
    watching.watch(link, Wanted())
    watching.unwatch(1)
    assert [Watcher(watching, number) for number in range(MOST_WATCHERS)]


def test_a_fault_in_telling_is_logged_and_not_the_recorders(caplog: pytest.LogCaptureFixture) -> None:
    watching = Watching()
    watcher = Watcher(watching)

    def broken(*_: Any) -> bool:
        raise RuntimeError

    watcher.link.push = broken
    watching.watch(watcher.link, Wanted())
    watching.tell(head(), [call()], NOW_MS)
    assert "could not be told" in caplog.text
