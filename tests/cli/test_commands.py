"""The commands as a person or a script meets them: real processes, what they print, how they exit."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.support import PATIENCE_S, inference, until
from xybridd.client.connection import Connection
from xybridd.errors import DaemonUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon


def recorded(daemon: Daemon, *arguments: str) -> Any:
    done = daemon.xybridd("record", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_records_from_a_shell_are_one_session(daemon: Daemon) -> None:
    first = recorded(daemon, "inference", "whisper", "1.0", "212.5", "--hardware", "gpu", "--tokens-per-second", "40")
    second = recorded(daemon, "error", "CUDA out of memory", "--model", "whisper")
    assert first["session_id"] == second["session_id"]
    assert second["category"] == "Hardware"
    found = json.loads(daemon.xybridd("sessions", "show", "--json").stdout)
    assert found["session_id"] == first["session_id"]
    assert found["total_latency_ms"] == 213
    assert found["by_model"]["whisper@1.0"]["error_count"] == 1


def test_what_people_see_of_a_session(daemon: Daemon) -> None:
    recorded(daemon, "inference", "whisper", "1.0", "212")
    recorded(daemon, "error", "[red]boom\x1b[31m", "--category", "network")
    shown = daemon.xybridd("sessions", "show").stdout
    assert "whisper@1.0" in shown
    assert "[red]boom·[31m" in shown
    assert "\x1b" not in shown
    listed = daemon.xybridd("sessions", "list").stdout
    assert "active" in listed
    assert "whisper" in listed


def test_an_unused_daemon_says_what_to_do_next(daemon: Daemon) -> None:
    assert "xybridd record inference" in daemon.xybridd("sessions", "list").stdout
    done = daemon.xybridd("sessions", "show")
    assert done.returncode == 1
    assert "xybridd record inference" in done.stderr


def test_a_session_is_found_by_its_first_characters(daemon: Daemon) -> None:
    session_id = recorded(daemon, "inference", "m", "1", "5")["session_id"]
    shown = daemon.xybridd("sessions", "export", session_id[:6])
    assert json.loads(shown.stdout)["session"]["session_id"] == session_id
    missing = daemon.xybridd("sessions", "show", "zz")
    assert missing.returncode == 1
    assert "xybridd sessions list" in missing.stderr


def test_end_says_what_it_ended_and_ends_once(daemon: Daemon) -> None:
    session_id = recorded(daemon, "inference", "m", "1", "5")["session_id"]
    assert f"ended {session_id}: 1 calls, 0 errors" in daemon.xybridd("sessions", "end").stdout
    again = daemon.xybridd("sessions", "end", session_id)
    assert again.returncode == 1
    assert "has ended" in again.stderr
    listed = json.loads(daemon.xybridd("sessions", "list", "--ended", "--json").stdout)
    assert [each["end_reason"] for each in listed] == ["ended"]


def test_status_for_people_and_programs(daemon: Daemon) -> None:
    recorded(daemon, "inference", "m", "1", "5")
    found = json.loads(daemon.xybridd("status", "--json").stdout)
    assert found["state"] == "ok"
    assert found["pid"] == daemon.pid
    shown = daemon.xybridd("status").stdout
    assert "1 received = 1 counted" in shown
    assert "1 of 1 sessions active" in shown


@pytest.mark.parametrize(
    "command",
    [["status"], ["sessions", "list"], ["sessions", "show", "--watch"], ["record", "error", "x"]],
    ids=" ".join,
)
def test_without_a_daemon_every_command_exits_3_with_one_helpful_line(
    make_daemon: Callable[..., Daemon], command: list[str]
) -> None:
    done = make_daemon().xybridd(*command)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "xybridd run" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["nonsense"], ["record", "inference", "m"], ["record", "inference", "m", "1", "fast"], ["sessions", "--nope"]],
    ids=" ".join,
)
def test_wrong_usage_exits_2(make_daemon: Callable[..., Daemon], command: list[str]) -> None:
    done = make_daemon().xybridd(*command)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_what_the_daemon_refuses_is_said_and_exits_1(daemon: Daemon) -> None:
    done = daemon.xybridd("record", "inference", "m", "1", "nan")
    assert done.returncode == 1
    assert "$.params.latency_ms" in done.stderr


def test_config_shows_checks_and_says_where(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[storage]\nquota_mib = 8\n[sesion]\nidle_timeout_s = 5\n")
    shown = daemon.xybridd("config", "show")
    assert "storage.quota_mib" in shown.stdout
    assert "did you mean session?" in shown.stderr
    assert json.loads(daemon.xybridd("config", "show", "--json").stdout)["storage.quota_mib"] == 8
    assert str(daemon.config) in daemon.xybridd("config", "path").stdout
    assert "is sound" in daemon.xybridd("config", "check").stdout


def test_a_config_file_is_written_once(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config.unlink()
    assert str(daemon.config) in daemon.xybridd("config", "init").stdout
    assert daemon.xybridd("config", "check").returncode == 0
    daemon.config.write_text("[log]\nlevel = 'debug'\n")
    again = daemon.xybridd("config", "init")
    assert (again.returncode, "--force" in again.stderr) == (1, True)
    assert "debug" in daemon.config.read_text()
    assert daemon.xybridd("config", "init", "--force").returncode == 0
    assert daemon.xybridd("config", "init", "--stdout").stdout == daemon.config.read_text()


def test_a_bad_config_exits_5_and_names_file_key_and_value(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[storage]\nquota_mib = 'much'\n")
    for command in (["config", "check"], ["run"]):
        done = daemon.xybridd(*command)
        assert done.returncode == 5
        assert f"{daemon.config}: storage.quota_mib = 'much': expected" in done.stderr


@pytest.mark.parametrize("command", ["", "run", "status", "sessions", "sessions show", "record inference", "config"])
def test_help_fits_a_screen(make_daemon: Callable[..., Daemon], command: str) -> None:
    done = make_daemon().xybridd(*command.split(), "--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_version(make_daemon: Callable[..., Daemon]) -> None:
    assert make_daemon().xybridd("--version").stdout == f"xybridd {xybridd.__version__}\n"


def test_watch_on_a_terminal_is_live_and_ends_with_ctrl_c(daemon: Daemon) -> None:
    recorded(daemon, "inference", "m", "1", "5")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", "sessions", "show", "--watch", "--every", "0.1"],
        env={**daemon.env, "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with daemon.wire() as wire:
        wire.hello("another")
        while b"1 calls" not in seen.replace(b"\x1b[1m", b"").replace(b"\x1b[0m", b""):
            seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    os.close(ours)
    assert b"Traceback" not in seen


def test_watch_without_a_terminal_is_bounded_lines(daemon: Daemon) -> None:
    recorded(daemon, "inference", "m", "1", "5")
    done = daemon.xybridd("sessions", "show", "--watch", "--every", "0.1", "--for", "0.3")
    assert done.returncode == 0
    assert done.stdout.count("1 calls, avg 5 ms, 0 errors") >= 3
    assert "m@1" in done.stdout


def test_a_pipe_that_closes_is_no_traceback(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello()
        wire.call("session.start")
        wire.call("record.batch", seq=1, records=[inference(f"m{number}") for number in range(900)], flush=True)
    command = f"{sys.executable} -m xybridd sessions show --json | head -1"
    done = subprocess.run(
        ["sh", "-c", command], env=daemon.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout.startswith("{")
    assert done.stderr == ""


def test_a_daemon_that_hangs_is_said_to_hang(daemon: Daemon) -> None:
    daemon.signal(signal.SIGSTOP)
    connection = Connection.open([daemon.socket])
    with pytest.raises(DaemonUnreachable, match="hangs"):
        connection.call("daemon.status", timeout_s=0.1)
    connection.close()
    daemon.signal(signal.SIGCONT)
    until(lambda: daemon.status()["connections"] == 1, "it to go on")


def test_paths_name_the_folder_of_rings(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path), "XYBRIDD_DATA_DIR": ""}

    def listed(env: dict[str, str]) -> dict[str, str]:
        return {each["what"]: each["path"] for each in json.loads(daemon.xybridd("paths", "--json", env=env).stdout)}

    assert listed(runtime)["rings"] == str(tmp_path / "xybridd" / "rings")
    apart = listed({})
    assert apart["rings"] == apart["spool"] == str(daemon.data / "spool")
