"""The units and the plists say the same, and the wheel carries them byte for byte."""

from __future__ import annotations

import configparser
import plistlib
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from xybridd.daemon.handed import LAUNCHD_NAME
from xybridd.paths import SUN_PATH_BYTES
from xybridd.units.shipped import plist_for, shipped, unit_for

ROOT = Path(__file__).parents[2]


class Said(msgspec.Struct, frozen=True):
    """What a service manager is told, whichever it is."""

    command: tuple[str, ...]
    socket: str
    mode: int
    comes_back: bool
    starts_at_boot: bool
    in_background: bool
    stops_within_s: int


def by_systemd(folder: str) -> Said:
    service, socket = unit(f"{folder}/xybridd.service"), unit(f"{folder}/xybridd.socket")
    told = service["Service"]
    return Said(
        command=tuple(shlex.split(told["ExecStart"])[1:]),
        socket=socket["Socket"]["ListenStream"],
        mode=int(socket["Socket"]["SocketMode"], 8),
        comes_back=told["Restart"] == "on-failure",
        starts_at_boot=service["Install"]["WantedBy"] in {"multi-user.target", "default.target"},
        in_background=told["IOSchedulingClass"] == "idle" and int(told["CPUWeight"]) < 100 and told["Nice"] == "5",
        stops_within_s=int(told["TimeoutStopSec"]),
    )


def by_launchd(name: str) -> Said:
    told = plistlib.loads(shipped(f"launchd/dev.xybrid.xybridd.{name}.plist").encode())
    listener = told["Sockets"][LAUNCHD_NAME]
    return Said(
        command=tuple(told["ProgramArguments"][1:]),
        socket=listener["SockPathName"],
        mode=listener["SockPathMode"],
        comes_back=told["KeepAlive"],
        starts_at_boot=told["RunAtLoad"],
        in_background=told["ProcessType"] == "Background" and told["LowPriorityBackgroundIO"] and told["Nice"] == 5,
        stops_within_s=told["ExitTimeOut"],
    )


def unit(name: str) -> Any:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # systemd tells capitals apart
    parser.read_string(shipped(name))
    return parser


def expected(socket: str, mode: int) -> Said:
    return Said(("run",), socket, mode, comes_back=True, starts_at_boot=True, in_background=True, stops_within_s=10)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (lambda: by_systemd("systemd"), expected("/run/xybridd/xybridd.sock", 0o660)),
        (lambda: by_systemd("systemd/user"), expected("%t/xybridd/xybridd.sock", 0o600)),
        (lambda: by_launchd("daemon"), expected("/var/run/xybridd.sock", 0o660)),
        (lambda: by_launchd("agent"), expected("~/Library/Caches/TemporaryItems/xybridd/xybridd.sock", 0o600)),
    ],
    ids=["system", "user", "daemon", "agent"],
)
def test_every_manager_is_told_the_same(said: Any, wanted: Said) -> None:
    assert said() == wanted
    assert len(wanted.socket.encode()) < min(SUN_PATH_BYTES, 104)


def test_what_must_stay_open_for_a_probe_says_so() -> None:
    lines = shipped("systemd/xybridd.service").splitlines()
    for option in (
        "PrivateDevices=no",
        "PrivateNetwork=no",
        "PrivateUsers=no",
        "ProtectProc=default",
        "ProcSubset=all",
    ):
        above = lines[lines.index(option) - 1]
        assert above.startswith("# "), option


def test_a_command_is_written_as_systemd_reads_it() -> None:
    text = unit_for(shipped("systemd/xybridd.service"), ("/opt/my apps/100%/python", "-m", "a$b"))
    assert 'ExecStart="/opt/my apps/100%%/python" -m a$$b run\n' in text
    assert "/usr/bin/xybridd" not in text


def test_a_plist_gets_command_home_and_group() -> None:
    text = plist_for(shipped("launchd/dev.xybrid.xybridd.agent.plist"), ("/a&b/xybridd",), "/Users/ada", None)
    told = plistlib.loads(text.encode())
    assert told["ProgramArguments"] == ["/a&b/xybridd", "run"]
    assert told["Sockets"]["Listener"]["SockPathName"].startswith("/Users/ada/Library/")
    assert told["StandardErrorPath"] == "/Users/ada/Library/Logs/xybridd.log"
    daemon = plist_for(shipped("launchd/dev.xybrid.xybridd.daemon.plist"), ("/x",), "/var/root", 399)
    assert plistlib.loads(daemon.encode())["Sockets"]["Listener"]["SockPathGroup"] == 399


def test_the_wheel_carries_them_as_they_are(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=100, stdin=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = {name: packed.read(name) for name in packed.namelist() if "/units/files/" in name}
        manual = [packed.read(name) for name in packed.namelist() if name.endswith("/share/man/man1/xybridd.1")]
    files = [path for folder in ("systemd", "launchd") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) == 7
    assert manual == [(ROOT / "docs/xybridd.1").read_bytes()]
    assert inside == {f"xybridd/units/files/{path.relative_to(ROOT)}": path.read_bytes() for path in files}
