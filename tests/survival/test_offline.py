"""A long time without a network, and then the network.

``XYBRIDD_OFFLINE_SESSIONS`` says how many sessions end meanwhile.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import until
from tests.survival.scene import KEY, arrived_once, drained, ended, equations_hold, line_of, now, sinks, status_of
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

SESSIONS = int(os.environ.get("XYBRIDD_OFFLINE_SESSIONS", "2000"))


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.campaign
@pytest.mark.timeout(120 + SESSIONS // 20)
def test_after_a_week_offline_all_of_it_arrives_once(
    make_sending: Callable[..., Daemon], say: Callable[[str], None]
) -> None:
    port = free_port()
    daemon = make_sending(f"http://127.0.0.1:{port}").start()
    began_s = time.monotonic()
    made = ended(daemon, SESSIONS)
    made_s = time.monotonic() - began_s
    line = until(lambda: (each := line_of(now(daemon)))["last_error"] and each, "the first failure")
    assert line["queued"] == line["made"] == SESSIONS
    equations_hold(daemon)
    size_mib = daemon.status()["storage"]["used_bytes"] / 2**20
    daemon.kill()
    daemon.start()
    assert sinks(daemon)["xybrid"]["queued"] == SESSIONS
    with Receiver(key=KEY, port=port) as receiver:
        began_s = time.monotonic()
        drained(daemon)
        drained_s = time.monotonic() - began_s
        arrived_once(daemon, receiver, made)
        say(
            f"{SESSIONS} sessions made in {made_s:.1f} s, {size_mib:.1f} MiB;"
            f" sent in {drained_s:.1f} s, {len(receiver.seen()['requests'])} requests"
        )


def test_over_the_quota_the_oldest_go_and_what_was_kept_arrives_once(make_sending: Callable[..., Daemon]) -> None:
    port = free_port()
    daemon = make_sending(f"http://127.0.0.1:{port}", storage="quota_mib = 1").start()
    made = ended(daemon, 20)
    until(lambda: now(daemon) and status_of(daemon)["last_error"], "the first failure")
    made += ended(daemon, 600)

    def evicted() -> int:
        return sinks(daemon)["xybrid"]["evicted"]

    until(evicted, "the quota to be kept")
    until(lambda: daemon.status()["storage"]["used_bytes"] <= 2**20, "what is over the quota to go")
    equations_hold(daemon)
    gone = until(evicted, "the count")
    assert daemon.status()["ledger"]["removed"] == {"quota": gone}
    tally = sinks(daemon)["xybrid"]
    assert (tally["made"], tally["queued"]) == (620, 620 - gone)
    with Receiver(key=KEY, port=port) as receiver:
        drained(daemon)
        had = {session_id for session_id, _ in receiver.counts()}
        arrived_once(daemon, receiver, had, gone=gone)
        # The newest were kept, and what was in a batch when the quota was reached: that may have arrived.
        newest = [session_id for session_id in made[50:] if session_id in had]
        assert newest == made[-len(newest) :]
        assert len(newest) > 100
        assert had - set(newest) <= set(made[:50])
