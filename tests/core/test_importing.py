from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.given import NOW_MS, call, session
from xybridd.core.delivery import Item
from xybridd.core.export import export_item
from xybridd.core.importing import item_from
from xybridd.upload.xybrid import event


def exported() -> Item:
    made = session(call(), app_version="2.1")
    made.end("ended", NOW_MS)
    return export_item(made, {}, NOW_MS)


def line(of: Item) -> bytes:
    return msgspec.json.encode(event(of))


def test_what_a_device_wrote_is_the_same_item_elsewhere() -> None:
    item = exported()
    assert item_from(line(item), 0) == item


def test_a_bare_export_will_do() -> None:
    item = exported()
    assert item_from(item.body, 77) == Item(**{**fields(item), "made_at_ms": 77})


def test_an_export_of_the_reference_has_no_extensions() -> None:
    plain = json.loads(exported().body)
    del plain["extensions"]
    found = item_from(json.dumps(plain).encode(), 5)
    assert (found.revision, found.app, found.session_id) == (0, "", "s")


@pytest.mark.parametrize(("session_id", "kind"), [("s", "SessionDeletion"), ("", "DeviceDeletion")])
def test_a_wish_to_delete_goes_on(session_id: str, kind: str) -> None:
    item = Item("deletion", session_id, 0, NOW_MS, "d", "linux", "", "")
    assert json.loads(line(item))["event_type"] == kind
    assert item_from(line(item), 0) == item


def test_a_time_that_is_none_is_now() -> None:
    told = json.loads(line(exported()))
    told["timestamp"] = "yesterday"
    assert item_from(json.dumps(told).encode(), 42).made_at_ms == 42


BAD: list[tuple[Any, str]] = [
    ({}, "missing required field"),
    ([], "not an export"),
    ({"version": "1.0", "session": {"session_id": "s", "device_id": "d"}}, "version '1.0'"),
    ({"version": "2.0", "session": {"device_id": "d"}}, "session_id"),
    ({"event_type": "SessionExport", "session_id": "s"}, "payload"),
    ({"event_type": "SessionExport", "session_id": "s", "payload": 7}, "not an export"),
    ({"event_type": "PipelineEvent", "session_id": "s", "payload": {}}, "PipelineEvent"),
    *(
        (
            {"version": "2.0", "session": {"session_id": "s", "device_id": "d"}, "extensions": {"revision": n}},
            "revision",
        )
        for n in (-1, 2**53 + 1, 2**63, 10**400)
    ),
    ({"version": "2.0", "session": {"session_id": "", "device_id": "d"}}, "session_id"),
    ({"version": "2.0", "session": {"session_id": "s" * 10_000, "device_id": "d"}}, "session_id"),
    ({"event_type": "SessionDeletion", "session_id": "", "payload": {}}, "SessionDeletion"),
    ({"event_type": "DeviceDeletion", "session_id": "s", "payload": {}}, "DeviceDeletion"),
    ({"event_type": 3, "session_id": "s", "payload": {}}, "not an export"),
]


@pytest.mark.parametrize(("told", "expected"), BAD)
def test_what_is_no_export_says_what_is_wrong(told: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        item_from(json.dumps(told).encode(), 0)
    assert expected in str(caught.value)


@given(st.binary(max_size=200))
def test_junk_is_refused_and_never_a_crash(junk: bytes) -> None:
    with pytest.raises(ValueError, match="export"):
        item_from(junk, 0)


def fields(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Item.__struct_fields__}
