"""What the tests of the commands about uploading share: sessions, a daemon that sends, a terminal to answer at."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support import PATIENCE_S, RECEIVER_KEY, inference, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver

KEY = RECEIVER_KEY


def sending_to(make_daemon: Callable[..., Daemon], receiver: Receiver, more: str = "", key: str = KEY) -> Daemon:
    """A daemon that sends to this receiver as fast as it may."""
    config = (
        f'[upload]\nendpoint = "{receiver.url}"\nwait_while_inferring = false\nmax_requests_per_minute = 10000\n{more}'
    )
    return make_daemon(config, {"XYBRID_API_KEY": key}).start()


def ended(daemon: Daemon, number: int = 1, **more: Any) -> list[str]:
    """So many sessions with a call in each, that have ended; their ids."""
    made = []
    for _ in range(number):
        with daemon.wire() as wire:
            wire.hello("kiosk")
            made.append(str(wire.call("session.start", **more)["session_id"]))
            wire.call("record.batch", seq=1, records=[inference(latency_ms=212)], flush=True)
            wire.call("session.end")
    return made


def sinks(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {each["sink"]: each for each in daemon.status()["upload"]["sinks"]}


def until_idle(daemon: Daemon) -> None:
    """Until everything that was made is where it should be."""
    until(lambda: all(each["queued"] == 0 for each in sinks(daemon).values()), "the outbox to be empty")


def until_state(daemon: Daemon, state: str, sink: str = "xybrid") -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: (each := sinks(daemon)[sink])["state"] == state and each, f"the sink {sink} to be {state}"
    )
    return found


def told(daemon: Daemon, *arguments: str, exits: int = 0) -> Any:
    """What a command says with --json."""
    done = daemon.xybridd(*arguments, "--json")
    assert done.returncode == exits, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def at_a_terminal(daemon: Daemon, *arguments: str, answer: str = "") -> tuple[int, str]:
    """The exit code and all that was shown, when a person runs it and types this."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", *arguments],
        env={**daemon.env, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    if answer:
        os.write(ours, f"{answer}\n".encode())
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # the other end is closed: on Linux that is an error, not an end
        pass
    os.close(ours)
    return process.wait(PATIENCE_S), seen.decode()
