"""A session belongs to the user id that started it. Needs root, since a process must become somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, new_id, producer, total
from tests.support import inference, ledger_balances

if TYPE_CHECKING:
    from tests.support import Daemon

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

#: Becomes the user, sends each request of standard input over one connection, prints each answer.
STRANGER = """
import json, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[1])
reader = sock.makefile("rb")
for number, (method, params) in enumerate(json.load(sys.stdin)):
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    sock.sendall(json.dumps(request).encode() + b"\\n")
    print(reader.readline().decode().strip())
"""


#: Becomes the user, watches records, and when it is told to go on records one; prints each line that it gets.
WATCHING_STRANGER = """
import json, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[1])
reader = sock.makefile("rb")
def send(number, method, **params):
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    sock.sendall(json.dumps(request).encode() + b"\\n")
send(1, "records.watch")
print(reader.readline().decode().strip(), flush=True)
sys.stdin.readline()
send(2, "record.inference", model_id="theirs", version="1", latency_ms=1)
for line in reader:
    print(line.decode().strip())
    if b'"id":2' in line:
        break
"""


@pytest.fixture(scope="module")
def config() -> str:
    return '[socket]\nmode = "0666"\n'


def as_nobody(daemon: Daemon, *requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What another user's process is answered, over one connection."""
    daemon.folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(daemon.socket), str(NOBODY)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def code(answer: dict[str, Any]) -> str:
    return str(answer["error"]["data"]["code"])


def test_another_users_session_is_unknown(served: Daemon) -> None:
    wire, session_id = producer(served)
    named = {"session_id": session_id}
    call = {"model_id": "m", "version": "1", "latency_ms": 1}
    with wire:
        batch(wire, 1)
        answers = as_nobody(
            served,
            ("hello", {"app": "spy", "client_id": new_id(), **named}),
            ("hello", {"app": "spy", "client_id": new_id()}),
            ("session.get", named),
            ("session.export", named),
            ("session.end", named),
            ("session.reset", named),
            ("session.start", named),
            ("record.inference", {**call, **named}),
            ("record.error", {"error": "e", **named}),
            ("record.batch", {"seq": 1, "records": [inference()], **named}),
        )
        assert "result" in answers.pop(1)
        assert [code(answer) for answer in answers] == ["unknown_session"] * 9
        session = wire.call("session.get")
    assert session["total_inferences"] == 1
    assert session["error_count"] == 0
    assert session["ended_at"] is None


def test_an_answer_does_not_tell_another_users_session_from_none(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        theirs, none = as_nobody(
            served, ("session.get", {"session_id": session_id}), ("session.get", {"session_id": "x" * 36})
        )
    assert theirs["error"]["message"].replace(session_id, "x" * 36) == none["error"]["message"]


def test_a_list_shows_only_ones_own(served: Daemon) -> None:
    wire, root_session = producer(served, app="everybody")
    with wire:
        started, listed = as_nobody(
            served, ("session.start", {}), ("session.list", {"limit": 10_000, "active": True})
        )  # fmt: skip
        own = started["result"]["session_id"]
        assert {session["session_id"] for session in listed["result"]["sessions"]} >= {own}
        assert root_session not in {session["session_id"] for session in listed["result"]["sessions"]}
        seen = {session["session_id"] for session in wire.call("session.list", limit=10_000)["sessions"]}
        assert {own, root_session} <= seen


def test_root_may_do_everything_with_another_users_session(served: Daemon) -> None:
    (started,) = as_nobody(served, ("session.start", {}))
    session_id = started["result"]["session_id"]
    with served.wire() as wire:
        assert wire.call("session.get", session_id=session_id)["session_id"] == session_id
        wire.call("record.error", error="e", session_id=session_id)
        assert wire.call("session.end", session_id=session_id)["extensions"]["end_reason"] == "ended"


def test_flush_is_for_root_and_the_daemons_own_user(served: Daemon) -> None:
    (answer,) = as_nobody(served, ("daemon.flush", {}))
    assert code(answer) == "permission_denied"


def test_an_implicit_session_is_not_shared_between_users(served: Daemon) -> None:
    with served.wire() as wire:
        wire.hello(app="same-name")
        root_session = wire.call("record.error", error="e")["session_id"]
    _, recorded = as_nobody(
        served, ("hello", {"app": "same-name", "client_id": new_id()}), ("record.error", {"error": "e"})
    )
    assert recorded["result"]["session_id"] != root_session


def test_numbers_are_each_users_own(served: Daemon) -> None:
    client_id = new_id()
    wire, session_id = producer(served, client_id=client_id)
    with wire:
        batch(wire, 1)
        batch(wire, 2)
        greeted, recorded = as_nobody(
            served,
            ("hello", {"app": "copycat", "client_id": client_id}),
            ("record.batch", {"seq": 1, "records": [inference()] * 5, "flush": True}),
        )
        assert greeted["result"]["last_seq"] == 0
        assert recorded["result"]["last_seq"] == 1
        assert recorded["result"]["session_id"] != session_id
        assert wire.hello(client_id=client_id)["last_seq"] == 2
    assert total(served, session_id) == 2


def test_what_is_refused_to_a_stranger_stands_in_the_ledger(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        before = served.status()["ledger"]
        as_nobody(served, ("record.error", {"error": "e", "session_id": session_id}))
        after = served.status()["ledger"]
    assert after["rejected"]["unknown_session"] == before["rejected"].get("unknown_session", 0) + 1
    assert ledger_balances(after)


def test_the_socket_is_the_owners_alone_unless_configured(daemon: Daemon) -> None:
    daemon.folder.chmod(0o755)
    daemon.folder.parent.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        as_nobody(daemon, ("daemon.status", {}))
    assert "PermissionError" in caught.value.stderr


def test_another_user_watches_no_records_but_its_own(served: Daemon) -> None:
    """It records itself while it watches: what it is told first is its own, though the owner's came before."""
    wire, session_id = producer(served)
    with wire:
        served.folder.chmod(0o755)
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHING_STRANGER, str(served.socket), str(NOBODY)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert "result" in json.loads(process.stdout.readline())
        batch(wire, 1)
        out, _ = process.communicate("go\n", timeout=60)
        told = [json.loads(line) for line in out.splitlines()]
    params = [each["params"] for each in told if each.get("method") == "records.counted"]
    assert [[record["model_id"] for record in each["records"]] for each in params] == [["theirs"]]
    assert params[0]["session_id"] != session_id
