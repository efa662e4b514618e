"""What a service manager gives and hears: a socket that it holds, and signs of life."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, new_id, producer
from tests.daemon.test_stuck_disk import held
from tests.support import Daemon, Wire, readable, until
from xybridd.daemon.handed import _launchd_fd, handed_over
from xybridd.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Does what systemd does between fork and exec.
HAND_OVER = """
import os, sys
fd = int(sys.argv[1])
if fd != 3:
    os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "xybridd", "run"])
"""


class Held(Daemon):
    """A daemon that is handed a socket which somebody else made, and goes on holding."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        super().__init__(folder)
        self.held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.held.bind(str(self.socket))
        self.held.listen(64)
        self.count = count
        del self.env["XYBRIDD_SOCKET"]

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, str(self.held.fileno()), str(self.count)],
                env=self.env,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=(self.held.fileno(),),
            )


@pytest.fixture
def manager(folder: Path) -> Iterator[Held]:
    daemon = Held(folder)
    yield daemon
    daemon.end()
    daemon.held.close()


def test_it_listens_at_the_socket_that_it_is_handed(manager: Held) -> None:
    manager.start()
    wire, _ = producer(manager)
    with wire:
        batch(wire, 1)
    assert str(manager.socket) in manager.said()


def test_who_connects_while_it_is_away_is_answered_by_the_next(manager: Held) -> None:
    """An upgrade: nobody is ever refused, and what is sent meanwhile waits in the kernel."""
    client_id = new_id()
    manager.start()
    wire, session_id = producer(manager, client_id=client_id)
    with wire:
        batch(wire, 1)
    assert manager.stop() == 0
    assert manager.socket.exists()
    with Wire(manager.socket) as early:
        sent = early.send("hello", app="test", client_id=client_id)
        manager.start()
        assert early.answer_to(sent)["last_seq"] == 1
        assert batch(early, 2)["session_id"] == session_id


def test_a_kill_leaves_the_socket_too(manager: Held) -> None:
    manager.start()
    manager.kill()
    with Wire(manager.socket) as early:
        sent = early.send("daemon.status")
        manager.start()
        assert early.answer_to(sent)["state"] == "ok"


def test_a_place_that_is_named_comes_first(manager: Held) -> None:
    manager.env["XYBRIDD_SOCKET"] = str(manager.folder / "named")
    manager.start()
    with Wire(manager.folder / "named") as wire:
        assert wire.call("daemon.status")["pid"] == manager.pid
    assert "is left alone" in manager.said()


def test_the_same_place_by_name_and_by_hand_is_one(manager: Held) -> None:
    manager.env["XYBRIDD_SOCKET"] = str(manager.socket)
    manager.start()
    assert manager.status()["pid"] == manager.pid
    assert "is left alone" not in manager.said()


def test_several_sockets_are_refused(manager: Held) -> None:
    manager.count = 2
    manager.launch()
    assert manager.process is not None
    assert manager.process.wait(30) == 1
    assert "one is expected" in manager.said()


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "me"}]
)
def test_what_is_meant_for_others_is_not_taken(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert handed_over() is None
    assert "LISTEN_FDS" not in os.environ


def activate(found: dict[bytes, list[int]]) -> Callable[[bytes, Any, Any], int]:
    """launch_activate_socket(3) of a launchd that holds these: ENOENT for any other name."""
    kept: list[Any] = []

    def call(name: bytes, fds: Any, count: Any) -> int:
        if name not in found:
            return 2
        numbers = (ctypes.c_int * len(found[name]))(*found[name])
        kept.append(numbers)
        ctypes.cast(fds, ctypes.POINTER(ctypes.POINTER(ctypes.c_int)))[0] = ctypes.cast(
            numbers, ctypes.POINTER(ctypes.c_int)
        )
        ctypes.cast(count, ctypes.POINTER(ctypes.c_size_t))[0] = len(numbers)
        return 0

    return call


def test_launchd_is_asked_by_name() -> None:
    assert _launchd_fd(activate({b"Listener": [7]})) == 7
    assert _launchd_fd(activate({b"Other": [7]})) is None
    assert _launchd_fd(activate({b"Listener": []})) is None


def test_something_else_than_a_listening_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as deaf:
        monkeypatch.setattr("xybridd.daemon.handed._systemd_fd", deaf.fileno)
        with pytest.raises(StartError, match="no listening Unix stream socket"):
            handed_over()


# Signs of life


@pytest.fixture
def notify(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.bind(str(folder / "n"))
        yield sock


def heard(notify: socket.socket, wanted: bytes) -> None:
    while wanted not in notify.recv(4096):
        pass


def watched(make_daemon: Callable[..., Daemon], folder: Path) -> Daemon:
    """Watched twice as often as its disk may be stuck."""
    return make_daemon("", {"NOTIFY_SOCKET": str(folder / "n"), "WATCHDOG_USEC": "600000"}).start()


def test_it_shows_life_again_and_again(make_daemon: Callable[..., Daemon], folder: Path, notify: socket.socket) -> None:
    watched(make_daemon, folder)
    for _ in range(3):
        heard(notify, b"WATCHDOG=1")


def test_it_shows_no_life_while_its_database_thread_is_stuck(
    make_daemon: Callable[..., Daemon], folder: Path, notify: socket.socket
) -> None:
    daemon = watched(make_daemon, folder)
    wire, _ = producer(daemon)
    with wire:
        with held(daemon):
            wire.send("record.batch", seq=1, records=[], flush=True)
            wire.send("session.end")
            # The thread waits five seconds for the lock: what was said before that is read, then nothing comes.
            until(lambda: not readable(notify, 2.0) or not notify.recv(4096), "silence")
        heard(notify, b"WATCHDOG=1")


def test_without_a_watchdog_nobody_is_told(
    make_daemon: Callable[..., Daemon], folder: Path, notify: socket.socket
) -> None:
    make_daemon("", {"NOTIFY_SOCKET": str(folder / "n")}).start()
    heard(notify, b"STATUS=listens at")
    assert not readable(notify, 1.0)
