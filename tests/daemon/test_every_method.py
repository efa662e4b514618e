"""Every method there is, called by another user: none reads, ends, forgets or changes a session that is not theirs.

Taken from the daemon's own table, so that a new method is tried by itself, and fails here until it is decided for whom it is.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.daemon.scenes import batch, new_id
from tests.daemon.test_other_user import as_nobody, code
from tests.support import inference
from xybridd.daemon.handlers import METHODS

if TYPE_CHECKING:
    from tests.support import Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

#: What anybody may call who may connect, and sees nothing of others by.
FOR_ALL = {
    "hello", "session.start", "session.list", "stats.minutes", "record.inference", "record.error", "record.batch",
    "device.capabilities", "device.advice", "device.watch", "device.samples", "records.watch", "upload.status", "daemon.status",
    "session.get", "session.export", "session.end", "session.reset",
    "ring.attach", "ring.drain", "ring.flush", "ring.wake",
}  # fmt: skip

#: What must be said beside a session, of whatever method.
SAID: dict[str, Any] = {
    "app": "spy",
    "seq": 1,
    "records": [inference()],
    "model_id": "m",
    "version": "1",
    "latency_ms": 1,
    "error": "e",
    "exports": [{}],
    "ring_id": new_id(),
}
MARK = "only-for-its-owner"


def fields(method: str) -> dict[str, msgspec.inspect.Field]:
    described = msgspec.inspect.type_info(METHODS[method].params.type)
    assert isinstance(described, msgspec.inspect.StructType)
    return {field.name: field for field in described.fields}


def params(method: str, session_id: str | None) -> dict[str, Any]:
    said = {}
    for name, field in fields(method).items():
        if name == "client_id":
            said[name] = new_id()
        elif name == "session_id":
            said |= {} if session_id is None else {name: session_id}
        elif field.required:
            assert name in SAID, f"{method} asks for {name}: say here what a stranger would say"
            said[name] = SAID[name]
    return said


@pytest.fixture(scope="module")
def config() -> str:
    return '[socket]\nmode = "0666"\n'


@pytest.fixture
def theirs(served: Daemon) -> dict[str, Any]:
    """A session of root's, as its owner sees it."""
    with served.wire() as wire:
        wire.hello(app=MARK)
        session_id = wire.call("session.start", labels={"mark": MARK})["session_id"]
        batch(wire, 1)
        wire.call("record.batch", seq=2, records=[inference(MARK), {"type": "error", "error": MARK}], flush=True)
        found: dict[str, Any] = wire.call("session.get")
    assert found["session_id"] == session_id
    return found


def seen_again(served: Daemon, session_id: str) -> dict[str, Any]:
    with served.wire() as wire:
        found: dict[str, Any] = wire.call("session.get", session_id=session_id)
    found["extensions"].pop("ledger")
    return found


@pytest.mark.parametrize("method", sorted(name for name in METHODS if "session_id" in fields(name)))
def test_a_session_that_is_not_ones_own_is_unknown(served: Daemon, theirs: dict[str, Any], method: str) -> None:
    before = seen_again(served, theirs["session_id"])
    greeting = ("hello", {"app": "spy", "client_id": new_id()})
    _, answer = as_nobody(served, greeting, (method, params(method, theirs["session_id"])))
    if "result" in answer:  # a filter, that finds nothing
        assert method == "stats.minutes"
    else:
        assert code(answer) == "unknown_session"
    assert MARK not in json.dumps(answer)
    assert seen_again(served, theirs["session_id"]) == before


@pytest.mark.parametrize("method", sorted(METHODS))
def test_without_a_session_nothing_of_others_is_told_or_changed(
    served: Daemon, theirs: dict[str, Any], method: str
) -> None:
    before = seen_again(served, theirs["session_id"])
    said = params(method, None)
    if method == "data.forget":
        said["all"] = True
    (answer,) = as_nobody(served, (method, said))
    told = json.dumps(answer)
    if method not in FOR_ALL:
        assert code(answer) == "permission_denied", f"{method}: is it for all? Then say so here"
    assert MARK not in told
    assert theirs["session_id"] not in told
    assert seen_again(served, theirs["session_id"]) == before
