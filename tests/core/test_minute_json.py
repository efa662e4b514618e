from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given

from tests.core import given as some
from tests.core.given import NOW_MS, call, session
from tests.core.test_minute import adds_up, closed
from xybridd.core.minute import AppMinute
from xybridd.core.minute_json import MinutesResult, from_json, read_result, to_json

if TYPE_CHECKING:
    from xybridd.protocol.records import Record


@given(some.records)
def test_what_was_sent_is_read_without_loss(records: list[Record]) -> None:
    whole = session(*records)
    minutes = [AppMinute("app", "1", minute) for minute in closed(whole)]
    answer = msgspec.json.decode(msgspec.json.encode(MinutesResult([to_json(each) for each in minutes], None)))
    read = [from_json(each) for each in read_result(answer).minutes]
    assert [(each.app, each.app_version) for each in read] == [("app", "1")] * len(minutes)
    adds_up([each.minute for each in read], whole)


def test_its_form() -> None:
    (minute,) = closed(session(call("m", "1", 10)))
    shown = msgspec.to_builtins(to_json(AppMinute("kiosk", "1.0", minute), still_open=True))
    assert shown == {
        "session_id": "s",
        "app": "kiosk",
        "app_version": "1.0",
        "started_at_ms": NOW_MS,
        "ended_at_ms": NOW_MS,
        "models": [
            {
                "model_id": "m",
                "version": "1",
                "calls": 1,
                "errors": 0,
                "latency_ms": {
                    "count": 1, "sum": 10.0, "min": 10.0, "max": 10.0, "scale": 5,
                    "zero_count": 0, "offset": 106, "counts": [1],
                },
                "conditions": [
                    {
                        "thermal_state": "unknown",
                        "power_source": "unknown",
                        "hardware_used": "unknown",
                        "latency_ms": {
                            "count": 1, "sum": 10.0, "min": 10.0, "max": 10.0, "scale": 5,
                            "zero_count": 0, "offset": 106, "counts": [1],
                        },
                    }
                ],
            }
        ],
        "errors": [],
        "open": True,
    }  # fmt: skip


def test_an_answer_of_another_shape_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_result({"minutes": [{"session_id": 1}], "next": None})
