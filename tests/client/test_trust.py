"""What another user put in the daemon's place is told nothing. Root, since processes must become somebody else."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE_S
from xybridd.client import trust
from xybridd.client.connection import Connection
from xybridd.errors import DaemonUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADA, EVE, DAEMON = 64001, 64002, 64003

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")

#: Listens as a user at a path, says so, and prints all that it is told.
LISTENER = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX); sock.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); sock.listen()
print("listens", flush=True)
while True:
    peer, _ = sock.accept()
    while data := peer.recv(4096):
        print(data, flush=True)
    print("closed", flush=True)
"""

#: Becomes a user, connects as our client does, and prints why it does not, or "sent".
CLIENT = """
import os, sys
from pathlib import Path
from xybridd.client.connection import Connection
from xybridd.errors import DaemonUnreachable
uid = int(sys.argv[2])
if uid != os.getuid():
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
try:
    connection = Connection.open((Path(sys.argv[1]),))
except DaemonUnreachable as error:
    print(error)
else:
    connection.send("hello", b"{}")
    print("sent")
"""


class Listener:
    def __init__(self, path: Path, uid: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LISTENER, str(path), str(uid)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        assert self.stdout.readline() == "listens\n"

    def heard(self) -> str:
        """What it was told until its peer went."""
        assert select.select([self.stdout], [], [], PATIENCE_S)[0]
        line = self.stdout.readline()
        return "" if line == "closed\n" else line

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder that only root may write, in one that only root may write."""
    folder.chmod(0o755)
    above = folder / "run"
    above.mkdir(mode=0o755)
    above.chmod(0o755)
    return above


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    made: list[Listener] = []
    yield made
    for each in made:
        each.end()


def folder_of(place: Path, name: str, uid: int, mode: int = 0o755) -> Path:
    made = place / name
    made.mkdir()
    made.chmod(mode)
    os.chown(made, uid, uid)
    return made


def connect(path: Path, uid: int = ADA) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(path), str(uid)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout.strip()


@root
def test_a_socket_that_another_user_planted_in_tmp_is_told_nothing(place: Path, listeners: list[Listener]) -> None:
    tmp = folder_of(place, "tmp", 0, 0o1777)
    path = tmp / "s"
    listeners.append(Listener(path, EVE))
    said = connect(path)
    assert f"another user (uid {EVE})" in said
    assert "XYBRIDD_SOCKET" in said
    assert listeners[0].heard() == ""


@root
def test_a_runtime_folder_that_another_user_made_first_is_told_nothing(place: Path, listeners: list[Listener]) -> None:
    tmp = folder_of(place, "tmp", 0, 0o1777)
    planted = folder_of(tmp, f"runtime-{ADA}", EVE)
    listeners.append(Listener(planted / "s", EVE))
    assert f"its folder belongs to another user (uid {EVE})" in connect(planted / "s")
    assert listeners[0].heard() == ""


@root
def test_a_folder_that_everybody_may_write_is_no_place_for_a_socket(place: Path, listeners: list[Listener]) -> None:
    open_to_all = folder_of(place, "open", ADA, 0o777)
    listeners.append(Listener(open_to_all / "s", ADA))
    assert f"chmod o-w {open_to_all}" in connect(open_to_all / "s")
    assert listeners[0].heard() == ""


@root
def test_a_link_that_another_user_made_is_not_followed(place: Path, listeners: list[Listener]) -> None:
    own = folder_of(place, "own", ADA)
    listeners.append(Listener(own / "s", ADA))
    tmp = folder_of(place, "tmp", 0, 0o1777)
    link = tmp / "link"
    link.symlink_to(own / "s")
    os.lchown(link, EVE, EVE)
    assert "a link that another user" in connect(link)
    assert listeners[0].heard() == ""
    os.lchown(link, ADA, ADA)
    assert connect(link) == "sent"


@root
def test_who_listens_counts_whoever_owns_the_file(place: Path, listeners: list[Listener]) -> None:
    """The daemon's file, but somebody else took its place behind it: as a file system's owner may."""
    own = folder_of(place, "own", EVE)
    listeners.append(Listener(own / "s", EVE))
    os.chown(own / "s", ADA, ADA)
    os.chown(own, ADA, ADA)
    assert f"another user (uid {EVE}) listens there" in connect(own / "s")
    assert listeners[0].heard() == ""


@root
@pytest.mark.parametrize("who", [ADA, 0])
def test_ones_own_daemon_and_roots_are_trusted(place: Path, listeners: list[Listener], who: int) -> None:
    own = folder_of(place, "own", who)
    listeners.append(Listener(own / "s", who))
    assert connect(own / "s") == "sent"
    assert '"hello"' in listeners[0].heard()


@root
def test_the_systems_daemon_is_trusted_in_the_folder_that_root_made_for_it(
    place: Path, listeners: list[Listener]
) -> None:
    """As with `RuntimeDirectory=xybridd`: the daemon's own user listens in a folder of its own in root's /run."""
    run = folder_of(place, "xybridd", DAEMON)
    listeners.append(Listener(run / "s", DAEMON))
    assert connect(run / "s") == "sent"
    # In a place where anybody can make such a folder, that proves nothing.
    place.chmod(0o1777)
    assert "belongs to another user" in connect(run / "s")


@root
def test_who_is_named_is_trusted(place: Path, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    tmp = folder_of(place, "tmp", 0, 0o1777)
    listeners.append(Listener(tmp / "s", EVE))
    monkeypatch.setenv("XYBRIDD_TRUSTED_UID", str(EVE))
    assert connect(tmp / "s") == "sent"


def test_a_connection_to_ourselves_is_ours(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
        server.listen()
        connection = Connection.open((folder / "s",))
        assert trust.listener_uid(connection._sock) == os.geteuid()
        connection.close()
        folder.chmod(folder.stat().st_mode | stat.S_IWOTH)
        with pytest.raises(DaemonUnreachable, match="everybody may write"):
            Connection.open((folder / "s",))
