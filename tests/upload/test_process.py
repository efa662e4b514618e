"""The sender as a process: when it starts and ends, what it inherits, what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

import xybridd
from tests.support import PATIENCE_S, until
from tests.upload.given import KEY, broken, job, outcome, outcomes, target
from xybridd.core.delivery import Item, Outcome
from xybridd.core.minute import Minute, ModelMinute
from xybridd.testing import Behaviour, Receiver
from xybridd.upload.frames import framed, outcome_from
from xybridd.upload.process import COMMAND, Sender, environment_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what /proc and prctl tell")


def with_sender(use: Callable[[Sender], Awaitable[None]], idle_s: float = 60.0) -> None:
    async def run() -> None:
        sender = Sender(idle_s=idle_s)
        try:
            await use(sender)
        finally:
            await sender.close()

    asyncio.run(run())


async def soon(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - of another process, which sets no event
            await asyncio.sleep(0.01)
    assert condition(), what


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_starts_with_the_first_job_and_is_gone_when_closed(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        assert not sender.pid
        assert (await sender.send(job(receiver.url))).status == 200
        first = sender.pid
        assert first is not None
        assert (await sender.send(job(receiver.url))).status == 200
        assert sender.pid == first
        await sender.close()
        assert not psutil.pid_exists(first)
        later = await sender.send(job(receiver.url))
        assert (later.failure, later.detail) == ("sender", "the sender is closed")

    with_sender(use)


def test_without_work_it_ends_and_the_next_job_starts_another(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        await sender.send(job(receiver.url))
        first = sender.pid
        await soon(lambda: sender.pid is None, "the sender to end")
        assert first is not None
        assert not psutil.pid_exists(first), "nobody asked what became of it"
        assert (await sender.send(job(receiver.url))).status == 200
        assert sender.pid not in {None, first}

    with_sender(use, idle_s=0.2)


def test_a_process_that_ends_just_when_a_job_comes_costs_no_job(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        # Ended by itself, and the loop had no turn yet to hear of it.
        for _ in range(3):
            assert (await sender.send(job(receiver.url))).status == 200
            pid = sender.pid
            assert pid is not None
            until(partial(is_gone, pid), "the sender to end")

    with_sender(use, idle_s=0.2)


def test_a_connection_that_was_closed_between_two_jobs_costs_none() -> None:
    async def use(sender: Sender) -> None:
        with Receiver() as first:
            assert (await sender.send(job(first.url))).status == 200
            port = first.port
        with Receiver(port=port) as second:
            assert (await sender.send(job(second.url))).status == 200
            assert second.seen()["deliveries"] == 1

    with_sender(use)


def test_killed_from_outside_in_the_middle(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        receiver.misbehave(Behaviour("silent", takes=True))
        given = job(receiver.url)
        waiting = asyncio.create_task(sender.send(given))
        await soon(lambda: any(each["key"] == given.key for each in receiver.seen()["requests"]), "the request")
        assert sender.pid is not None
        os.kill(sender.pid, signal.SIGKILL)
        found = await waiting
        assert found.failure == "sender"
        assert (await sender.send(given)).status == 200
        assert receiver.counts()[given.items[0].session_id, 1] == 1

    with_sender(use)


def test_closing_does_not_wait_for_an_answer(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        receiver.misbehave(Behaviour("silent", times=None))
        given = job(target(receiver.url, read_timeout_s=PATIENCE_S * 10, total_timeout_s=PATIENCE_S * 10))
        waiting = [asyncio.create_task(sender.send(given)) for _ in range(3)]
        await soon(lambda: any(each["key"] == given.key for each in receiver.seen()["requests"]), "the request")
        await sender.close()
        assert [found.failure for found in await asyncio.gather(*waiting)] == ["sender"] * 3
        assert sender.pid is None

    with_sender(use)


def test_who_gives_up_waiting_leaves_no_process(receiver: Receiver) -> None:
    async def use(sender: Sender) -> None:
        receiver.misbehave(Behaviour("silent"))
        given = job(receiver.url)
        waiting = asyncio.create_task(sender.send(given))
        await soon(lambda: any(each["key"] == given.key for each in receiver.seen()["requests"]), "the request")
        pid = sender.pid
        assert pid is not None
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert not psutil.pid_exists(pid)
        assert (await sender.send(given)).status == 200

    with_sender(use)


@LINUX
def test_no_descriptor_is_left_behind(receiver: Receiver) -> None:
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    async def use(sender: Sender) -> None:
        before = count()
        for _ in range(3):
            await sender.send(job(receiver.url))
            await soon(lambda: sender.pid is None, "the sender to end")
            await soon(lambda: count() == before, "its pipes to be closed")

    with_sender(use, idle_s=0.2)


def link_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - socket:[7] is no path


def links(pid: str) -> set[str]:
    """What a process has open."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that the listing itself had open
            found.add(os.readlink(each))  # noqa: PTH115
    return found


@LINUX
def test_it_inherits_nothing_but_what_it_needs(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYBRID_API_KEY", KEY)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")

    async def use(sender: Sender) -> None:
        with socket.socket(socket.AF_UNIX) as ours:
            os.set_inheritable(ours.fileno(), True)
            assert (await sender.send(job(receiver.url))).status == 200
            place = Path(f"/proc/{sender.pid}")
            assert link_of(ours.fileno()) in links("self")
            assert link_of(ours.fileno()) not in links(str(sender.pid))
        environment = (place / "environ").read_bytes()
        assert b"HTTPS_PROXY=http://proxy.invalid" in environment
        assert KEY.encode() not in environment + (place / "cmdline").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert psutil.Process(sender.pid).nice() > psutil.Process().nice()

    with_sender(use)


