"""Every kind of child process records, whatever it was forked by and however it ends."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE_S, until

if TYPE_CHECKING:
    from tests.support import Daemon

HEAD = """
import multiprocessing as mp, os, signal, sys, threading, time, xybridd
client = xybridd.connect(app="parent")
def work(_=None):
    for _ in range(50):
        client.record_inference("m", "1", 1.0)
"""

#: Each with how many records it makes; below zero: it says how many.
CHILDREN = {
    "forked right after connect": (50, """
child = mp.get_context("fork").Process(target=work)
child.start()
child.join()
"""),
    "pool that ends its workers by SIGTERM": (1000, """
with mp.get_context("fork").Pool(4) as pool:
    pool.map(work, range(20))
"""),
    "pool that is closed": (1000, """
pool = mp.get_context("fork").Pool(4)
pool.map(work, range(20))
pool.close()
pool.join()
"""),
    "workers that are recycled after each task": (250, """
with mp.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
    pool.map(work, range(5), chunksize=1)
"""),
    "ended by os._exit": (100, """
work()
if os.fork() == 0:
    work()
    os._exit(0)
os.wait()
"""),
    "killed": (100, """
work()
if os.fork() == 0:
    work()
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""),
    "child of a child": (150, """
work()
if os.fork() == 0:
    work()
    if os.fork() == 0:
        work()
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
"""),
    "forked while threads record": (-1, """
stop, made = False, [0] * 4
def forever(thread):
    while not stop:
        client.record_inference("m", "1", 1.0)
        made[thread] += 1
        time.sleep(0)
threads = [threading.Thread(target=forever, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for _ in range(10):
    if (pid := os.fork()) == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
stop = True
for thread in threads: thread.join()
print(sum(made) + 500)
"""),
    "forked by C, as a server does that is not Python's": (150, """
import ctypes
libc = ctypes.PyDLL(None)
work()
for _ in range(2):
    if (pid := libc.fork()) == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
"""),
    "forked by C while the client's thread is at work": (100, """
import ctypes
libc = ctypes.PyDLL(None)
assert client.flush(20)
work()
if (pid := libc.fork()) == 0:
    work()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""),
    "daemon that detaches itself and closes all files": (100, """
work()
assert client.flush(20)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 256)
work()
client.flush(20)
"""),
    "replaced by another program": (50, """
work()
os.execv("/bin/true", ["true"])
"""),
}  # fmt: skip


def run(daemon: Daemon, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("kind", CHILDREN)
def test_every_record_of_a_child_is_counted(daemon: Daemon, kind: str) -> None:
    expected, body = CHILDREN[kind]
    said = run(daemon, "-c", HEAD + body)
    made = int(said) if expected < 0 else expected
    until(lambda: daemon.status()["ledger"]["counted"] >= made, f"{made} records, not {daemon.status()['ledger']}")
    assert daemon.status()["ledger"]["counted"] == made


PROGRAM = """
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
import xybridd
client = xybridd.connect(app="pool") if "{where}" == "before" else None
def begin():
    global client
    client = xybridd.connect(app="pool")
def work(_):
    if "{where}" == "child":
        begin()
    client.record_inference("m", "1", 1.0)
if __name__ == "__main__":
    first = begin if "{where}" == "initializer" else None
    with ProcessPoolExecutor(2, mp.get_context("{method}"), initializer=first) as pool:
        list(pool.map(work, range(20)))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.parametrize("where", ["before", "initializer", "child"])
def test_multiprocessing(daemon: Daemon, method: str, where: str) -> None:
    """With the client made before, in the initializer of the workers, or for each task."""
    program = daemon.folder / "program.py"
    program.write_text(PROGRAM.format(method=method, where=where))
    run(daemon, str(program))
    until(lambda: daemon.status()["ledger"]["counted"] == 20, "the records of the workers")


def test_a_worker_that_is_killed_is_visible_in_the_session_that_it_shared(daemon: Daemon) -> None:
    body = """
work()
assert client.flush(20)
pids = []
for number in range(3):
    if (pid := os.fork()) == 0:
        work()
        client.flush(20)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        client.close(20)
        os._exit(0)
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
print(client.session_id)
client.close(20)
"""
    session_id = run(daemon, "-c", HEAD + body)

    def processes() -> dict[str, int]:
        with daemon.wire() as wire:
            found: dict[str, int] = wire.call("session.get", session_id=session_id)["extensions"].get("processes", {})
        return found

    until(lambda: processes().get("lost") == 1, "the killed worker to be noticed")
    assert processes()["ended"] >= 2


SUB_INTERPRETER = """
import _xxsubinterpreters as interpreters
one = interpreters.create()
interpreters.run_string(one, '''
import xybridd
client = xybridd.connect(app="sub")
for _ in range(50):
    client.record_inference("m", "1", 1.0)
client.close(5)
''')
interpreters.destroy(one)
"""


def test_a_sub_interpreter_records(daemon: Daemon) -> None:
    pytest.importorskip("_xxsubinterpreters", reason="this Python has no such module")
    run(daemon, "-c", SUB_INTERPRETER)
    until(lambda: daemon.status()["ledger"]["counted"] == 50, "the records")


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, xybridd
client = xybridd.connect(app="green")
def work():
    for _ in range(50):
        client.record_inference("m", "1", 1.0)
        gevent.sleep(0)
gevent.joinall([gevent.spawn(work) for _ in range(4)])
assert client.flush(20)
"""


def test_greenlets_record(daemon: Daemon) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    run(daemon, "-c", GEVENT)
    until(lambda: daemon.status()["ledger"]["counted"] == 200, "the records")
