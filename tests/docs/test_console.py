"""What the documents show in a block of ``console`` is run, in the order of its document, against a real daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.scenes import producer
from tests.support import inference

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """Each begins with ``$ `` and goes on up to the next; one in quotes may have several lines."""
    return [
        command.strip()
        for block in _BLOCK.findall(document.read_text("utf-8"))
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]


SHOWN = [document for document in DOCUMENTS if commands(document)]


def record_something(daemon: Daemon) -> None:
    """What an app would have, so that each command has something to show."""
    wire, _ = producer(daemon, "kiosk")
    with wire:
        records = [inference("whisper-tiny", latency_ms=200 + each, stats={"output_tokens": 5}) for each in range(40)]
        records.append({"type": "error", "error": "connection refused", "model_id": "whisper-tiny"})
        wire.call("record.batch", seq=1, records=records, flush=True)
        wire.call("session.end")


@pytest.mark.parametrize("document", SHOWN, ids=lambda path: path.name)
def test_what_is_shown_does_what_it_says(document: Path, make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon = make_daemon("[upload]\nwait_while_inferring = false\n").start()
    record_something(daemon)
    bin_folder = Path(sys.executable).parent
    env = {**daemon.env, "PATH": f"{bin_folder}:{daemon.env['PATH']}", "NO_COLOR": "1"}
    for command in commands(document):
        done = subprocess.run(
            ["bash", "-c", command], env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        # `doctor` says by its exit code what it found, and a machine of tests has no service.
        allowed = {0, 6, 7} if "doctor" in command else {0}
        assert done.returncode in allowed, f"$ {command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout + done.stderr, f"{command} said nothing"
        assert "Traceback" not in done.stderr


def test_the_documents_show_enough() -> None:
    assert {document.name for document in SHOWN} >= {"quick-start.md", "recipes.md"}
    assert sum(len(commands(document)) for document in SHOWN) >= 20
