"""One user cannot use up what there is for all. Needs root, since processes must become somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon.scenes import batch, producer
from tests.daemon.test_other_user import as_nobody, code
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

#: Opens connections as a user until it is refused; says how many it got, then holds them until its input ends.
HOARDER = """
import json, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
held = []
while True:
    sock = socket.socket(socket.AF_UNIX); sock.settimeout(30); sock.connect(sys.argv[1]); held.append(sock)
    sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"session.list","params":{}}\\n')
    answer = json.loads(sock.makefile("rb").readline())
    if "error" in answer:
        break
print(len(held) - 1, answer["error"]["data"]["code"], answer["error"]["message"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon('[socket]\nmode = "0666"\n[limits]\nmax_sessions = 10\nmax_connections = 10\n').start()
    daemon.folder.chmod(0o755)
    daemon.folder.parent.chmod(0o755)
    return daemon


def test_one_user_cannot_have_all_sessions(shared: Daemon) -> None:
    answers = as_nobody(shared, *[("session.start", {})] * 6)
    assert ["result" in answer for answer in answers] == [True] * 5 + [False]
    assert code(answers[-1]) == "overloaded"
    assert "limits.user_percent" in answers[-1]["error"]["message"]
    # Sessions of a user do not end with a connection that said no hello; others still have room.
    for _ in range(5):
        wire, session_id = producer(shared)
        with wire:
            batch(wire, 1)
            assert wire.call("session.get")["session_id"] == session_id


def test_one_user_cannot_have_all_connections(shared: Daemon) -> None:
    hoarder = subprocess.Popen(
        [sys.executable, "-c", HOARDER, str(shared.socket), "65534"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert hoarder.stdout is not None
    assert hoarder.stdin is not None
    try:
        got, refused, message = hoarder.stdout.readline().split(" ", 2)
        assert (got, refused) == ("5", "overloaded")
        assert "limits.user_percent" in message
        wires = [shared.wire() for _ in range(4)]
        for each in wires:
            each.call("session.list")
            each.close()
    finally:
        hoarder.stdin.close()
        hoarder.wait()
        hoarder.stdout.close()
    # What it held is free again.
    until(lambda: "result" in as_nobody(shared, ("session.list", {}))[0], "room for the same user")
