"""Plans carried out, in a folder; and the command itself, as far as it goes without a service manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from xybridd.errors import ServiceError
from xybridd.units.carry_out import carry_out
from xybridd.units.plan import Plan, Remove, RemoveFolder, Run, Write

if TYPE_CHECKING:
    from pathlib import Path


def test_steps_are_carried_out_in_order_and_each_is_reported(tmp_path: Path) -> None:
    unit = tmp_path / "units" / "a.service"
    said: list[str] = []
    plan = Plan((Write(str(unit), "[Service]\n"), Run(("cp", str(unit), str(tmp_path / "seen"))), Remove(str(unit))))
    carry_out(plan, os.environ, said.append)
    assert (tmp_path / "seen").read_text() == "[Service]\n"
    assert [path.name for path in unit.parent.iterdir()] == []
    assert [line.split()[0] for line in said] == ["wrote", "ran", "removed"]


def test_a_file_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        carry_out(Plan((Write(str(tmp_path / "a"), "x"),)), os.environ, lambda _: None)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_the_first_failure_ends_it_with_the_commands_own_words(tmp_path: Path) -> None:
    never = Write(str(tmp_path / "never"), "")
    with pytest.raises(ServiceError, match="no such thing"):
        carry_out(Plan((Run(("sh", "-c", "echo no such thing >&2; exit 4")), never)), os.environ, lambda _: None)
    assert not (tmp_path / "never").exists()
    with pytest.raises(ServiceError, match="xybridd-nowhere is not there"):
        carry_out(Plan((Run(("xybridd-nowhere",)),)), os.environ, lambda _: None)


def test_what_may_fail_fails_in_silence(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "somebodys").touch()
    plan = Plan(
        (
            Run(("false",), may_fail=True),
            Run(("xybridd-nowhere",), may_fail=True),
            Remove(str(tmp_path / "gone")),
            RemoveFolder(str(tmp_path / "gone")),
            RemoveFolder(str(tmp_path / "full")),
        )
    )
    carry_out(plan, os.environ, said.append)
    assert said == []
    assert (tmp_path / "full" / "somebodys").exists()


def service(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_DATA_HOME": str(home / "data")}
    command = [sys.executable, "-m", "xybridd", "service", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.skipif(sys.platform != "linux", reason="units are Linux's")
def test_a_dry_run_shows_every_file_and_command_and_does_nothing(tmp_path: Path) -> None:
    ended = service(tmp_path, "install", "--dry-run")
    assert ended.returncode == 0
    assert f"write {tmp_path}/.config/systemd/user/xybridd.service" in ended.stdout
    assert "    ListenStream=%t/xybridd/xybridd.sock" in ended.stdout
    assert "run systemctl --user start xybridd.socket xybridd.service" in ended.stdout
    steps = json.loads(service(tmp_path, "install", "--dry-run", "--json").stdout)["steps"]
    assert [step["type"] for step in steps] == ["write", "write", "run", "run", "run"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="units are Linux's")
def test_without_a_users_systemd_it_says_what_to_do(tmp_path: Path) -> None:
    ended = service(tmp_path, "install")
    assert ended.returncode == 1
    assert "xybridd run" in ended.stderr or "loginctl" in ended.stderr or "--system" in ended.stderr
    assert not (tmp_path / ".config").exists()
    assert service(tmp_path, "status").returncode == 1
    assert "it is not installed; run:" in service(tmp_path, "start").stderr
    assert "it is not installed" in service(tmp_path, "uninstall").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="units are Linux's")
def test_a_unit_changed_by_hand_is_shown_and_kept(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/xybridd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/home/ada/mine\n")
    ended = service(tmp_path, "install", "--dry-run")
    assert ended.returncode == 1
    assert "+ExecStart=/home/ada/mine" in ended.stdout
    assert "--force" in ended.stderr
    assert unit.read_text() == "[Service]\nExecStart=/home/ada/mine\n"
