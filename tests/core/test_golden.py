"""The reference's own outputs, operation by operation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.core.given import NOW_MS, head
from tests.support import golden
from xybridd.core.capabilities import HardwareCapabilities
from xybridd.core.category import categorize
from xybridd.core.export import session_metrics, telemetry_export
from xybridd.core.redaction import redact
from xybridd.core.session import Session, SessionLimits
from xybridd.protocol.records import ErrorRecord, InferenceRecord

if TYPE_CHECKING:
    from xybridd.protocol.records import Record

CASES = golden("sessions.jsonl")
MOMENTS = {"started_at", "ended_at", "last_called", "first_seen", "last_seen"}
OURS_ALONE = {"session_id", "sdk_version"}


def replayed(case: dict[str, Any], *, one_batch: bool) -> Session:
    """The case's operations; with `one_batch`, records that follow each other go in together."""
    session = Session(head(device_id=case["session"]["device_id"]), SessionLimits())
    waiting: list[Record] = []

    def apply() -> None:
        session.apply(waiting, NOW_MS)
        waiting.clear()

    for operation, *arguments in case["ops"]:
        if operation == "inference":
            waiting.append(InferenceRecord(*arguments))
        elif operation == "error":
            model_id, message = arguments
            waiting.append(ErrorRecord(message, model_id))
        else:
            apply()
            if operation == "hardware":
                session.head.hardware = msgspec.convert(arguments[0], HardwareCapabilities)
            else:
                session.end("ended", NOW_MS)
        if not one_batch:
            apply()
    apply()
    return session


def as_pairs(value: Any, name: str = "") -> Any:
    """Objects as lists of pairs, so that the order of their fields counts; times as whether they are there."""
    if name in OURS_ALONE:
        return "…"
    if name in MOMENTS:
        return value is not None
    if isinstance(value, dict):
        fields = [(key, as_pairs(inner, key)) for key, inner in value.items()]
        return sorted(fields) if name == "by_model" else fields
    if isinstance(value, list):
        return [as_pairs(inner) for inner in value]
    return value


def on_the_wire(value: Any) -> tuple[Any, Any]:
    """A result as its reader gets it: without our extensions, and these by themselves."""
    plain = json.loads(msgspec.json.encode(value))
    assert list(plain)[-1] == "extensions"
    return plain, plain.pop("extensions")


@pytest.mark.parametrize("one_batch", [True, False], ids=["one batch", "one by one"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_session_is_the_references(case: dict[str, Any], one_batch: bool) -> None:
    ours, _ = on_the_wire(session_metrics(replayed(case, one_batch=one_batch), {}))
    assert as_pairs(ours) == as_pairs(case["session"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_export_is_the_references(case: dict[str, Any]) -> None:
    ours, _ = on_the_wire(telemetry_export(replayed(case, one_batch=True), {}))
    theirs = case["export"]
    first_use = list(dict.fromkeys((op[1], op[2]) for op in case["ops"] if op[0] == "inference"))
    assert [(entry["model_id"], entry["version"]) for entry in ours["metrics"]["by_model"]] == first_use
    for export in (ours, theirs):
        export["metrics"]["by_model"].sort(key=lambda entry: (entry["model_id"], entry["version"]))
    assert as_pairs(ours) == as_pairs(theirs)


@pytest.mark.parametrize(("message", "category"), golden("categories.jsonl"))
def test_a_category_is_the_references(message: str, category: str) -> None:
    assert categorize(message).value == category


def test_golden_messages_stand_as_they_are() -> None:
    messages = {message for message, _ in golden("categories.jsonl")}
    messages |= {op[2] for case in CASES for op in case["ops"] if op[0] == "error"}
    assert {message: redact(message) for message in messages} == {message: message for message in messages}
