"""What each command exits with, as a table, and what it says then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE_S, until
from xybridd.cli.exit_codes import EXIT_CODES
from xybridd.cli.help import every_command
from xybridd.cli.main import _run, cli
from xybridd.core.health.finding import EXIT_CODES as BY_LEVEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

#: Commands that need a daemon, with arguments that are well formed.
NEED_A_DAEMON = (
    ("status",), ("ps",), ("models",), ("errors",), ("stats",), ("sessions", "list"), ("sessions", "show"), ("sessions", "export"), ("sessions", "end"),
    ("record", "inference", "m", "1", "5"), ("record", "error", "boom"), ("upload", "status"), ("upload", "now"),
    ("upload", "pause"), ("upload", "resume"), ("upload", "dead", "list"), ("upload", "dead", "show", "1"),
    ("upload", "dead", "drop", "1", "--yes"), ("upload", "dead", "replay", "1"), ("export", "--preview"), ("device",),
    ("device", "history"), ("advice",), ("forget", "abc", "--yes"),
)  # fmt: skip

NEED_NONE = (
    ("config", "show"), ("config", "path"), ("config", "check"), ("config", "init", "--stdout"), ("paths",),
    ("completion", "bash"), ("service", "install", "--dry-run"), ("--version",), ("--help",), ("bugreport", "--preview"),
)  # fmt: skip


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which no daemon runs."""
    home = tmp_path_factory.mktemp("home")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("XYBRID")},
        "HOME": str(home),
        "XYBRIDD_SOCKET": str(home / "s"),
        "XYBRIDD_DATA_DIR": str(home / "data"),
        "COLUMNS": "80",
    }


def called(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xybridd", *arguments],
        env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", NEED_A_DAEMON, ids=" ".join)
def test_3_no_daemon_and_the_command_that_starts_one(
    away: dict[str, str],
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("HOME", "XYBRIDD_SOCKET", "XYBRIDD_DATA_DIR"):
        monkeypatch.setenv(name, away[name])
    assert _run(list(arguments)) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "xybridd run" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("arguments", NEED_NONE, ids=" ".join)
def test_0_what_needs_no_daemon(away: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = called(away, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("path", [path for path, *_ in every_command(cli)])
def test_2_every_command_refuses_an_option_it_does_not_know(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([*path.split()[1:], "--no-such-option"]) == 2
    told = capsys.readouterr().err
    assert "--no-such-option" in told
    assert "Try 'xybridd" in told


def test_1_what_failed_says_why(daemon: Daemon) -> None:
    for arguments in (("sessions", "show", "ffff"), ("upload", "now"), ("upload", "dead", "show", "99")):
        done = daemon.xybridd(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith(("xybridd: ", "Error: "))


def test_5_a_config_that_cannot_be_used(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[storage]\nquota_mib = 'much'\n")
    for arguments in (("config", "show"), ("config", "check"), ("run",)):
        done = daemon.xybridd(*arguments)
        assert done.returncode == 5, arguments
        assert "storage.quota_mib" in done.stderr
        assert "xybridd config" in done.stderr


def test_130_interrupted(daemon: Daemon) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", "device", "--watch", "--json"], env=daemon.env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"{")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    process.stdout.close()
    until(lambda: daemon.status()["connections"] == 1, "the daemon to forget it")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_4_not_permitted_names_the_group(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[socket]\nmode = '0660'\n").start()
    for path in (daemon.folder.parent, daemon.folder):
        path.chmod(0o755)
    script = (
        "import os, sys\n"
        "from xybridd.cli.main import _run\n"
        "import xybridd.cli.status, xybridd.client.connection, xybridd.paths\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(_run(['status']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=daemon.env, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "sudo usermod -aG root nobody" in done.stderr


def test_the_table_has_every_code_once() -> None:
    codes = [each.code for each in EXIT_CODES]
    assert codes == [0, 1, 2, 3, 4, 5, 6, 7, 130]
    assert set(BY_LEVEL.values()) <= set(codes)
