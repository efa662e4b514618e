"""What an app may rely on, with a real daemon, without one, and with one that comes and goes."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.client.spools import fetched
from tests.support import PATIENCE_S, environment, until
from xybridd.client import writer as writer_module
from xybridd.protocol.ring import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Daemon


@pytest.fixture
def connect() -> Iterator[Callable[..., xybridd.Client]]:
    made: list[xybridd.Client] = []

    def make(daemon: Daemon | Path, **more: Any) -> xybridd.Client:
        path = daemon if not hasattr(daemon, "socket") else daemon.socket
        made.append(xybridd.connect(app="test", socket=path, **more))
        return made[-1]

    yield make
    for client in made:
        client.close()


def session(daemon: Daemon, session_id: str | None) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def test_what_is_recorded_stands_in_the_session(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon, labels={"site": "42"}, app_version="2.1")
    client.record_inference("whisper", "1.0", latency_ms=212, tokens_per_second=41.5, hardware_used="gpu")
    client.record_inference("whisper", "1.0", 100)
    client.record_error("CUDA out of memory", "whisper", "1.0")
    client.record_error(ValueError("no such voice"), category="preprocessing")
    assert client.flush(PATIENCE_S)
    found = session(daemon, client.session_id)
    assert found["total_inferences"] == 2
    assert found["total_latency_ms"] == 312
    assert found["by_model"]["whisper@1.0"]["error_count"] == 1
    assert [(error["category"], error["message"]) for error in found["errors"]] == [
        ("Hardware", "CUDA out of memory"),
        ("Preprocessing", "ValueError: no such voice"),
    ]
    more = found["extensions"]
    assert (more["app"], more["app_version"], more["labels"]) == ("test", "2.1", {"site": "42"})
    assert more["models"]["whisper@1.0"]["stats"]["hardware_used"] == {"gpu": 1}
    assert found["sdk_version"] == xybridd.__version__
    assert client.counters() == {
        "acknowledged": 4,
        "waiting": 0,
        "dropped": 0,
        "invalid": 0,
        "refused": 0,
        "spooled": 0,
        "lost": 0,
    }


def test_records_reach_the_disk_without_a_flush(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    client.record_inference("m", "1", 1)
    until(lambda: client.counters()["acknowledged"] == 1, "the record to be acknowledged")


def test_inference_as_a_context_manager_times_and_notes(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    with client.inference("m", "1", execution_target="local") as call:
        call.note(output_tokens=7)
    assert client.flush(PATIENCE_S)
    model = session(daemon, client.session_id)["extensions"]["models"]["m@1"]
    assert model["stats"]["output_tokens"]["total"] == 7
    assert model["stats"]["execution_target"] == {"local": 1}
    assert model["latency_ms"]["max"] > 0


def test_an_exception_is_recorded_and_goes_on_its_way(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    with pytest.raises(OSError, match="gone"), client.inference("m", "1"):
        raise OSError("gone")
    assert client.flush(PATIENCE_S)
    found = session(daemon, client.session_id)
    assert found["total_inferences"] == 0
    assert found["errors"][0]["message"] == "OSError: gone"
    assert found["by_model"]["m@1"]["error_count"] == 1


def test_an_interrupt_is_no_error_of_the_model(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    with pytest.raises(KeyboardInterrupt), client.inference("m", "1"):
        raise KeyboardInterrupt
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["error_count"] == 0


def test_inference_as_a_decorator_of_functions_and_coroutines(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)

    @client.inference("plain", "1")
    def double(number: int) -> int:
        return 2 * number

    @client.inference("async", "1")
    async def triple(number: int) -> int:
        return 3 * number

    async def together() -> list[int]:
        return list(await asyncio.gather(*(triple(number) for number in range(5))))

    assert [double(number) for number in range(3)] == [0, 2, 4]
    assert asyncio.run(together()) == [0, 3, 6, 9, 12]
    assert client.flush(PATIENCE_S)
    found = session(daemon, client.session_id)["by_model"]
    assert {key: metric["call_count"] for key, metric in found.items()} == {"plain@1": 3, "async@1": 5}
    assert double.__name__ == "double"


class Odd:
    """Not a number, but something that has one, as numpy's scalars do."""

    def item(self) -> float:
        return 12.5


