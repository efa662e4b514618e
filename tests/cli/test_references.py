"""What is made from the code says what the code says: the references in docs/, and the man page."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xybridd import config
from xybridd.cli.help import every_command
from xybridd.cli.main import cli

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs/xybridd.1"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_references_are_as_the_code_has_them(generator: ModuleType) -> None:
    for name in generator.stale():
        made, there = generator.PAGES[name]().splitlines(), (ROOT / name).read_text("utf-8").splitlines()
        differs = "\n".join(unified_diff(there, made, name, "as the code has it", lineterm="", n=1))
        raise AssertionError(f"run: make docs\n{differs}")


def test_every_key_and_every_command_stands_in_them() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    for key in config.keys(config.Config()):
        assert f"| `{key.name.partition('.')[2]}` |" in page
    commands, manual = (ROOT / "docs/commands.md").read_text(), MAN.read_text().replace("\\-", "-")
    for path, _command, _ctx in every_command(cli):
        assert f"## {path}\n" in commands
        assert path == "xybridd" or f".SS {path}\n" in manual


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_man_page_has_no_mistake_that_groff_knows() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n", str(MAN)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    assert "xybridd record inference whisper-tiny 1.0 212 --hardware gpu" in text
    assert "EXIT STATUS" in text


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_the_man_page_has_no_mistake_that_mandoc_knows() -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error", str(MAN)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
