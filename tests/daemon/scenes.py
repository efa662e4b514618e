"""What several files of these tests do to a daemon."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import Wire, WireFailure, inference

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Daemon


def producer(daemon: Daemon, app: str = "test", client_id: str | None = None) -> tuple[Wire, str]:
    """A connection that said hello and started a session; the session's id."""
    wire = daemon.wire()
    wire.hello(app, client_id)
    return wire, str(wire.call("session.start")["session_id"])


def new_id() -> str:
    return str(uuid.uuid4())


def refusal(wire: Wire, method: str, /, **params: Any) -> WireFailure:
    """The error that a request is answered with; a result is a failure of the test."""
    try:
        result = wire.call(method, **params)
    except WireFailure as failure:
        return failure
    pytest.fail(f"{method} was not refused: {result}")


def batch(wire: Wire, seq: int, count: int = 1, **more: Any) -> Any:
    """A batch of `count` equal inferences, on disk when this returns."""
    return wire.call("record.batch", seq=seq, records=[inference()] * count, **{"flush": True, **more})


def total(daemon: Daemon, session_id: str) -> int:
    with daemon.wire() as wire:
        return int(wire.call("session.get", session_id=session_id)["total_inferences"])


def end_reason(daemon: Daemon, session_id: str) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)["extensions"]["end_reason"]


def ledger(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["ledger"]
    return found


def request_line(request_id: int, method: str, /, **params: Any) -> bytes:
    """A request as a line, for several in one write."""
    request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return json.dumps(request).encode() + b"\n"


def rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def database(daemon: Daemon) -> Path:
    return daemon.data / "xybridd.db"


def change(daemon: Daemon, sql: str, *values: Any) -> None:
    """Change the database of a daemon that does not run."""
    with closing(sqlite3.connect(database(daemon))) as connection:
        connection.execute(sql, values)
        connection.commit()


def exit_of(daemon: Daemon) -> tuple[int, str]:
    """Launch a daemon that is expected not to come up: its exit code and what it said."""
    daemon.launch()
    assert daemon.process is not None
    try:
        return daemon.process.wait(30), daemon.said()
    except subprocess.TimeoutExpired:
        pytest.fail("the daemon runs, but should have refused to start")