def test_values_that_cannot_be_right_are_left_out_and_counted(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    odd: Any
    for odd in (float("nan"), float("inf"), -1, "fast", None, 2.0**54, object()):
        client.record_inference("m", "1", odd)
    client.record_inference("", "1", 1)
    client.record_inference("m" * 257, "1", 1)
    client.record_error("x", "m", category="nonsense")
    client.record_error(None)  # type: ignore[arg-type]
    client.record_inference("m", "1", odd_number())
    client.record_inference("m", "1", 1, unknown_figure=3)  # type: ignore[call-arg]
    client.record_error("a file named \udcff")
    assert client.flush(PATIENCE_S)
    found = session(daemon, client.session_id)
    assert set(found["by_model"]) == {"m@1", "unknown@1", "m" * 256 + "@1"}
    assert found["by_model"]["m@1"]["call_count"] == 3  # without a latency, with one like numpy's, with an unknown stat
    assert [error["message"] for error in found["errors"]] == ["x", "None", "a file named ?"]
    assert client.counters() | {"acknowledged": 0} == dict.fromkeys(client.counters(), 0) | {"invalid": 6}
    assert client.omitted == {"category": 1, "unknown_figure": 1}


def odd_number() -> Any:
    return Odd()


def test_a_daemon_that_comes_later_gets_everything(
    make_daemon: Callable[..., Daemon], connect: Callable[..., xybridd.Client]
) -> None:
    daemon = make_daemon()
    client = connect(daemon)
    for number in range(2500):
        client.record_inference("m", "1", number)
    assert not client.flush(timeout_s=0.05)
    daemon.start()
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["total_inferences"] == 2500


def test_the_session_goes_on_after_the_daemon_was_killed(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    client.record_inference("m", "1", 1)
    assert client.flush(PATIENCE_S)
    before = client.session_id
    daemon.kill()
    client.record_inference("m", "1", 1)
    daemon.start()
    assert client.flush(PATIENCE_S)
    assert client.session_id == before
    found = session(daemon, before)
    assert found["total_inferences"] == 2
    assert found["ended_at"] is None


def test_an_idle_client_takes_its_session_up_again_after_a_restart(
    make_daemon: Callable[..., Daemon], connect: Callable[..., xybridd.Client]
) -> None:
    daemon = make_daemon("[session]\nlost_after_s = 8").start()
    client = connect(daemon)
    assert client.flush(PATIENCE_S)
    until(lambda: daemon.status()["sessions"]["active"] == 1, "the session to start")
    daemon.kill()
    daemon.start()
    until(lambda: daemon.status()["connections"] == 2, "the client to come back without being asked")
    assert session(daemon, client.session_id)["ended_at"] is None


def test_a_daemon_that_hangs_costs_only_the_wait(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    assert client.flush(PATIENCE_S)
    daemon.signal(signal.SIGSTOP)
    for _ in range(100):
        client.record_inference("m", "1", 1)
    assert not client.flush(timeout_s=0.05)
    daemon.signal(signal.SIGCONT)
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["total_inferences"] == 100


def test_rings_are_bounded_and_what_is_dropped_is_counted(
    make_daemon: Callable[..., Daemon],
    connect: Callable[..., xybridd.Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "MOST_BYTES", 2**19)
    daemon = make_daemon()
    client = connect(daemon)
    for _ in range(SLOTS + 1000):
        client.record_inference("m", "1", 1)
    before = client.counters()
    assert before["dropped"] > 900
    assert before["waiting"] + before["spooled"] + before["dropped"] == SLOTS + 1000
    daemon.start()
    assert client.flush(PATIENCE_S)

    def recorded_again() -> bool:
        client.record_inference("m", "1", 1)
        return client.flush(PATIENCE_S) and client.counters()["acknowledged"] > before["waiting"]

    until(recorded_again, "room for records")
    found = client.counters()
    assert session(daemon, client.session_id)["total_inferences"] == found["acknowledged"]
    until(
        lambda: daemon.status()["ledger"]["dropped_by_clients"] == found["dropped"], "the daemon to know of the drops"
    )


def test_many_threads_at_once(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)

    def record() -> None:
        for _ in range(500):
            client.record_inference("m", "1", 1)

    threads = [threading.Thread(target=record) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["total_inferences"] == 8000


def test_sessions_end_and_start(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    first = client.session_id
    client.record_inference("m", "1", 5)
    export = client.end_session(PATIENCE_S)
    assert export is not None
    assert export["session"]["session_id"] == first
    assert export["metrics"]["total_inferences"] == 1
    assert client.end_session(PATIENCE_S) is None
    second = client.start_session({"round": "2"})
    client.record_inference("m", "1", 5)
    assert client.flush(PATIENCE_S)
    assert client.session_id == second
    assert session(daemon, second)["extensions"]["labels"] == {"round": "2"}
    assert session(daemon, first)["extensions"]["end_reason"] == "ended"


def test_a_record_after_the_end_starts_a_session(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    first = client.session_id
    client.end_session(PATIENCE_S)
    client.record_inference("m", "1", 5)
    assert client.flush(PATIENCE_S)
    assert client.session_id not in {None, first}


def test_records_move_on_when_somebody_else_ended_the_session(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    first = client.session_id
    assert client.flush(PATIENCE_S)
    client.record_inference("m", "1", 1)
    assert client.flush(PATIENCE_S)
    with daemon.wire() as wire:
        wire.call("session.end", session_id=first)
    client.record_inference("m", "1", 1)
    assert client.flush(PATIENCE_S)
    assert client.session_id != first
    assert session(daemon, client.session_id)["total_inferences"] == 1
    assert client.counters()["acknowledged"] == 2


def test_a_full_disk_is_waited_for(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    """The daemon says when to come again; what it refused comes again, in order."""
    client = connect(daemon)
    client.record_inference("m", "1", 1)
    assert client.flush(PATIENCE_S)
    # Its process may not let files grow any more: what SQLite sees is the error of a disk that is full.
    size = (daemon.data / "xybridd.db-wal").stat().st_size
    subprocess.run(["prlimit", "--pid", str(daemon.pid), f"--fsize={size}:unlimited"], check=True)
    with daemon.wire() as wire:
        wire.send("session.start")
        until(lambda: daemon.status()["state"] == "degraded", "the daemon to notice")
    for number in range(3000):
        client.record_inference("m", "1", number)
    assert not client.flush(timeout_s=0.2)
    subprocess.run(["prlimit", "--pid", str(daemon.pid), "--fsize=unlimited"], check=True)
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["total_inferences"] == 3001
    assert client.counters()["refused"] == 0


def _record_in_child(client: xybridd.Client) -> None:
    for _ in range(10):
        client.record_inference("child", "1", 1)


def test_a_forked_child_takes_part_in_its_parents_session(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    client.record_inference("parent", "1", 1)
    assert client.flush(PATIENCE_S)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_record_in_child, args=(client,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
        assert child.exitcode == 0
    client.record_inference("parent", "1", 1)
    assert client.flush(PATIENCE_S)
    found = session(daemon, client.session_id)
    assert {key: metric["call_count"] for key, metric in found["by_model"].items()} == {"parent@1": 2, "child@1": 30}
    assert found["ended_at"] is None


def test_a_child_of_a_bare_fork_does_not_keep_its_parents_connection(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    assert client.flush(PATIENCE_S)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            client.record_inference("child", "1", 1)
            code = 0 if client.flush(PATIENCE_S) else 2
        finally:
            os._exit(code)
    os.close(writer)
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    until(lambda: daemon.status()["connections"] == 2, "the child's connection to close with it")


APP = """
import sys, xybridd
client = xybridd.connect(app="short")
for number in range(1500):
    client.record_inference("m", "1", number)
print(client.session_id, flush=True)
{end}
"""


def run_app(daemon: Daemon, end: str = "") -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", APP.format(end=end)],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stderr == "" or end
    return done.stdout.strip(), done.returncode


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError('of the app itself')", 1)])
def test_the_end_of_a_process_brings_its_records_home(daemon: Daemon, end: str, code: int) -> None:
    session_id, returned = run_app(daemon, end)
    assert returned == code
    fetched(daemon)
    found = session(daemon, session_id)
    assert found["total_inferences"] == 1500
    assert found["extensions"]["end_reason"] == "ended"


def test_a_killed_app_is_counted_as_lost(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[session]\nlost_after_s = 0.2").start()
    session_id, _ = run_app(daemon, "client.flush(20); import os; os.kill(os.getpid(), 9)")
    until(lambda: session(daemon, session_id)["ended_at"] is not None, "the session to end")
    found = session(daemon, session_id)
    assert found["extensions"]["end_reason"] == "client_lost"
    assert found["total_inferences"] == 1500


def test_an_app_without_a_daemon_works_and_ends(make_daemon: Callable[..., Daemon]) -> None:
    session_id, returned = run_app(make_daemon(), "import logging")
    assert returned == 0
    assert session_id


@pytest.mark.parametrize("value", [{"DO_NOT_TRACK": "1"}, {"XYBRID_TELEMETRY_OPTOUT": " Yes "}])
def test_who_opts_out_records_nothing(daemon: Daemon, value: dict[str, str]) -> None:
    with environment(**value):
        client = xybridd.connect(app="test", socket=daemon.socket)
    client.record_inference("m", "1", 1)
    with client.inference("m", "1"):
        pass
    client.record_error("x")
    assert client.flush()
    assert client.close()
    assert daemon.status()["ledger"]["received"] == 0
    assert daemon.status()["sessions"]["stored"] == 0


def test_after_close_nothing_is_recorded_and_nothing_raises(
    daemon: Daemon, connect: Callable[..., xybridd.Client]
) -> None:
    client = connect(daemon)
    assert client.close(PATIENCE_S)
    client.record_inference("m", "1", 1)
    assert client.flush()
    assert client.close()
    assert client.end_session() is None
    assert daemon.status()["ledger"]["received"] == 0


def test_a_signal_handler_may_record(daemon: Daemon, connect: Callable[..., xybridd.Client]) -> None:
    client = connect(daemon)
    before = signal.signal(signal.SIGALRM, lambda *_: client.record_inference("handler", "1", 1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        deadline = time.monotonic() + 0.3
        calls = 0
        while time.monotonic() < deadline:
            client.record_inference("main", "1", 1)
            calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.flush(PATIENCE_S)
    metrics = session(daemon, client.session_id)["by_model"]
    assert metrics["main@1"]["call_count"] + client.counters()["dropped"] >= calls
    assert metrics["handler@1"]["call_count"] > 0


def test_importing_xybridd_imports_nothing_heavy() -> None:
    script = "import sys, json, xybridd; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"msgspec", "asyncio", "sqlite3", "apscheduler", "psutil", "requests", "rich", "click", "platformdirs"}
    assert not loaded & heavy
