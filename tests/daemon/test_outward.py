"""What may be asked about what leaves the device, and by whom."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, ledger, producer, refusal
from tests.daemon.test_other_user import as_nobody, code
from tests.support import Wire, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

OWNERS_ALONE = [
    "upload.now", "upload.pause", "upload.resume", "upload.preview", "upload.import", "upload.dead.list",
    "upload.dead.show", "upload.dead.replay", "upload.dead.drop",
]  # fmt: skip


@pytest.fixture(scope="module")
def config() -> str:
    """A sink that cannot be written to: what is queued stays queued."""
    return '[socket]\nmode = "0666"\n[file]\npath = "/dev/null/exports.jsonl"\n[upload]\nwait_while_inferring = false\n'


def sink(wire: Wire) -> dict[str, Any]:
    (found,) = wire.call("upload.status")["sinks"]
    shown: dict[str, Any] = found
    return shown


def ended(served: Daemon) -> str:
    wire, session_id = producer(served)
    with wire:
        batch(wire, 1)
        wire.call("session.end")
    return session_id


def test_a_status_says_what_waits_and_why(served: Daemon, wire: Wire) -> None:
    ended(served)
    shown = until(lambda: (s := sink(wire))["failures"] and s, "an attempt that failed")
    assert shown["sink"] == "file"
    assert shown["state"] in {"retrying", "sending", "waiting"}
    assert "/dev/null/exports.jsonl" in shown["last_error"]
    assert shown["queued"] >= 1
    status = wire.call("daemon.status")
    assert status["upload"]["state"] == "on"
    for tally in status["ledger"]["exports"].values():
        ends = sum(tally[end] for end in ("delivered", "queued", "superseded", "dead", "evicted", "forgotten"))
        assert tally["made"] == ends


def test_a_preview_is_of_what_would_go_next(served: Daemon, wire: Wire) -> None:
    ended(served)
    wire.call("upload.pause")
    try:
        until(lambda: sink(wire)["in_flight"] == 0, "nothing to be in flight")
        (job,) = wire.call("upload.preview")["jobs"]
        assert job["target"]["key"] is None
        assert job["items"]
        assert wire.call("upload.preview")["jobs"] == [job]
    finally:
        wire.call("upload.resume")


def test_a_pause_lasts_until_it_is_taken_back(wire: Wire) -> None:
    assert wire.call("upload.pause")["state"] == "paused"
    assert sink(wire)["state"] == "paused"
    assert wire.call("upload.resume")["state"] == "on"
    assert sink(wire)["state"] != "paused"


def test_what_is_forgotten_is_gone_and_counted(served: Daemon, wire: Wire) -> None:
    session_id = ended(served)
    before = ledger(served)["removed"].get("forgotten", 0)
    told = wire.call("data.forget", session_id=session_id)
    assert (told["sessions"], told["records"]) == (1, 1)
    assert refusal(wire, "session.get", session_id=session_id).code == "unknown_session"
    assert refusal(wire, "data.forget", session_id=session_id).code == "unknown_session"
    assert ledger(served)["removed"]["forgotten"] == before + 1


def test_an_import_is_queued_once(wire: Wire, make_daemon: Callable[..., Daemon]) -> None:
    other = make_daemon().start()
    there, _ = producer(other)
    with there:
        batch(there, 1)
        export = there.call("session.end")
    assert wire.call("upload.import", exports=[export]) == {"queued": 1, "known": 0}
    assert wire.call("upload.import", exports=[export]) == {"queued": 0, "known": 1}
    bad = refusal(wire, "upload.import", exports=[export, {"version": "1.0"}])
    assert (bad.code, bad.data["path"]) == ("invalid_params", "$.params.exports[1]")


@pytest.mark.parametrize("revision", [-1, 2**63, 2**64, 10**30])
def test_an_import_with_an_impossible_revision_is_refused_by_name(wire: Wire, revision: int) -> None:
    export = {
        "version": "2.0",
        "session": {"session_id": "s", "device_id": "d"},
        "extensions": {"revision": revision},
    }
    failure = refusal(wire, "upload.import", exports=[export])
    assert (failure.code, failure.data["path"]) == ("invalid_params", "$.params.exports[0]")


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("upload.dead.show", {}, "$.params.export_id"),
        ("upload.dead.show", {"export_id": 999_999}, "$.params.export_id"),
        ("upload.dead.replay", {"export_id": 999_999}, "$.params.export_id"),
        ("upload.dead.drop", {"export_id": 0}, "$.params.export_id"),
        ("upload.import", {"exports": []}, "$.params.exports"),
        ("data.forget", {}, "$.params"),
        ("data.forget", {"all": "yes"}, "$.params.all"),
    ],
)
def test_bad_input_names_the_place(wire: Wire, method: str, params: dict[str, Any], path: str) -> None:
    failure = refusal(wire, method, **params)
    assert (failure.code, failure.data["path"]) == ("invalid_params", path)


def test_no_dead_letters_are_an_empty_list(wire: Wire) -> None:
    assert wire.call("upload.dead.list") == {"dead": []}
    assert wire.call("upload.dead.replay") == {"replayed": 0}
    assert wire.call("upload.dead.drop") == {"dropped": 0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_strangers_may_look_and_forget_their_own_and_nothing_else(served: Daemon, wire: Wire) -> None:
    ours = ended(served)
    params: dict[str, dict[str, Any]] = {"upload.import": {"exports": [{}]}, "upload.dead.show": {"export_id": 1}}
    answers = as_nobody(served, *((method, params.get(method, {})) for method in OWNERS_ALONE))
    assert [code(answer) for answer in answers] == ["permission_denied"] * len(OWNERS_ALONE)
    status, everything, not_theirs, _made, end, their_own = as_nobody(
        served,
        ("upload.status", {}),
        ("data.forget", {"all": True}),
        ("data.forget", {"session_id": ours}),
        ("record.inference", {"model_id": "m", "version": "1", "latency_ms": 1}),
        ("session.end", {}),
        ("data.forget", {"session_id": "0"}),
    )
    assert status["result"]["state"] == "on"
    assert code(everything) == "permission_denied"
    assert code(not_theirs) == "unknown_session"
    assert code(their_own) == "unknown_session"
    (forgotten,) = as_nobody(served, ("data.forget", {"session_id": end["result"]["session"]["session_id"]}))
    assert forgotten["result"]["records"] == 1
    assert wire.call("session.get", session_id=ours)["total_inferences"] == 1


def test_samples_are_there_to_be_asked_for(wire: Wire) -> None:
    assert isinstance(wire.call("device.samples", limit=5)["samples"], list)
    assert refusal(wire, "device.samples", limit=0).code == "invalid_params"
