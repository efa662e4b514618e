"""Never raises, never blocks: what goes wrong around an app that records is not the app's business."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.client.spools import fetched
from tests.support import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Daemon


def record_all(client: xybridd.Client, count: int = 1000) -> None:
    for number in range(count):
        client.record_inference("m", "1", number)
    with client.inference("m", "1"):
        pass
    client.record_error("boom", "m", "1")


@pytest.fixture
def silent(folder: Path) -> Iterator[Path]:
    """A socket that accepts, reads nothing and never answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(folder / "silent"))
        listening.listen()
        yield folder / "silent"


@pytest.fixture
def full(folder: Path) -> Iterator[Path]:
    """A socket whose backlog is full."""
    path = folder / "full"
    waiting = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(0)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        except BlockingIOError:
            pass
        yield path
        for each in waiting:
            each.close()


@pytest.fixture
def garbage(folder: Path) -> Iterator[Path]:
    """Somebody else's socket: it answers with what is no JSON."""
    path = folder / "garbage"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            try:
                while True:
                    with listening.accept()[0] as connection:
                        connection.sendall(b"220 mail.example.org ESMTP\r\n\x00\xff\n")
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


@pytest.fixture
def other_version(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A daemon that knows `hello` and no ring, and the methods that it was asked for."""
    path, asked = folder / "other", list[str]()

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as lines:
            for line in lines:
                request = json.loads(line)
                asked.append(request["method"])
                answer: dict[str, Any] = {"result": {"protocol": 2, "last_seq": 0, "limits": {}}}
                if request["method"] != "hello":
                    answer = {
                        "error": {"code": -32601, "message": "no such method", "data": {"code": "method_not_found"}}
                    }
                lines.write(json.dumps({"jsonrpc": "2.0", "id": request.get("id"), **answer}).encode() + b"\n")
                lines.flush()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        threads: list[threading.Thread] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=serve, args=(listening.accept()[0],)))
                    threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield path, asked
        listening.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE_S)


def test_a_daemon_that_refuses_for_good_is_not_asked_again_and_again(
    other_version: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    path, asked = other_version
    client = xybridd.connect(app="a", socket=path)
    record_all(client, 100)
    until(lambda: "ring.attach" in asked, "the ring to be offered")
    until(lambda: [record for record in caplog.records if "refuses this client" in record.message], "a warning")
    for _ in range(20):
        assert not client.flush(0.02)
    assert not client.close(0.05)
    assert asked.count("ring.attach") == 1
    assert client.counters()["spooled"] == 102
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.parametrize("where", ["silent", "full", "garbage", "nobody"])
def test_whatever_is_at_the_socket_the_app_goes_on_and_its_records_are_kept(
    request: pytest.FixtureRequest, folder: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "nobody" if where == "nobody" else request.getfixturevalue(where)
    client = xybridd.connect(app="a", socket=path)
    record_all(client)
    assert client.counters()["waiting"] >= 1000
    assert not client.close(timeout_s=0.05)
    counters = client.counters()
    assert counters["spooled"] == 1002
    assert counters["waiting"] == counters["lost"] == counters["dropped"] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_stopped_daemon_does_not_hold_up_the_end_of_an_app(daemon: Daemon) -> None:
    client = xybridd.connect(app="a", socket=daemon.socket)
    assert client.flush(PATIENCE_S)
    daemon.signal(signal.SIGSTOP)
    try:
        record_all(client, 30_000)
        assert not client.close(timeout_s=0.05)
        assert client.counters()["spooled"] == 30_002
    finally:
        daemon.signal(signal.SIGCONT)


def test_restarts_in_the_midst_lose_nothing_and_double_nothing(daemon: Daemon) -> None:
    client = xybridd.connect(app="a", socket=daemon.socket)
    total = 0
    for _ in range(5):
        record_all(client, 3000)
        total += 3001
        until(lambda: client.counters()["acknowledged"] > 0, "something to be acknowledged")
        daemon.kill()
        record_all(client, 500)
        total += 501
        daemon.start()
    assert client.flush(PATIENCE_S)
    with daemon.wire() as wire:
        assert wire.call("session.get", session_id=client.session_id)["total_inferences"] == total
    assert client.close(PATIENCE_S)


def test_thirty_two_threads(daemon: Daemon) -> None:
    with xybridd.connect(app="a", socket=daemon.socket) as client:
        threads = [threading.Thread(target=record_all, args=(client,)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert client.flush(PATIENCE_S)
        assert client.counters()["acknowledged"] == 32 * 1002


APP = """
import {imports}, xybridd
client = xybridd.connect(app="app")
{body}
"""


def run(daemon: Daemon, body: str, imports: str = "sys", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", APP.format(imports=imports, body=body)],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout.strip()


def counted(daemon: Daemon) -> int:
    return int(daemon.status()["ledger"]["counted"])


#: Each records a hundred times while the interpreter is going down, in its own way.
AT_THE_END = {
    "in __del__ of a global": """
class Late:
    def __del__(self):
        for n in range(100):
            client.record_inference("m", "1", n)
        client.flush(0.01)
        client.close()
late = Late()
client.record_inference("m", "1", 1)
""",
    "in atexit": """
import atexit
client.record_inference("m", "1", 1)
def late():
    for n in range(100):
        client.record_inference("m", "1", n)
    client.advice(timeout_s=0.01)
    other = xybridd.connect(app="other")
    other.record_inference("m", "1", 1)
atexit.register(late)
""",
    "in daemon threads": """
import threading
def forever():
    while True:
        client.record_inference("m", "1", 1)
        threading.Event().wait(0.001)
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
client.record_inference("m", "1", 1)
""",
    "in a thread that outlives main": """
import threading
def some():
    for n in range(1000):
        client.record_inference("m", "1", n)
threading.Thread(target=some).start()
""",
}


@pytest.mark.parametrize("body", AT_THE_END.values(), ids=AT_THE_END)
@pytest.mark.parametrize("there", [True, False], ids=["daemon", "no daemon"])
def test_at_the_end_of_the_interpreter(make_daemon: Callable[..., Daemon], body: str, *, there: bool) -> None:
    daemon = make_daemon()
    if there:
        daemon.start()
    run(daemon, body)
    if not there:
        daemon.start()
        until(lambda: counted(daemon) >= 1, "the spool to be fetched")
    fetched(daemon)
    assert counted(daemon) >= 1


FORK = """
import os
client.record_inference("before", "1", 1)
if {flushed}: assert client.flush(20)
pid = os.fork()
for n in range(1000):
    client.record_inference("child" if pid == 0 else "parent", "1", n)
if pid == 0:
    assert client.advice(timeout_s=20) is not None or not {there}
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(client.session_id)
"""


@pytest.mark.parametrize("there", [True, False], ids=["daemon", "no daemon"])
@pytest.mark.parametrize("flushed", [True, False])
def test_after_a_fork_each_process_counts_its_own(
    make_daemon: Callable[..., Daemon], *, flushed: bool, there: bool
) -> None:
    daemon = make_daemon()
    if there:
        daemon.start()
    body = FORK.format(flushed=flushed and there, there=there)
    session_id = run(daemon, body if there else body.replace("timeout_s=20", "timeout_s=0.01"))
    if not there:
        daemon.start()
        until(lambda: counted(daemon) == 2001, "the spools of both to be fetched")
    fetched(daemon)
    with daemon.wire() as wire:
        models = wire.call("session.get", session_id=session_id)["by_model"]
    counts = {key: metric["call_count"] for key, metric in models.items()}
    assert counts == {"before@1": 1, "parent@1": 1000, "child@1": 1000}


def test_an_app_that_stops_the_clock_does_not_stop_the_client(daemon: Daemon) -> None:
    """As libraries do that freeze time in tests: the names in the module `time` are replaced."""

    def broken(*_: Any) -> float:
        raise RuntimeError("of the app's test")

    daemon.kill()
    client = xybridd.connect(app="a", socket=daemon.socket)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns", "sleep"):
            patched.setattr(time, name, broken)
        record_all(client)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("monotonic", "time"):
            patched.setattr(time, name, lambda: 0.0)
        record_all(client)
    daemon.start()
    assert client.flush(PATIENCE_S)
    assert client.close(PATIENCE_S)
    assert counted(daemon) == 2004


def test_a_signal_handler_closes_and_records_in_the_midst_of_it(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    body = """
import signal
def handler(*_):
    client.record_inference("handler", "1", 1)
    client.flush(0)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for n in range(50_000):
    client.record_inference("m", "1", n)
    if n % 10_000 == 0:
        client.end_session(0)
signal.setitimer(signal.ITIMER_REAL, 0)
client.close(20)
print(client.counters()["acknowledged"])
"""
    acknowledged = int(run(daemon, body))
    assert acknowledged > 50_000
    assert counted(daemon) == acknowledged


def test_what_goes_wrong_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With debug messages too: no daemon is one line, however often it is looked for."""
    caplog.set_level(logging.DEBUG)
    client = xybridd.connect(app="a", socket=folder / "nobody")
    record_all(client, 10)
    until(lambda: client._thread is not None and client._thread._retry_s > 0.1, "some attempts")
    for _ in range(100):
        client.record_inference("m", "1", float("nan"))
        client.record_inference(None, "1", 1)  # type: ignore[arg-type]
    client.close(0.01)
    said = [record for record in caplog.records if record.name.startswith("xybridd")]
    assert len(said) <= 3
    assert client.counters()["invalid"] == 100


def test_a_process_without_file_descriptors_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        client = xybridd.connect(app="a", socket=folder / "nobody")
        record_all(client, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not client.close(0.01) or client.counters()["spooled"] == 102
    assert client.counters()["lost"] + client.counters()["spooled"] == 102


def test_an_app_that_closed_all_descriptors_goes_on(make_daemon: Callable[..., Daemon]) -> None:
    """As processes do that detach themselves."""
    daemon = make_daemon().start()
    body = """
import os
assert client.flush(20)
os.closerange(3, 256)
for n in range(10):
    client.record_inference("m", "1", n)
assert client.flush(20)
"""
    run(daemon, body)
    assert counted(daemon) == 10


def test_an_app_that_wants_to_die_of_sigpipe_does_not_die_of_a_daemon_that_is_gone(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon().start()
    body = f"""
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
client.record_inference("m", "1", 1)
assert client.flush(20)
os.kill({daemon.pid}, signal.SIGKILL)
for n in range(3):
    client.record_inference("m", "1", n)
    assert client.advice(timeout_s=0.05) is None
    client.flush(0.05)
"""
    run(daemon, body)
