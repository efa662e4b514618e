"""``xybridd receive`` at a desk: what arrives is printed, and Ctrl-C sums it up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support import PATIENCE_S
from tests.upload.given import KEY, deletion_item, job, outcomes, session_item, target

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def receive(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, listening at an address; it is ended whatever happens."""
    command = [sys.executable, "-m", "xybridd", "receive", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said
            yield process, found[0]
        finally:
            process.kill()


def interrupted(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """Its lines, and what it said in the end."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    return out.splitlines(), err


def test_a_line_for_each_event_and_a_summary() -> None:
    with receive("--key", KEY) as (process, url):
        first = job(url, session_item("a-session", revision=2), deletion_item("b-session"))
        wrong = job(target(url, key="wrong"))
        assert [found.status for found in outcomes(first, first, wrong)] == [200, 200, 401]
        lines, summary = interrupted(process)
    assert len(lines) == 3
    assert "SessionExport  a-session  revision 2  app 1.2  1 inferences, 1 errors" in lines[0]
    assert "SessionDeletion  b-session" in lines[1]
    assert "repeat" in lines[2]
    assert "2 events of 2 sessions and 0 points in 1 batches; 1 repeats, 1 refused, 3 requests" in summary


def test_json_for_programs() -> None:
    with receive("--json") as (process, url):
        given = job(url, session_item("a-session"))
        outcomes(given, given)
        lines, _ = interrupted(process)
    rows = [json.loads(line) for line in lines]
    assert [row["repeat"] for row in rows] == [False, True]
    assert rows[0]["idempotency_key"] == given.key
    assert rows[0]["event"]["session_id"] == "a-session"


def test_what_comes_from_outside_does_not_move_the_terminal() -> None:
    with receive() as (process, url):
        outcomes(job(url, deletion_item("\x1b[2Jgone")))
        lines, _ = interrupted(process)
    assert "·[2Jgone" in lines[0]


def test_a_port_that_is_taken() -> None:
    with receive() as (_, url):
        port = url.rpartition(":")[2]
        command = [sys.executable, "-m", "xybridd", "receive", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "cannot listen at" in done.stderr
