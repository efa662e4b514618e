from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.given import NOW_MS, call, error, session
from xybridd.core.capabilities import HardwareCapabilities, Platform
from xybridd.core.export import iso8601, session_metrics, telemetry_export
from xybridd.protocol.records import InferenceStats

_LAST_MS = int(datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC).timestamp() * 1000)


@given(st.integers(0, _LAST_MS))
def test_iso8601_is_datetimes(timestamp_ms: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
    assert iso8601(timestamp_ms) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("timestamp_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_827_696_789, "2000-02-29T12:34:56.789Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (_LAST_MS, "9999-12-31T23:59:59.999Z"),
        (_LAST_MS + 1, "+10000-01-01T00:00:00.000Z"),
        # The last millisecond that the reference's date library knows, and the one after it.
        (8_210_266_876_799_999, "+262142-12-31T23:59:59.999Z"),
        (8_210_266_876_800_000, "8210266876800.000Z"),
        (2**53, "9007199254740.992Z"),
    ],
)
def test_iso8601_at_its_ends(timestamp_ms: int, shown: str) -> None:
    assert iso8601(timestamp_ms) == shown


def exported(**head: Any) -> Any:
    made = session(call("m", "1", 10), error("boom", "m", "1"), **head)
    return json.loads(msgspec.json.encode(telemetry_export(made, {"received": 2})))


def test_without_hardware_the_platform_is_unknown() -> None:
    export = exported()
    assert export["hardware"] is None
    assert export["session"]["platform"] == "unknown"


@pytest.mark.parametrize("platform", list(Platform))
def test_with_hardware_the_platform_is_its(platform: Platform) -> None:
    export = exported(hardware=HardwareCapabilities(platform=platform))
    assert export["session"]["platform"] == platform.name.lower() == export["hardware"]["platform"]


def test_what_was_said_stands_in_extensions() -> None:
    extensions = exported(
        revision=3, app="kiosk", app_version="2.1", labels={"room": "7"}, end_reason="idle", details={"gpu": {}}
    )["extensions"]
    models = extensions.pop("models")
    assert extensions == {
        "revision": 3,
        "app": "kiosk",
        "app_version": "2.1",
        "labels": {"room": "7"},
        "end_reason": "idle",
        "boot_id": "boot",
        "ledger": {"received": 2},
        "hardware": {"gpu": {}},
    }
    assert models["m@1"]["latency_ms"]["count"] == 1


def test_parts_that_have_nothing_are_left_out() -> None:
    empty = session_metrics(session(), {})
    assert list(empty.extensions) == ["revision", "app", "end_reason", "boot_id", "ledger"]
    failed = session_metrics(session(error("boom", "m", "1")), {})
    assert failed.extensions["models"] == {"m@1": {}}
    timed = session_metrics(session(call()), {})
    assert list(timed.extensions["models"]["m@1"]) == ["latency_ms"]


def test_stats_stand_beside_the_latency() -> None:
    made = session(call(stats=InferenceStats(tokens_per_second=40, hardware_used="gpu")))
    assert session_metrics(made, {}).extensions["models"]["m@1"]["stats"] == {
        "tokens_per_second": {"count": 1, "mean": 40, "min": 40, "max": 40},
        "hardware_used": {"gpu": 1},
    }


def test_a_session_shows_when_it_ended() -> None:
    made = session(call())
    made.end("ended", NOW_MS + 5)
    assert session_metrics(made, {}).ended_at == NOW_MS + 5
    assert telemetry_export(made, {}).session.ended_at == iso8601(NOW_MS + 5)
