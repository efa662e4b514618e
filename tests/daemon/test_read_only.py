"""A file system that turns read-only under a running daemon, as ext4 does when its card fails. Needs the right to mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import xybridd
from tests.daemon.scenes import end_reason, ledger, total
from tests.support import PATIENCE_S, ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")


class Card:
    """An ext4 of 32 MiB in a file. Closed and opened, it is what a device finds after it was switched off and on."""

    def __init__(self, image: Path, place: Path) -> None:
        self.image, self.place = image, place

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"mounting an ext4 is not permitted here: {done.stderr.strip()}")

    def fail(self) -> None:
        """What the kernel does when the card answers with errors: nothing more is written, whoever has what open."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.place)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)


@pytest.fixture
def card(folder: Path) -> Iterator[Card]:
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
    if mkfs is None:
        pytest.skip("there is no mkfs.ext4 (Debian's package e2fsprogs)")
    made = Card(folder / "image", folder / "card")
    made.place.mkdir()
    with made.image.open("wb") as file:
        file.truncate(32 * 2**20)
    subprocess.run([mkfs, "-q", "-F", str(made.image)], check=True)
    made.mount()
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(made.place)], check=False, capture_output=True)


def test_a_disk_that_turns_read_only_under_the_daemon_loses_nothing_that_was_acknowledged(
    card: Card, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(env={"XYBRIDD_DATA_DIR": str(card.place / "data")})
    daemon.data = card.place / "data"
    daemon.start()
    try:
        client = xybridd.connect(app="a", socket=daemon.socket)
        for number in range(1000):
            client.record_inference("m", "1", number)
        assert client.flush(PATIENCE_S)
        card.fail()
        for number in range(500):
            client.record_inference("m", "1", number)
        assert not client.flush(0.1)
        status = until(lambda: (now := daemon.status())["state"] == "degraded" and now, "the daemon to notice")
        assert status["reason"]
        assert "dmesg" in daemon.xybridd("status").stdout
        assert "read-only" in daemon.xybridd("doctor").stdout
        assert client.counters()["acknowledged"] == 1000
        with daemon.wire() as wire:
            assert wire.call("session.list")["sessions"][0]["total_inferences"] == 1000  # reading goes on
        session_id = str(client.session_id)
        # Somebody restarts the device; the app goes on meanwhile, with all that it was not told to be kept.
        daemon.kill()
        card.unmount()
        card.mount()
        daemon.start()
        assert client.flush(PATIENCE_S)
        assert total(daemon, session_id) == client.counters()["acknowledged"] == 1500
        assert ledger_balances(ledger(daemon))
        assert client.close(PATIENCE_S)
        assert end_reason(daemon, session_id) == "ended"
        assert "Traceback" not in daemon.said()
    finally:
        daemon.end()
