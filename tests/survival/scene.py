"""A daemon and a receiver, each a process of its own, and what must be true of both whatever happened between them."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from tests.support import RECEIVER_KEY, Daemon, inference, ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from xybridd.testing import Receiver

KEY = RECEIVER_KEY

#: As fast as it goes, and with time limits that a test can wait for.
UPLOAD = """
[storage]
commit_interval_ms = 0
{storage}
[upload]
{endpoint}
connect_timeout_s = 1
read_timeout_s = 0.5
total_timeout_s = 1.5
max_requests_per_minute = 100000
wait_for_route = false
wait_while_metered = false
wait_on_low_battery = false
wait_while_hot = false
wait_while_inferring = false
{upload}
{more}
"""


def config(url: str | None, *, storage: str = "", upload: str = "", more: str = "") -> str:
    endpoint = "" if url is None else f'endpoint = "{url}"'
    return UPLOAD.format(endpoint=endpoint, storage=storage, upload=upload, more=more)


def give_key(daemon: Daemon, key: str = KEY) -> Path:
    """The key in a file beside the config, which is where it is looked for."""
    path = daemon.folder / "api-key"
    path.write_text(key)
    path.chmod(0o600)
    return path


# What is made


def _requests(session_ids: Iterable[str], records: int) -> list[bytes]:
    lines: list[bytes] = []
    for session_id in session_ids:
        calls = [
            ("hello", {"app": "survivor", "client_id": str(uuid.uuid4())}),
            ("session.start", {"session_id": session_id}),
            ("record.batch", {"seq": 1, "records": [inference()] * records}),
            ("session.end", {}),
        ]
        lines += [
            json.dumps({"jsonrpc": "2.0", "id": len(lines) + number, "method": method, "params": params}).encode()
            for number, (method, params) in enumerate(calls)
        ]
    return lines


def ended(daemon: Daemon, number: int, records: int = 1) -> list[str]:
    """So many sessions, begun and ended, each with so many records; all on disk. Their ids, in the order of their ends."""
    made = [str(uuid.uuid4()) for _ in range(number)]
    with daemon.wire() as wire:
        for some in _in_parts(made, 50):
            lines = _requests(some, records)
            wire.sock.sendall(b"\n".join(lines) + b"\n")
            for _ in lines:
                answer = wire.read()
                assert "error" not in answer, answer
    return made


def _in_parts(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


# What must be true


def sinks(daemon: Daemon) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = daemon.status()["ledger"]["exports"]
    return found


def equations_hold(daemon: Daemon) -> None:
    """Both sides of the ledger, by the daemon's own word."""
    ledger = daemon.status()["ledger"]
    assert ledger_balances(ledger)
    for sink, tally in ledger["exports"].items():
        ends = sum(tally[end] for end in ("delivered", "queued", "superseded", "dead", "evicted", "forgotten"))
        assert tally["made"] == ends, (sink, tally)


def arrived_once(daemon: Daemon, receiver: Receiver, session_ids: Iterable[str], *, gone: int = 0) -> None:
    """The receiver has these sessions, each once by its own count, and nothing else; the ledger says the same.

    ``gone``: how many of what was made ended otherwise. The equations hold.
    """
    equations_hold(daemon)
    wanted = Counter(session_ids)
    assert Counter(session_id for session_id, _ in receiver.counts()) == wanted
    assert set(receiver.counts().values()) <= {1}
    tally = sinks(daemon)["xybrid"]
    assert tally["queued"] == 0, tally
    counted = receiver.seen()["counts"]
    assert all(row["count"] == 1 for row in counted)
    assert tally["delivered"] == len(counted)
    assert tally["made"] == tally["delivered"] + gone


def now(daemon: Daemon) -> dict[str, Any]:
    """Cut every wait short; the status."""
    with daemon.wire() as wire:
        status: dict[str, Any] = wire.call("upload.now")
    return status


def status_of(daemon: Daemon, sink: str = "xybrid") -> dict[str, Any]:
    """A sink's line of the status, without stirring it."""
    with daemon.wire() as wire:
        return line_of(wire.call("upload.status"), sink)


def line_of(status: dict[str, Any], sink: str = "xybrid") -> dict[str, Any]:
    """A sink's line of the status."""
    line: dict[str, Any] = next(each for each in status["sinks"] if each["sink"] == sink)
    return line


def drained(daemon: Daemon, sink: str = "xybrid") -> None:
    """Until the sink has all of it; waits are cut short again and again. Patient as long as it goes on."""
    left = sinks(daemon).get(sink, {}).get("queued", 0)
    while left:
        what = f"the sink {sink} to take more; {line_of(now(daemon), sink)}"
        (left,) = until(partial(_fewer, daemon, sink, left), what)


def _fewer(daemon: Daemon, sink: str, than: int) -> tuple[int] | None:
    queued: int = line_of(now(daemon), sink)["queued"]
    return (queued,) if queued < than else None


def sender_of(daemon: Daemon) -> psutil.Process | None:
    """The process that sends for it, while there is one."""
    for child in psutil.Process(daemon.pid).children():
        if child.status() != psutil.STATUS_ZOMBIE and "xybridd.upload.sender" in child.cmdline():
            return child
    return None
