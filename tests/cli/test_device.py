"""``xybridd device``: live, explained, recorded and replayed."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.probes.machines import machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon


def test_what_was_found_how_sure_and_from_where(daemon: Daemon) -> None:
    shown = daemon.xybridd("device").stdout
    assert "/proc/meminfo" in shown
    assert "advice:" in shown
    found = json.loads(daemon.xybridd("device", "--json").stdout)
    assert found["details"]["cpu_cores"]["source"] == "/proc/stat"


def test_explain_shows_every_path_and_needs_no_daemon(make_daemon: Callable[..., Daemon]) -> None:
    done = make_daemon().xybridd("device", "--explain")
    assert done.returncode == 0
    assert "/proc/meminfo: MemTotal" in done.stdout


def test_a_machine_is_recorded_and_replayed(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon, out = make_daemon(), folder / "machine.tar"
    done = daemon.xybridd("device", "record", str(out))
    assert done.returncode == 0, done.stderr
    assert f"xybridd device --root {out}" in done.stdout
    with tarfile.open(out) as tar:
        assert "proc/meminfo" in tar.getnames()
        assert all(not name.startswith("/") for name in tar.getnames())
    here = json.loads(daemon.xybridd("device", "--explain", "--json").stdout)
    there = json.loads(daemon.xybridd("device", "--root", str(out), "--json").stdout)
    assert there["memory_total_mb"] == here["memory_total_mb"]
    assert there["cpu_cores"] == here["cpu_cores"]
    assert there["details"]["gpu"]["value"] == here["details"]["gpu"]["value"]


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "the same without its driver",
            ["present ✓ → driver → permitted → usable", "no driver is bound: install or load nvidia"],
        ),
        ("Coral on USB before its firmware", ["present ✓ → driver ✓ → permitted ✓ → usable"]),
        (
            "Core Ultra laptop",
            ["held back: thermal", "80 %, Not charging", "8.0 GiB of 16.0 GiB available", "TCPU 58 °C"],
        ),
        ("sensors that say what cannot be", ["cpu0-thermal no answer"]),
        ("MacBook with Apple silicon", ["Apple Neural Engine (16 cores)", "64 %, Discharging", "9 % busy"]),
    ],
)
def test_what_is_missing_and_how_to_mend_it(
    make_daemon: Callable[..., Daemon], folder: Path, name: str, lines: list[str], columns: str
) -> None:
    given = machine(folder / "machine", name)
    done = make_daemon().xybridd("device", "--root", given.root, env={"COLUMNS": columns})
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line not in done.stdout] == []
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= int(columns)


def test_what_is_no_recorded_tree_is_said(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    (folder / "junk").write_bytes(b"\xff" * 100)
    done = make_daemon().xybridd("device", "--root", str(folder / "junk"))
    assert done.returncode == 1
    assert "is no recorded tree" in done.stderr
