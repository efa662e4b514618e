"""Carries out a plan, step by step; the only place here that changes anything."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xybridd.errors import ServiceError
from xybridd.units.plan import Plan, Remove, RemoveFolder, Run, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: A service that starts may take as long as systemd lets it (90 s), a stop and a start after it a little more.
_LIMIT_S = 150


def carry_out(plan: Plan, env: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Every step in order, each reported when it is done. Raises ServiceError at the first that fails."""
    for step in plan.steps:
        try:
            done = _carry_out(step, env)
        except OSError as error:
            where = step.command[0] if isinstance(step, Run) else step.path
            raise ServiceError(f"{where}: {error.strerror or error}") from error
        if done:
            report(done)


def _carry_out(step: Write | Remove | RemoveFolder | Run, env: Mapping[str, str]) -> str | None:
    """What was done, in words; None when there was nothing to do."""
    match step:
        case Write(path, text):
            _write(Path(path), text)
            return f"wrote {path}"
        case Remove(path):
            with suppress(FileNotFoundError):
                Path(path).unlink()
                return f"removed {path}"
        case RemoveFolder(path):
            # Not there, or not empty: then it is somebody's still.
            with suppress(OSError):
                Path(path).rmdir()
                return f"removed {path}"
        case Run(command, may_fail):
            return _run(command, env, may_fail=may_fail)
    return None


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, "utf-8")
    draft.chmod(0o644)
    draft.replace(path)


def _run(command: tuple[str, ...], env: Mapping[str, str], *, may_fail: bool) -> str | None:
    shown = " ".join(command)
    try:
        ended = run(command, env)
    except FileNotFoundError as error:
        if may_fail:
            return None
        raise ServiceError(f"{command[0]} is not there, so this could not be done: {shown}") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{shown}: no answer for {_LIMIT_S} s") from error
    if ended.returncode != 0:
        if may_fail:
            return None
        raise ServiceError(f"{shown}: {ended.stderr.strip() or f'exit code {ended.returncode}'}")
    return f"ran {shown}"


def run(command: tuple[str, ...], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A command with what it printed. Raises OSError."""
    return subprocess.run(
        command,
        env={**env, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )


def hand_over(command: tuple[str, ...], env: Mapping[str, str]) -> int:
    """A command that has the terminal to itself; its exit code."""
    try:
        return subprocess.run(command, env=dict(env), check=False).returncode
    except FileNotFoundError as error:
        raise ServiceError(f"{command[0]} is not there: {os.strerror(error.errno or 0)}") from error
