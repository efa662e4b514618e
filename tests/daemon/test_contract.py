"""Every method: what it takes, what it answers, in the words and the order of the contract."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.daemon.scenes import batch, end_reason, new_id, producer, refusal, total
from tests.support import golden, inference, ledger_balances

if TYPE_CHECKING:
    from tests.support import Daemon, Wire

CASE = next(case for case in golden("sessions.jsonl") if case["session"]["hardware_capabilities"])


# hello


def test_hello_answers_exactly_what_the_contract_names(wire: Wire) -> None:
    answer = wire.hello()
    assert set(answer) == {"protocol", "daemon_version", "device_id", "last_seq", "limits"}
    assert answer["protocol"] == 1
    assert answer["last_seq"] == 0
    assert answer["limits"]["max_frame_bytes"] == 2**20
    assert answer["limits"]["max_batch_records"] > 0


def test_hello_says_where_the_producer_stands(served: Daemon) -> None:
    client_id = new_id()
    first, _ = producer(served, client_id=client_id)
    batch(first, 1)
    batch(first, 2)
    with first, served.wire() as second:
        assert second.hello(client_id=client_id)["last_seq"] == 2


def test_a_client_id_is_the_same_in_either_case(served: Daemon) -> None:
    client_id = new_id()
    first, _ = producer(served, client_id=client_id.upper())
    batch(first, 1)
    with first, served.wire() as second:
        assert second.hello(client_id=client_id)["last_seq"] == 1


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"client_id": str(uuid.uuid4())}, "$.params.app"),
        ({"app": "", "client_id": str(uuid.uuid4())}, "$.params.app"),
        ({"app": "a"}, "$.params.client_id"),
        ({"app": "a", "client_id": "kiosk-7"}, "$.params.client_id"),
        ({"app": 7, "client_id": str(uuid.uuid4())}, "$.params.app"),
    ],
)
def test_hello_names_what_is_wrong_with_it(wire: Wire, params: dict[str, Any], path: str) -> None:
    failure = refusal(wire, "hello", **params)
    assert failure.rpc_code == -32602
    assert path in failure.message


def test_a_newer_clients_unknown_params_are_ignored(wire: Wire) -> None:
    assert wire.hello(colour="blue", sdk_version="9", app_version="3")["protocol"] == 1


def test_the_versions_of_hello_stand_in_the_session(wire: Wire) -> None:
    wire.hello(app="versions", app_version="4.5", sdk_version="9.9.9")
    wire.call("session.start")
    session = wire.call("session.get")
    assert session["sdk_version"] == "9.9.9"
    assert session["extensions"]["app"] == "versions"


def test_a_refused_hello_leaves_the_connection_who_it_was(wire: Wire) -> None:
    wire.hello(app="first")
    session_id = wire.call("session.start")["session_id"]
    assert refusal(wire, "hello", app="second", client_id=new_id(), session_id=new_id()).code == "unknown_session"
    assert wire.call("session.get")["session_id"] == session_id
    assert batch(wire, 1)["session_id"] == session_id


# session.start


def test_a_started_session_is_the_connections_current_one(wire: Wire) -> None:
    wire.hello()
    session_id = wire.call("session.start", labels={"shop": "7"}, started_at_ms=1_700_000_000_000)["session_id"]
    session = wire.call("session.get")
    assert session["session_id"] == session_id
    assert session["started_at"] == 1_700_000_000_000
    assert session["ended_at"] is None
    assert session["extensions"]["labels"] == {"shop": "7"}


def test_a_session_takes_the_id_that_its_producer_proposes(wire: Wire) -> None:
    proposed = new_id()
    wire.hello()
    assert wire.call("session.start", session_id=proposed) == {"session_id": proposed}


def test_starting_the_active_session_again_changes_nothing(wire: Wire) -> None:
    proposed = new_id()
    wire.hello()
    wire.call("session.start", session_id=proposed, labels={"a": "1"}, started_at_ms=5)
    batch(wire, 1)
    before = wire.call("session.get")
    wire.call("session.start", session_id=proposed, labels={"a": "2"}, started_at_ms=6)
    after = wire.call("session.get")
    for session in (before, after):
        del session["extensions"]["ledger"]
    assert after == before


def test_a_proposed_id_means_the_same_in_either_case(wire: Wire) -> None:
    proposed = new_id()
    wire.hello()
    started = wire.call("session.start", session_id=proposed.upper())["session_id"]
    assert started == wire.call("session.start", session_id=proposed)["session_id"]
    assert wire.call("session.get", session_id=proposed.upper())["session_id"] == started


@pytest.mark.parametrize("proposed", ["kiosk", "", "1234", 7, True, [], "g" * 36])
def test_an_id_that_is_no_uuid_is_refused(wire: Wire, proposed: Any) -> None:
    wire.hello()
    failure = refusal(wire, "session.start", session_id=proposed)
    assert failure.rpc_code == -32602
    assert "$.params.session_id" in failure.message


def test_starting_an_ended_session_again_is_session_ended(wire: Wire) -> None:
    proposed = new_id()
    wire.hello()
    wire.call("session.start", session_id=proposed)
    wire.call("session.end")
    assert refusal(wire, "session.start", session_id=proposed).code == "session_ended"


def test_one_producer_may_have_several_sessions(wire: Wire) -> None:
    wire.hello()
    first = wire.call("session.start")["session_id"]
    second = wire.call("session.start")["session_id"]
    assert first != second
    batch(wire, 1)
    batch(wire, 2, session_id=first)
    assert wire.call("session.get", session_id=first)["total_inferences"] == 1
    assert wire.call("session.get")["session_id"] == second


def test_producers_that_start_one_session_at_once_share_it(served: Daemon) -> None:
    """What each recorded is kept: there is one session, whoever comes first."""
    for _ in range(10):
        session_id = new_id()
        wires = [served.wire() for _ in range(4)]
        for each in wires:
            each.hello()
        for each in wires:
            each.send("session.start", session_id=session_id)
            each.send("record.batch", seq=1, records=[inference()], flush=True)
        for each in wires:
            assert each.answer_to(2)["session_id"] == session_id
            assert each.answer_to(3)["last_seq"] == 1
            each.close()
        assert total(served, session_id) == 4


# Implicit sessions


def test_ten_connections_without_hello_are_one_session_named_after_the_process(served: Daemon) -> None:
    answered = set()
    for _ in range(10):
        with served.wire() as each:
            answered.add(each.call("record.inference", model_id="m", version="1", latency_ms=1)["session_id"])
    (session_id,) = answered
    with served.wire() as again:
        assert again.call("session.get")["session_id"] == session_id
        assert again.call("session.get")["extensions"]["app"] == psutil.Process().name()


def test_the_app_of_hello_has_an_implicit_session_of_its_own(served: Daemon) -> None:
    answered = set()
    for _ in range(3):
        with served.wire() as each:
            each.hello(app="shell-script")
            answered.add(each.call("record.error", error="boom")["session_id"])
    (session_id,) = answered
    with served.wire() as other:
        listed = other.call("session.list", app="shell-script")["sessions"]
    assert [session["session_id"] for session in listed] == [session_id]
    assert listed[0]["error_count"] == 3


def test_an_implicit_session_outlives_its_connections(served: Daemon) -> None:
    with served.wire() as each:
        each.hello(app="short-lived")
        session_id = each.call("record.error", error="boom")["session_id"]
    assert end_reason(served, session_id) is None


def test_after_its_end_an_implicit_session_is_followed_by_a_new_one(wire: Wire) -> None:
    wire.hello(app="ends-implicitly")
    first = wire.call("record.error", error="boom")["session_id"]
    assert wire.call("session.end")["session"]["session_id"] == first
    assert wire.call("record.error", error="boom")["session_id"] != first


def test_a_batch_without_a_session_goes_to_the_implicit_one(wire: Wire) -> None:
    wire.hello(app="batches-implicitly")
    session_id = batch(wire, 1)["session_id"]
    assert wire.call("record.error", error="boom")["session_id"] == session_id


def test_without_any_session_there_is_nothing_to_get(wire: Wire) -> None:
    wire.hello(app="never-recorded")
    for method in ("session.get", "session.export", "session.end"):
        assert refusal(wire, method).code == "unknown_session"


# Sessions of others


def test_another_process_joins_by_hello(served: Daemon) -> None:
    owner, session_id = producer(served)
    with owner, served.wire() as guest:
        guest.hello(app="guest", session_id=session_id)
        assert batch(guest, 1)["session_id"] == session_id
        assert guest.call("session.get")["extensions"]["app"] == "test"


def test_another_process_names_the_session_in_a_call(served: Daemon) -> None:
    owner, session_id = producer(served)
    with owner, served.wire() as guest:
        answer = guest.call("record.inference", model_id="m", version="", latency_ms=1, session_id=session_id)
        assert answer == {"session_id": session_id}


def test_joining_an_ended_session_is_session_ended(served: Daemon) -> None:
    owner, session_id = producer(served)
    with owner, served.wire() as guest:
        owner.call("session.end")
        assert refusal(guest, "hello", app="guest", client_id=new_id(), session_id=session_id).code == "session_ended"


@pytest.mark.parametrize("name", ["00000000-0000-4000-8000-000000000000", "no-uuid", "x" * 64, "\x00", "🚀"])
def test_a_session_that_was_never_started_is_unknown(wire: Wire, name: str) -> None:
    wire.hello()
    for method in ("session.get", "session.export", "session.end", "session.reset"):
        assert refusal(wire, method, session_id=name).code == "unknown_session"
    assert refusal(wire, "record.error", error="e", session_id=name).code == "unknown_session"
    assert refusal(wire, "record.batch", seq=1, records=[inference()], session_id=name).code == "unknown_session"


# get, list, export


def test_a_session_has_the_references_fields_in_order_then_extensions(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start")
    wire.call("record.batch", seq=1, records=[inference(), {"type": "error", "error": "boom", "model_id": "m"}])
    session = wire.call("session.get")
    assert list(session) == [*CASE["session"], "extensions"]
    assert list(session["hardware_capabilities"]) == list(CASE["session"]["hardware_capabilities"])
    model = next(iter(CASE["session"]["by_model"].values()))
    assert list(session["by_model"]["m@1"]) == list(model)
    assert list(session["errors"][0]) == list(CASE["session"]["errors"][0])


def test_an_export_has_the_references_fields_in_order_then_extensions(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start")
    wire.call("record.batch", seq=1, records=[inference(), {"type": "error", "error": "boom"}])
    export = wire.call("session.export")
    assert list(export) == [*CASE["export"], "extensions"]
    for part in ("session", "hardware", "metrics"):
        assert list(export[part]) == list(CASE["export"][part])
    assert list(export["metrics"]["by_model"][0]) == list(CASE["export"]["metrics"]["by_model"][0])
    assert list(export["errors"][0]) == list(CASE["export"]["errors"][0])
    assert export["version"] == "2.0"


def test_extensions_hold_what_the_contract_names(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start", labels={"k": "v"})
    stats = {"tokens_per_second": 40, "execution_target": "local", "hardware_used": "gpu", "output_tokens": 9}
    wire.call("record.batch", seq=1, records=[inference(latency_ms=0), inference(stats=stats)])
    extensions = wire.call("session.get")["extensions"]
    assert {"revision", "app", "labels", "end_reason", "boot_id", "ledger", "models"} <= set(extensions)
    assert extensions["end_reason"] is None
    assert ledger_balances(extensions["ledger"])
    model = extensions["models"]["m@1"]
    assert {"count", "p50", "p90", "p99", "max", "histogram"} <= set(model["latency_ms"])
    assert {"scale", "zero_count", "offset", "counts"} <= set(model["latency_ms"]["histogram"])
    assert model["latency_ms"]["count"] == 2
    assert model["stats"]["tokens_per_second"] == {"count": 1, "mean": 40.0, "min": 40.0, "max": 40.0}
    assert model["stats"]["hardware_used"] == {"gpu": 1}


def test_a_list_is_newest_first_and_filtered(served: Daemon) -> None:
    wire, first = producer(served, "listed")
    with wire:
        wire.call("session.end")
        second = wire.call("session.start")["session_id"]
        third = wire.call("session.start")["session_id"]

        def listed(**wanted: Any) -> list[str]:
            found = wire.call("session.list", app="listed", **wanted)["sessions"]
            return [session["session_id"] for session in found]

        assert listed() == [third, second, first]
        assert listed(active=True) == [third, second]
        assert listed(active=False) == [first]
        assert listed(limit=1) == [third]
        assert listed(since_ms=2**53) == [third, second]
        assert listed(since_ms=0) == [third, second, first]


def test_a_list_shows_totals(wire: Wire) -> None:
    wire.hello(app="totals")
    wire.call("session.start")
    batch(wire, 1, 3)
    (listed,) = wire.call("session.list", app="totals")["sessions"]
    assert listed["total_inferences"] == 3
    assert listed["total_latency_ms"] == 30
    assert listed["models_used"] == ["m"]


@pytest.mark.parametrize("limit", [0, -1, "1", 1.5, None])
def test_a_lists_limit_is_a_positive_integer(wire: Wire, limit: Any) -> None:
    assert refusal(wire, "session.list", limit=limit).rpc_code == -32602


# end, reset


def test_end_answers_the_final_export(wire: Wire) -> None:
    wire.hello()
    session_id = wire.call("session.start")["session_id"]
    batch(wire, 1)
    export = wire.call("session.end")
    assert export["session"]["session_id"] == session_id
    assert export["session"]["ended_at"] is not None
    assert export["metrics"]["total_inferences"] == 1
    assert export["extensions"]["end_reason"] == "ended"


def test_ending_twice_is_session_ended(wire: Wire) -> None:
    wire.hello()
    session_id = wire.call("session.start")["session_id"]
    wire.call("session.end")
    assert refusal(wire, "session.end").code == "session_ended"
    assert refusal(wire, "session.end", session_id=session_id).code == "session_ended"


def test_after_the_end_a_record_is_session_ended_and_the_session_as_it_was(wire: Wire) -> None:
    wire.hello()
    session_id = wire.call("session.start")["session_id"]
    wire.call("session.end")
    assert refusal(wire, "record.error", error="e").code == "session_ended"
    assert refusal(wire, "record.inference", model_id="m", version="", latency_ms=1).code == "session_ended"
    assert refusal(wire, "record.batch", seq=1, records=[inference()], session_id=session_id).code == "session_ended"
    session = wire.call("session.get", session_id=session_id)
    assert session["total_inferences"] == 0
    assert session["extensions"]["revision"] == 1


def test_reset_ends_the_old_session_and_starts_a_fresh_one(served: Daemon) -> None:
    wire, old = producer(served)
    with wire:
        batch(wire, 1)
        fresh = wire.call("session.reset")["session_id"]
        assert fresh != old
        assert wire.call("session.get")["session_id"] == fresh
        assert wire.call("session.get")["total_inferences"] == 0
        assert batch(wire, 2)["session_id"] == fresh
        assert refusal(wire, "record.error", error="e", session_id=old).code == "session_ended"
    assert end_reason(served, old) == "reset"
    assert total(served, old) == 1


def test_reset_of_an_implicit_session_starts_the_next_implicit_one(served: Daemon) -> None:
    with served.wire() as first:
        first.hello(app="resets")
        old = first.call("record.error", error="e")["session_id"]
        fresh = first.call("session.reset")["session_id"]
    with served.wire() as second:
        second.hello(app="resets")
        assert second.call("record.error", error="e")["session_id"] == fresh != old


# Records


def test_single_records_answer_their_session(wire: Wire) -> None:
    wire.hello()
    session_id = wire.call("session.start")["session_id"]
    call = {"model_id": "m", "version": "1", "latency_ms": 2.5, "timestamp_ms": 12, "stats": {"input_tokens": 3}}
    assert wire.call("record.inference", **call) == {"session_id": session_id}
    error = wire.call("record.error", error="CUDA died", model_id="m", version="1", timestamp_ms=99)
    assert error == {"session_id": session_id, "category": "Hardware"}
    model = wire.call("session.get")["by_model"]["m@1"]
    assert model["total_latency_ms"] == 3
    assert model["error_count"] == 1


@pytest.mark.parametrize("spelling", ["ModelLoading", "model_loading"])
def test_a_category_may_be_given_in_either_spelling(wire: Wire, spelling: str) -> None:
    wire.hello()
    wire.call("session.start")
    assert wire.call("record.error", error="boom", category=spelling)["category"] == "ModelLoading"
    assert wire.call("session.get")["errors"][0]["category"] == "ModelLoading"


@pytest.mark.parametrize(("latency_ms", "counted"), [(0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (2**53, 2**53)])
def test_integer_totals_add_latencies_rounded_half_up(wire: Wire, latency_ms: float, counted: int) -> None:
    wire.hello()
    wire.call("session.start")
    wire.call("record.inference", model_id="m", version="", latency_ms=latency_ms)
    assert wire.call("session.get")["total_latency_ms"] == counted


def test_an_error_is_kept_to_a_kibibyte_and_judged_by_the_whole(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start")
    assert wire.call("record.error", error="é" * 80_000 + " gpu")["category"] == "Hardware"
    (kept,) = wire.call("session.get")["errors"]
    assert len(kept["message"].encode()) <= 1024


def test_a_batch_needs_hello(wire: Wire) -> None:
    assert refusal(wire, "record.batch", seq=1, records=[inference()]).code == "hello_required"


def test_an_empty_batch_is_a_batch(wire: Wire) -> None:
    wire.hello()
    wire.call("session.start")
    assert wire.call("record.batch", seq=1, records=[], flush=True)["last_seq"] == 1


# Device and daemon


def test_capabilities_are_the_references_then_details(wire: Wire) -> None:
    shown = wire.call("device.capabilities")
    assert list(shown) == [*CASE["session"]["hardware_capabilities"], "details"]
    assert shown["cpu_cores"] >= 1
    assert shown["memory_total_mb"] > 0
    for reading in shown["details"].values():
        assert reading["confidence"] in {"high", "medium", "low", "unknown"}


def test_status_says_what_the_contract_names(served: Daemon) -> None:
    status = served.status()
    named = {"state", "version", "pid", "uptime_s", "device_id", "sessions", "storage", "upload", "ledger"}
    assert named <= set(status)
    assert status["state"] == "ok"
    assert status["pid"] == served.pid
    assert ledger_balances(status["ledger"])


def test_methods_without_params_take_none_an_empty_object_or_nothing(wire: Wire) -> None:
    for params in (b"", b',"params":{}'):
        wire.send_line(b'{"jsonrpc":"2.0","id":1,"method":"daemon.flush"%b}' % params)
        assert "result" in wire.read()