def test_the_environment_is_a_short_list() -> None:
    given = {"PATH": "/bin", "no_proxy": "a", "XYBRID_API_KEY": "k", "XYBRIDD_SOCKET": "s", "LISTEN_FDS": "1"}
    passed = environment_from({**given, "PYTHONPATH": "/theirs"})
    assert {name: passed[name] for name in passed if name != "PYTHONPATH"} == {"PATH": "/bin", "no_proxy": "a"}
    assert passed["PYTHONPATH"].endswith("/theirs")
    assert str(Path(xybridd.__file__).parents[1]) in passed["PYTHONPATH"]


PARENT = """
import asyncio, sys
from tests.upload.given import job
from xybridd.upload.process import Sender

async def main():
    sender = Sender()
    task = asyncio.create_task(sender.send(job(sys.argv[1])))
    while sender.pid is None:
        await asyncio.sleep(0.01)
    print(sender.pid, flush=True)
    await task

asyncio.run(main())
"""


@LINUX
@pytest.mark.parametrize("behaviour", [Behaviour("silent"), None], ids=["in a request", "without work"])
def test_it_ends_with_its_parent(receiver: Receiver, behaviour: Behaviour | None) -> None:
    receiver.misbehave(*([behaviour] if behaviour else []))
    before = len(receiver.seen()["requests"])
    script = PARENT.replace("    await task\n", "    await task\n    await asyncio.Event().wait()\n")
    parent = subprocess.Popen([sys.executable, "-c", script, receiver.url], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: len(receiver.seen()["requests"]) > before, "the request")
        parent.kill()
    until(lambda: is_gone(pid), "the sender to end")


def test_a_process_that_cannot_be_started() -> None:
    found = outcome(job("http://127.0.0.1:1"), ("/nowhere/python",))
    assert found.failure == "sender"
    assert "could not be started" in found.detail


def test_a_process_that_ends_before_it_does_anything() -> None:
    found = outcome(job("http://127.0.0.1:1"), broken("does not start"))
    assert (found.failure, found.detail) == ("sender", "the sender ended (exit code 7) in the middle of a job")


def test_a_process_that_always_ends_without_taking_the_job() -> None:
    found = outcome(job("http://127.0.0.1:1"), (sys.executable, "-c", ""))
    assert found.failure == "sender"


def test_an_exit_before_the_answer(receiver: Receiver) -> None:
    assert outcome(job(receiver.url), broken("exits before the answer")).failure == "sender"


def test_what_a_library_prints_is_no_answer(receiver: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    found = outcomes(job(receiver.url), job(receiver.url), command=broken("noisy"))
    assert [each.status for each in found] == [200, 200]
    assert "and one that writes" in capfd.readouterr().err


def test_an_error_within_is_an_outcome_without_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    found = outcomes(job("http://127.0.0.1:1"), job("http://127.0.0.1:1"), command=broken("breaks"))
    assert [each.failure for each in found] == ["sender", "sender"]
    assert "ValueError" in found[0].detail
    assert KEY not in found[0].detail + capfd.readouterr().err


def test_noise_for_an_answer_ends_the_process() -> None:
    assert outcome(job("http://127.0.0.1:1"), broken("babbles")).failure == "sender"


def sender_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--parent", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_from(os.environ),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(number: signal.Signals) -> None:
    with sender_process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # It has answered once, so it is past its start.
        process.stdin.write(framed(job("ftp://nowhere")))
        process.stdin.flush()
        length = int.from_bytes(process.stdout.read(4), "big")
        assert outcome_from(process.stdout.read(length)).failure == "refused"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (-number, b"", b"")


def test_the_end_of_its_input_is_its_end() -> None:
    with sender_process() as process:
        out, err = process.communicate(b"", timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.parametrize(
    "frame",
    [b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x05ab", b"\x00\x00\x00\x02\xc0\xc0", framed(Outcome(status=200))],
    ids=["half a length", "a length too large", "half a frame", "not a map", "not a job"],
)
def test_what_is_no_job_ends_it_with_an_error(frame: bytes) -> None:
    with sender_process() as process:
        out, err = process.communicate(frame, timeout=PATIENCE_S)
    assert process.returncode == 1
    assert out == b""
    assert err.startswith(b"xybridd.upload.sender: ")


def test_it_does_not_work_for_another_parent() -> None:
    command = [*COMMAND, "--parent", "0"]
    done = subprocess.run(command, input=framed(job("ftp://nowhere")), capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_daemon_loads_nothing_of_http() -> None:
    script = (
        "import sys, xybridd.daemon.app, xybridd.upload.process\n"
        "print([name for name in ('requests', 'urllib3', 'google.protobuf', 'truststore', 'opentelemetry.proto',"
        " 'xybridd.testing') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sender_loads_of_it_what_a_job_needs(folder: Path) -> None:
    """A file needs neither requests nor protobuf, which is most of the sender's start."""
    script = (
        "import sys\n"
        "from tests.upload.given import job, target\n"
        "from xybridd.upload.sender import Sending\n"
        f"found = Sending().carry_out(job(target({str(folder / 'out.jsonl')!r}, 'file')))\n"
        "print(found.failure, [name for name in ('requests', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None []"


def test_a_minute_whose_parts_cannot_be_read_is_no_trouble_of_the_senders(receiver: Receiver) -> None:
    """Its row reads, what is in it does not: as a bit that flipped leaves it. It would break the sender each time."""
    model = ModelMinute("m", "1", 1, 0, b"\xc1 no histogram")
    body = msgspec.msgpack.encode(Minute("s", 1, 2, [model]))
    bad = Item("minute", "s", 0, 2, "device", "linux", "app", "", body)
    given = job(target(receiver.url, "otlp"), bad)
    assert outcome(given).failure == "unsendable"
    assert given.key not in {request["key"] for request in receiver.seen()["requests"]}
