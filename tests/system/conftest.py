"""One machine for all of these tests: made, booted, installed on by the command an operator would type."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import tree
from tests.system.machine import XYBRIDD, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What stood where before anything was installed; filled by the fixture.
BEFORE: dict[str, str] = {}

KEY = "key-of-the-test-4711"


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The service of the system is installed, and runs; kiosk is in the group xybrid, stranger is not."""
    why_not = tree.obstacle()
    if why_not:
        pytest.skip(why_not)
    tree.CACHE.mkdir(parents=True, exist_ok=True)
    try:
        tree.base()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no Debian could be made here: {error}")
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir=tree.CACHE))
    machine = Machine(folder / "tree", folder / "console")
    try:
        tree.copy(machine.tree)
        (folder / "wheel").mkdir()
        tree.install(machine.tree, folder / "wheel")
        shutil.copy(Path(__file__).with_name("load.py"), machine.tree / "opt" / "load.py")
        try:
            machine.boot()
        except AssertionError as error:  # nothing of ours runs yet
            pytest.skip(f"no system boots here: {error}")
        for user in ("kiosk", "stranger"):
            machine.run("useradd", "--create-home", user)
        BEFORE.update(standing(machine))
        install(machine)
        yield machine
    finally:
        machine.power_off()
        shutil.rmtree(folder, ignore_errors=True)


def install(machine: Machine) -> None:
    machine.run(XYBRIDD, "service", "install", "--system")
    machine.run("usermod", "--append", "--groups", "xybrid", "kiosk")


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves no drop-in behind, and a daemon that runs."""
    yield
    if "machine" in request.fixturenames:
        machine: Machine = request.getfixturevalue("machine")
        machine.drop_in("")
        machine.run("systemctl", "restart", "xybridd.service")


def standing(machine: Machine) -> dict[str, str]:
    """Every path where an installation could leave something, with what stands there."""
    script = (
        "cd / && find etc run/systemd/system run/xybridd usr/lib/systemd var/lib/xybridd home "
        "-not -path '*/.cache/*' 2>/dev/null | sort | while read -r p; do "
        'if [ -f "$p" ] && [ ! -L "$p" ]; then sha256sum "$p"; else echo "- $p"; fi; done'
    )
    lines = machine.run("sh", "-c", script, check=False).stdout.splitlines()
    return {path.strip(): mark for mark, _, path in (line.partition(" ") for line in lines) if path}
