"""Completion in the real shells: what is printed is sourced there, and a word is completed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a command `xybridd` on the PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    command = tools / "xybridd"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xybridd "$@"\n')
    command.chmod(0o755)
    return tmp_path


def told(home: Path, *command: str) -> str:
    env = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "dumb"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash(home: Path) -> None:
    script = home / "completion"
    script.write_text(told(home, "xybridd", "completion", "bash"))
    ask = """
        source "$0"
        complete -p xybridd
        COMP_WORDS=(xybridd up); COMP_CWORD=1; COMPREPLY=(); _xybridd_completion xybridd; echo "${COMPREPLY[@]}"
        COMP_WORDS=(xybridd upload dead re); COMP_CWORD=3; COMPREPLY=(); _xybridd_completion xybridd; echo "${COMPREPLY[@]}"
        COMP_WORDS=(xybridd status --j); COMP_CWORD=2; COMPREPLY=(); _xybridd_completion xybridd; echo "${COMPREPLY[@]}"
    """
    lines = told(home, "bash", "--norc", "-c", ask, str(script)).splitlines()
    assert "xybridd" in lines[0]
    assert lines[1:] == ["upload", "replay", "--json"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(home: Path) -> None:
    place = home / ".config/fish/completions/xybridd.fish"
    place.parent.mkdir(parents=True)
    place.write_text(told(home, "xybridd", "completion", "fish"))
    assert told(home, "fish", "-c", "complete -C 'xybridd up'").split()[0] == "upload"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(home: Path) -> None:
    """Outside of its line editor zsh completes nothing; what would be offered is caught on the way to it."""
    folder = home / ".zfunc"
    folder.mkdir()
    (folder / "_xybridd").write_text(told(home, "xybridd", "completion", "zsh"))
    ask = """
        fpath=("$0" $fpath); autoload -Uz compinit; compinit -D -u
        [[ ${_comps[xybridd]} == _xybridd ]] || exit 9
        _describe() { print -r -- ${(P)3} }; compadd() { print -r -- ${(P)@[-1]} }
        words=(xybridd up); CURRENT=2; source "$0/_xybridd"; _xybridd_completion
    """
    assert "upload" in told(home, "zsh", "-f", "-c", ask, str(folder))


def test_a_shell_that_is_not_known(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xybridd", "completion", "tcsh"], capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "bash" in done.stderr
