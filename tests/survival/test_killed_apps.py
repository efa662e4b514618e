"""An app is killed in the midst of its calls, with and without its daemon: every call that returned is counted, once.

``XYBRIDD_APP_KILLS`` says how often an app dies alone (12), ``XYBRIDD_BOTH_KILLS`` how often both do (4).
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import until
from tests.survival.killed_app import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon

APP_KILLS = int(os.environ.get("XYBRIDD_APP_KILLS", "12"))
BOTH_KILLS = int(os.environ.get("XYBRIDD_BOTH_KILLS", "4"))

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 + 5 * (APP_KILLS + BOTH_KILLS))]

never = threading.Event()


@contextmanager
def recording_app(daemon: Daemon, pure: bool) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    shared = daemon.folder / "shared"
    shared.write_bytes(bytes(4096))
    env = daemon.env | ({"XYBRIDD_PURE_PYTHON": "1"} if pure else {})
    app = subprocess.Popen(
        [sys.executable, "-m", "tests.survival.killed_app", str(daemon.socket), str(shared)],
        env=env, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert app.stdout is not None
    try:
        assert app.stdout.readline() == "records\n"
        yield app, shared
    finally:
        app.kill()
        app.wait()
        app.stdout.close()


def begun_and_returned(shared: Path) -> tuple[int, int]:
    counts = struct.unpack_from(f"<{2 * THREADS}Q", shared.read_bytes())
    return sum(counts[::2]), sum(counts[1::2])


def counted(daemon: Daemon) -> int:
    return int(daemon.status()["ledger"]["counted"])


def settled(daemon: Daemon) -> int:
    """What is counted when the rings of killed apps are read and gone."""
    folder = daemon.data / "spool"
    until(lambda: not any(folder.glob("*.ring")), f"the rings to be read: {daemon.said()}")
    return counted(daemon)


@pytest.mark.parametrize("pure", [True, False], ids=["python", "best"])
def test_every_call_that_returned_is_counted(daemon: Daemon, say: Callable[[str], None], pure: bool) -> None:
    seed = random.randrange(2**32)
    chance, total_returned, total_extra = random.Random(seed), 0, 0
    for _ in range(APP_KILLS):
        before = counted(daemon)
        with recording_app(daemon, pure) as (app, shared):
            never.wait(chance.uniform(0, 0.3))
            app.kill()
            app.wait()
            begun, returned = begun_and_returned(shared)
        found = settled(daemon) - before
        assert returned <= found <= begun, f"seed {seed}: {returned} returned, {found} counted, {begun} begun"
        total_returned, total_extra = total_returned + returned, total_extra + found - returned
    say(
        f"seed {seed}: {APP_KILLS} kills, {total_returned} calls returned, all counted; {total_extra} cut off and counted"
    )
    assert "Traceback" not in daemon.said()


@pytest.mark.parametrize("pure", [True, False], ids=["python", "best"])
def test_and_so_it_is_when_the_daemon_dies_with_it(daemon: Daemon, say: Callable[[str], None], pure: bool) -> None:
    seed = random.randrange(2**32)
    chance, total_returned = random.Random(seed), 0
    for _ in range(BOTH_KILLS):
        before = counted(daemon)
        with recording_app(daemon, pure) as (app, shared):
            never.wait(chance.uniform(0, 0.3))
            first, second = (app.kill, daemon.kill) if chance.random() < 0.5 else (daemon.kill, app.kill)
            first()
            never.wait(chance.choice([0, 0, chance.uniform(0, 0.1)]))
            second()
            app.wait()
            begun, returned = begun_and_returned(shared)
        daemon.start()
        found = settled(daemon) - before
        assert returned <= found <= begun, f"seed {seed}: {returned} returned, {found} counted, {begun} begun"
        total_returned += returned
    say(f"seed {seed}: {BOTH_KILLS} times both were killed, {total_returned} calls returned, all counted once")
    assert "Traceback" not in daemon.said()
