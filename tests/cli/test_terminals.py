"""Every command at every kind of terminal: nothing fails, nothing is cut off, no escape code where nobody can read it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE_S, Daemon
from xybridd.cli.help import every_command
from xybridd.cli.main import _run, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "schildkröten-klassifikator-mit-sehr-langem-namen"
APP = "küchen-kiosk"

#: What they print is JSON, which is UTF-8 everywhere.
JSON = {"sessions export", "export"}

ESCAPE = re.compile(r"\x1b\[")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

#: Of a leaf: how it is called here. Others are called as they are; None: elsewhere, since it waits or changes things.
CALLED: dict[str, tuple[str, ...] | None] = {
    "run": None, "receive": None, "forget": None, "sessions end": None, "import": None, "top": None, "dashboard": None,
    "device record": None, "config init": ("--stdout",), "bugreport": ("--preview",), "completion": ("bash",),
    "record inference": ("m", "1", "5"), "record error": ("boom",), "export": ("--preview",), "upload now": ("--no-wait",),
    "upload dead show": ("1",), "upload dead drop": ("1", "--yes"), "upload dead replay": ("1",), "tail": None, "sessions show": ("--app", APP),
    "service install": ("--dry-run",), "service uninstall": ("--dry-run",), "service start": None,
    "service stop": None, "service restart": None, "service logs": None, "report": None,
}  # fmt: skip

LEAVES = [
    path.partition(" ")[2]
    for path, command, _ctx in every_command(cli)
    if not hasattr(command, "commands") and path != "xybridd"
]
TRIED = [leaf for leaf in (*LEAVES, "device") if CALLED.get(leaf, ()) is not None]

#: What stands at the other end: the encoding of the stream, and how wide it says that it is.
ENDS = {"pipe": ("utf-8", None), "narrow": ("utf-8", "40"), "ascii": ("ascii", None), "latin": ("iso-8859-1", None)}


@pytest.fixture(scope="module")
def used() -> Iterator[Daemon]:
    """A daemon that has something to tell, some of it long, some of it not ASCII."""
    home = Path(tempfile.mkdtemp(prefix="xyb-"))
    daemon = Daemon(home).start()
    with daemon.wire() as wire:
        wire.hello(app=APP, app_version="1.2.3")
        for number in range(5):
            wire.call("record.inference", model_id=MODEL, version="1.0", latency_ms=1000.0 * number)
        wire.call(
            "record.error", error="die Verbindung wurde abgebrochen, während das Modell geladen wurde", model_id=MODEL
        )
    yield daemon
    daemon.end()
    shutil.rmtree(home, ignore_errors=True)


def arguments_of(leaf: str) -> list[str]:
    return [*leaf.split(), *(CALLED.get(leaf) or ())]


def ran(daemon: Daemon, leaf: str, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    full = {name: value for name, value in daemon.env.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}} | env
    done = subprocess.run(
        [sys.executable, "-m", "xybridd", *arguments_of(leaf)],
        env=full, capture_output=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def ran_here(leaf: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes]:
    """In this process, into a stream of that encoding: hundreds of processes would take minutes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = _run(arguments_of(leaf))
    told = b"".join(stream.buffer.getvalue() for stream in streams)
    return code, told


@pytest.mark.parametrize("leaf", TRIED)
@pytest.mark.parametrize("end", ENDS)
def test_nothing_fails_and_no_escape_code_comes(
    used: Daemon, leaf: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, columns = ENDS[end]
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XYBRIDD_SOCKET", "XYBRIDD_DATA_DIR", "XYBRIDD_CONFIG", "HOME"):
        monkeypatch.setenv(name, used.env[name])
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    code, told = ran_here(leaf, encoding, monkeypatch)
    assert code in {0, 1, 6, 7}
    assert told
    assert b"\x1b" not in told
    is_json = leaf in JSON
    text = told.decode("utf-8" if is_json else encoding)  # fails where something of another encoding came
    # What a table has no room for it names, and says where all of it is.
    assert "…" not in text or end != "narrow" or "--csv has everything" in text, text


def test_a_locale_that_knows_ascii_alone(used: Daemon) -> None:
    code, out, err = ran(used, "sessions list", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert (code, err) == (0, b"")
    assert out.isascii()
    assert b"schildkr\\xf6ten" in out


@pytest.mark.parametrize("leaf", ["sessions show", "status", "doctor", "paths"])
def test_nothing_is_lost_where_it_is_narrow(used: Daemon, leaf: str) -> None:
    wide, narrow = (ran(used, leaf, env)[1].decode() for env in ({}, {"COLUMNS": "40"}))
    assert not re.search(r" $", wide + narrow, re.MULTILINE)
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 40
    if leaf.startswith("sessions"):
        squeezed = re.sub(r"\s", "", narrow)
        for word in (MODEL, APP):
            assert word in squeezed
            assert word in wide


def test_what_a_program_reads_is_json_whatever_the_terminal(used: Daemon) -> None:
    for leaf in ("sessions list", "status"):
        done = used.xybridd(*leaf.split(), "--json", env={"PYTHONIOENCODING": "ascii"}, encoding="utf-8")
        json.loads(done.stdout)
        assert APP in done.stdout or leaf != "sessions list"


def on_a_terminal(daemon: Daemon, *arguments: str, **env: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", *arguments],
        env={**daemon.env, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **env},
        stdin=child, stdout=child, stderr=child,
    )  # fmt: skip
    os.close(child)
    seen, deadline_s = b"", time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < deadline_s:
            if select.select([parent], [], [], 0.1)[0]:
                try:
                    piece = os.read(parent, 65_536)
                except OSError:  # the other end closed: Linux says EIO
                    break
                seen += piece
        process.wait(PATIENCE_S)
    finally:
        os.close(parent)
    return seen.decode()


@pytest.mark.parametrize("leaf", ["status", "doctor", "sessions list"])
def test_colour_on_a_terminal_alone_and_not_where_it_is_declined(used: Daemon, leaf: str) -> None:
    plain = {"NO_COLOR": "1"}
    assert re.search(r"\x1b\[3[1-6]m", on_a_terminal(used, *leaf.split()))
    declined = on_a_terminal(used, *leaf.split(), **plain)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", declined)
    assert COLOUR.sub("", declined).replace("\r\n", "\n").strip()
    assert not ESCAPE.search(on_a_terminal(used, *leaf.split(), TERM="dumb"))


def test_names_that_are_no_text(used: Daemon, tmp_path: Path) -> None:
    """Where something is may have a name with bytes that are no UTF-8."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    where = {"XYBRIDD_SOCKET": odd, "XYBRIDD_DATA_DIR": odd}
    for leaf in ("paths", "doctor", "bugreport"):
        code, _out, err = ran(used, leaf, where)
        assert code in {0, 7}, err
    told = subprocess.run(
        [sys.executable, "-m", "xybridd", "paths", "--json"], env=used.env | where, capture_output=True, check=True
    )
    assert "\ufffd\ufffd" in json.loads(told.stdout)[0]["path"]
