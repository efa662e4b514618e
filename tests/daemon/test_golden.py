"""The reference's own outputs, replayed over the socket: the same numbers, the same errors, in the same fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import golden

if TYPE_CHECKING:
    from tests.support import Wire

CASES = golden("sessions.jsonl")
CATEGORIES = golden("categories.jsonl")
FEW = CASES[::6]


def records(case: dict[str, Any]) -> list[dict[str, Any]]:
    out = []
    for op, *values in case["ops"]:
        if op == "inference":
            model_id, version, latency_ms = values
            out.append({"type": op, "model_id": model_id, "version": version, "latency_ms": latency_ms})
        elif op == "error":
            out.append({"type": op, "model_id": values[0], "error": values[1]})
    return out


def model_figures(model: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name != "last_called"}


def error_figures(error: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in error.items() if name not in {"first_seen", "last_seen"}}


def compare(wire: Wire, case: dict[str, Any]) -> None:
    ended = any(op[0] == "end" for op in case["ops"])
    if ended:
        final = wire.call("session.end")
    session, export = wire.call("session.get"), wire.call("session.export")
    if ended:
        assert final == export
    told, shown = case["session"], case["export"]
    for name in ("total_inferences", "total_latency_ms", "avg_latency_ms", "models_used", "error_count"):
        assert session[name] == told[name], name
    assert (session["ended_at"] is None) == (told["ended_at"] is None)
    assert {key: model_figures(each) for key, each in session["by_model"].items()} == {
        key: model_figures(each) for key, each in told["by_model"].items()
    }
    for name in ("total_inferences", "total_latency_ms", "avg_latency_ms", "error_count"):
        assert export["metrics"][name] == shown["metrics"][name], name
    compare_models(export["metrics"]["by_model"], shown["metrics"]["by_model"], case)
    for ours, theirs in ((session["errors"], told["errors"]), (export["errors"], shown["errors"])):
        assert [error_figures(each) for each in ours] == [error_figures(each) for each in theirs]
    assert list(export)[:-1] == list(shown)


def compare_models(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], case: dict[str, Any]) -> None:
    """The reference's order is a hash map's; ours is the order of first use."""
    used = dict.fromkeys((op[1], op[2]) for op in case["ops"] if op[0] == "inference")
    assert [(each["model_id"], each["version"]) for each in ours] == list(used)
    by_use = {(each["model_id"], each["version"]): model_figures(each) for each in theirs}
    assert [model_figures(each) for each in ours] == [by_use[key] for key in used]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_sent_as_one_batch_comes_out_as_in_the_reference(wire: Wire, case: dict[str, Any]) -> None:
    wire.hello()
    wire.call("session.start")
    wire.call("record.batch", seq=1, records=records(case), flush=True)
    compare(wire, case)


@pytest.mark.parametrize("case", FEW, ids=[case["name"] for case in FEW])
def test_a_case_sent_as_single_requests_comes_out_the_same(wire: Wire, case: dict[str, Any]) -> None:
    wire.hello()
    wire.call("session.start")
    for record in records(case):
        wire.call(f"record.{record.pop('type')}", **record)
    compare(wire, case)


@pytest.mark.parametrize("case", FEW, ids=[case["name"] for case in FEW])
def test_a_case_sent_in_many_batches_comes_out_the_same(wire: Wire, case: dict[str, Any]) -> None:
    wire.hello()
    wire.call("session.start")
    sent = [
        wire.send("record.batch", seq=seq, records=[record], flush=True)
        for seq, record in enumerate(records(case), start=1)
    ]
    for request_id in sent:
        wire.answer_to(request_id)
    compare(wire, case)


def test_every_message_has_the_references_category(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start")
    for message, category in CATEGORIES:
        assert wire.call("record.error", error=message)["category"] == category, message
