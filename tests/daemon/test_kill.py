"""The kill campaign: the daemon dies at random moments under load, and nothing acknowledged is lost or counted twice.

``XYBRIDD_KILLS`` says how often it dies (15).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import ledger
from tests.support import ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon

KILLS = int(os.environ.get("XYBRIDD_KILLS", "15"))
PRODUCERS = 4

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 + 5 * KILLS)]


@contextlib.contextmanager
def producers(daemon: Daemon, script: str, seed: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that record without end."""
    running = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), str(daemon.socket), str(seed + number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=daemon.env,
        )
        for number in range(PRODUCERS)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def reports(running: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Tell the producers to come home; what each says it was told."""
    out = []
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in running:
        said, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
        out.append(json.loads(said))
    return out


def kill_again_and_again(daemon: Daemon, chance: random.Random) -> None:
    """Kill it at any moment: mostly under load, now and then while it starts."""
    never = threading.Event()
    for _ in range(KILLS):
        if chance.random() < 0.15:
            daemon.launch()
            never.wait(chance.uniform(0, 0.4))
        else:
            daemon.start()
            never.wait(chance.uniform(0.01, 0.4))
        daemon.kill()
    daemon.start()


def totals_are_exact(daemon: Daemon, told: list[dict[str, Any]]) -> None:
    with daemon.wire() as wire:
        for report in told:
            assert report["violations"] == []
            session = wire.call("session.get", session_id=report["session_id"])
            models = session["by_model"].values()
            assert {each["model_id"]: each["call_count"] for each in models} == report["calls"]
            assert {each["model_id"]: each["total_latency_ms"] for each in models} == report["latency_ms"]
            assert {each["message"]: each["count"] for each in session["errors"]} == report["errors"]
            assert session["total_inferences"] == sum(report["calls"].values())
            details = session["extensions"]["models"].values()
            assert sum(each["latency_ms"]["count"] for each in details) == session["total_inferences"]
        assert len(wire.call("session.list", limit=1000)["sessions"]) == len(told)
    found = ledger(daemon)
    assert ledger_balances(found)
    assert found["counted"] == sum(report["records"] for report in told)
    assert found["missing_batches"] == 0
    assert found["removed"] == {}


def campaign(make_daemon: Callable[[str], Daemon], script: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    daemon = make_daemon("[storage]\ncommit_interval_ms = 30\n").start()
    began_s = time.monotonic()
    with producers(daemon, script, seed) as running:
        until(lambda: ledger(daemon)["counted"] > 0, "the producers to record")
        daemon.kill()
        kill_again_and_again(daemon, random.Random(seed))
        told = reports(running)
    took_s = time.monotonic() - began_s
    totals_are_exact(daemon, told)
    daemon.kill()
    daemon.start()
    totals_are_exact(daemon, told)
    say(f"{script}: {KILLS + 2} kills, {figures(told)}, {ledger(daemon)['duplicates']} duplicates seen, {took_s:.1f} s")
    assert "Traceback" not in daemon.said()
    return told


def figures(told: list[dict[str, Any]]) -> str:
    batches, resent, records = (
        sum(report.get(name, 0) for report in told) for name in ("batches", "resent", "records")
    )
    return (f"{batches} batches ({resent} sent again), " if batches else "") + f"{records} records acknowledged"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def aloud(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")  # noqa: T201

    return aloud


def test_what_was_acknowledged_is_there_exactly_once(
    make_daemon: Callable[[str], Daemon], say: Callable[[str], None]
) -> None:
    told = campaign(make_daemon, "raw_producer.py", say)
    assert all(report["records"] for report in told)


def test_what_our_client_recorded_is_there_exactly_once(
    make_daemon: Callable[[str], Daemon], say: Callable[[str], None]
) -> None:
    told = campaign(make_daemon, "client_producer.py", say)
    assert all(report["records"] for report in told)
