"""The daemon dies between sending and settling, again and again: everything is there once.

``XYBRIDD_UPLOAD_KILLS`` says how often it dies (15).
"""

from __future__ import annotations

import json
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import until
from tests.survival.scene import arrived_once, drained, ended
from xybridd.testing import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver

KILLS = int(os.environ.get("XYBRIDD_UPLOAD_KILLS", "15"))

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 + 10 * KILLS)]


def requests_seen(receiver: Receiver) -> int:
    return len(receiver.seen()["requests"])


def test_killed_between_send_and_settle_it_sends_the_same_again(
    sending: Daemon, receiver: Receiver, say: Callable[[str], None]
) -> None:
    """Half of the time the receiver holds its answer until the daemon is dead; else it dies at a moment of chance."""
    seed = random.randrange(2**32)
    chance, never = random.Random(seed), threading.Event()
    made = []
    for kill in range(KILLS):
        before = requests_seen(receiver)
        held = kill % 2 == 0
        if held:
            receiver.misbehave(Behaviour("silent", times=None, takes=chance.random() < 0.7))
        else:
            receiver.misbehave()
        made += ended(sending, chance.randrange(1, 8))
        until(lambda before=before: requests_seen(receiver) > before, "a request")  # type: ignore[misc]
        if not held:
            never.wait(chance.uniform(0, 0.02))
        sending.kill()
        if chance.random() < 0.2:  # and once more while it starts
            sending.launch()
            never.wait(chance.uniform(0, 0.6))
            sending.kill()
        sending.start()
    receiver.misbehave()
    drained(sending)
    arrived_once(sending, receiver, made)
    seen = receiver.seen()
    say(
        f"seed {seed}: {KILLS} kills, {len(made)} exports there once; {len(seen['requests'])} requests,"
        f" {seen['repeats']} of them repeats of what was there already"
    )
    assert "Traceback" not in sending.said()


def test_killed_while_it_writes_a_file_each_line_is_there_once(
    make_sending: Callable[..., Daemon], say: Callable[[str], None]
) -> None:
    daemon = make_sending(None, upload="max_batch_exports = 3")
    (daemon.folder / "api-key").unlink()
    out = daemon.folder / "out.jsonl"
    daemon.config.write_text(daemon.config.read_text() + f'[file]\npath = "{out}"\n')
    daemon.start()
    seed = random.randrange(2**32)
    chance, never = random.Random(seed), threading.Event()
    made = []
    for _ in range(KILLS):
        size = out.stat().st_size if out.exists() else 0
        made += ended(daemon, chance.randrange(5, 20))
        until(lambda size=size: out.exists() and out.stat().st_size > size, "a line")  # type: ignore[misc]
        never.wait(chance.uniform(0, 0.02))
        daemon.kill()
        daemon.start()
    drained(daemon, "file")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["session_id"] for line in lines) == sorted(made)
    say(f"seed {seed}: {KILLS} kills, {len(made)} lines there once")
