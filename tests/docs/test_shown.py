"""Every command that stands in a document or as an example in a ``--help`` is run, once, against a real daemon.

What needs a person's machine, or goes on until somebody stops it, is named in `ELSEWHERE` with what runs it instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.outward import ended, sending_to, sinks, told, until_idle
from tests.docs.test_console import DOCUMENTS, ROOT, record_something
from tests.support import until
from xybridd.testing import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver

_SHOWN = re.compile(r"^(?: {4,}| *Example:  )((?:sudo |[A-Z_]+=\S+ )?xybridd [^\n]+)$", re.MULTILINE)

#: The beginning of a command, and the tests that run it.
ELSEWHERE = {
    "sudo": "tests/system",  # on a Debian that is booted for it
    "xybridd service": "tests/system",
    "xybridd run": "tests/daemon/test_process.py",
    "XYBRID_INGEST_URL=": "tests/daemon/test_targets.py",
    "XYBRID_API_KEY=": "tests/daemon/test_targets.py",
    "xybridd dashboard": "tests/report/test_dashboard.py",
    "xybridd receive": "tests/cli/test_receive.py",
    "xybridd tail": "tests/cli/test_tail.py",
    "xybridd completion": "tests/cli/test_completion.py",
}

#: Goes on until it is stopped, unless it is told when to end.
BOUNDED = {"xybridd top": "--once", "xybridd sessions show --watch": "--for 0.2"}


def commands() -> list[str]:
    """Each once, without what is said behind it."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        for shown in _SHOWN.findall(document.read_text("utf-8")):
            found[re.split(r"\s+#\s|\s{3,}", shown)[0].strip()] = None
    return list(found)


def elsewhere(command: str) -> str | None:
    return next((tests for begins, tests in ELSEWHERE.items() if command.startswith(begins)), None)


def made_real(command: str, session_id: str, dead: str, stick: Path) -> str:
    """With what is there in place of what stands for it."""
    command = command.replace("SESSION", session_id[:8]).replace("65c1c79a", session_id[:8])
    command = (
        re.sub(r"\b17\b", dead, command)
        .replace("/media/stick", str(stick))
        .replace("./config.toml", '"$XYBRIDD_CONFIG"')
    )
    if command.startswith(("xybridd forget", "xybridd upload dead drop")) and "--yes" not in command:
        command += " --yes"
    for begins, end in BOUNDED.items():
        if command.startswith(begins) and end not in command:
            command += f" {end}"
    return command


def prepared(make_daemon: Callable[..., Daemon], receiver: Receiver, stick: Path) -> Daemon:
    """A daemon that has sessions, four dead letters, and a stick with a file from another device."""
    receiver.misbehave(Behaviour("status", times=None, status=422))
    daemon = sending_to(make_daemon, receiver)
    ended(daemon, 4)
    until(lambda: sinks(daemon)["xybrid"]["dead"] == 4, "four dead letters")
    receiver.misbehave()
    record_something(daemon)
    until_idle(daemon)
    stick.mkdir()
    assert daemon.xybridd("export", "--to", str(stick / "other.jsonl")).returncode == 0
    return daemon


def test_what_is_shown_anywhere_runs(make_daemon: Callable[..., Daemon], receiver: Receiver, folder: Path) -> None:
    stick = folder / "stick"
    daemon = prepared(make_daemon, receiver, stick)
    env = {**daemon.env, "PATH": f"{Path(sys.executable).parent}:{daemon.env['PATH']}", "NO_COLOR": "1"}
    here = [each for each in commands() if elsewhere(each) is None]
    # What is replayed, dropped or deleted is gone for those behind it.
    ordered = sorted(here, key=lambda each: ("forget" in each, "replay" in each, "drop" in each, "--all" in each))
    for command in ordered:
        dead = str(told(daemon, "upload", "dead", "list")[0]["export_id"]) if "17" in command else ""
        (stick / "kiosk-7.jsonl").unlink(missing_ok=True)
        (stick / "exports.jsonl").unlink(missing_ok=True)
        real = made_real(command, ended(daemon)[0] if "forget" in command else active(daemon), dead, stick)
        done = subprocess.run(
            ["bash", "-c", real], env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        # `doctor` says by its exit code what it found, and a machine of tests has no service.
        allowed = {0, 6, 7} if "doctor" in command else {0}
        assert done.returncode in allowed, f"$ {real}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, real


def active(daemon: Daemon) -> str:
    with daemon.wire() as wire:
        return str(wire.call("record.inference", model_id="m", version="1", latency_ms=1)["session_id"])


def test_what_is_run_elsewhere_is() -> None:
    shown = commands()
    assert len(shown) >= 70
    for begins, tests in ELSEWHERE.items():
        assert (ROOT / tests).exists(), tests
        assert any(command.startswith(begins) for command in shown), begins
