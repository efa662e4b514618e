"""What the daemon's own process is while another one sends for it: small, tidy, and patient with its disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.daemon.scenes import rss_mib
from tests.daemon.test_full_disk import fill
from tests.support import until
from tests.survival.scene import arrived_once, drained, ended, now, sender_of, sinks, status_of
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon

linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")

#: Compiled parts of what the sender alone may load.
SENDERS_OWN = ("charset_normalizer", "/google/")


def loaded(pid: int) -> str:
    """Every file that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@linux
def test_after_many_uploads_the_daemon_is_what_it_was(
    make_sending: Callable[..., Daemon], receiver: Receiver, collector: Receiver, say: Callable[[str], None]
) -> None:
    daemon = make_sending(
        receiver.url, upload="max_batch_exports = 1", more=f'[otlp]\nendpoint = "{collector.url}"'
    ).start()
    itself = psutil.Process(daemon.pid)
    idle_mib = rss_mib(daemon.pid)
    made = ended(daemon, 5)
    drained(daemon)
    drained(daemon, "otlp")
    files, threads = itself.num_fds(), itself.num_threads()
    for _ in range(10):
        made += ended(daemon, 20)
        drained(daemon)
    drained(daemon, "otlp")
    arrived_once(daemon, receiver, made)
    requests = len(receiver.seen()["requests"]) + len(collector.seen()["requests"])
    assert requests >= 400
    until(lambda: itself.num_fds() <= files, f"files to be closed: {files} before, {itself.num_fds()} after")
    assert itself.num_threads() <= threads
    senders = [child for child in itself.children() if child.status() != psutil.STATUS_ZOMBIE]
    assert len(senders) == len(itself.children()) == 2  # one a sink, and none that is dead and not buried
    assert not [part for part in SENDERS_OWN if part in loaded(daemon.pid)]
    seen = "".join(loaded(sender.pid) for sender in senders)
    assert all(part in seen for part in SENDERS_OWN)
    say(
        f"daemon {idle_mib:.1f} MiB before, {rss_mib(daemon.pid):.1f} after {requests} requests;"
        f" senders {', '.join(f'{rss_mib(sender.pid):.1f}' for sender in senders)}"
    )


@linux
def test_a_sender_that_is_killed_is_buried_and_followed_by_another(sending: Daemon, receiver: Receiver) -> None:
    made = []
    for _ in range(4):
        made += ended(sending, 3)
        drained(sending)
        sender = sender_of(sending)
        assert sender is not None
        sender.kill()
    made += ended(sending, 3)
    drained(sending)
    arrived_once(sending, receiver, made)
    children = psutil.Process(sending.pid).children()
    assert [child.status() == psutil.STATUS_ZOMBIE for child in children] == [False]


@linux
def test_a_sender_ends_with_its_daemon(sending: Daemon) -> None:
    ended(sending, 1)
    drained(sending)
    sender = sender_of(sending)
    assert sender is not None
    sending.kill()
    until(lambda: not sender.is_running() or sender.status() == psutil.STATUS_ZOMBIE, "the sender to end")


@linux
def test_what_a_batch_needs_is_in_memory_before_there_is_one(make_sending: Callable[..., Daemon]) -> None:
    """A disk that fails while code is fetched from it can leave that code broken until the next start."""
    assert "_hashlib" in loaded(make_sending("http://127.0.0.1:9").start().pid)
    assert "_hashlib" not in loaded(make_sending(None, env={"XYBRIDD_CONFIG": "/dev/null"}).start().pid)


# A full disk


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
@pytest.mark.parametrize("killed", [False, True])
def test_a_disk_that_fills_up_while_a_batch_is_sent(
    disk: Path, make_sending: Callable[..., Daemon], receiver: Receiver, *, killed: bool
) -> None:
    """What came of it cannot be written: nothing more is sent until it is, and after a kill the same goes again."""
    daemon = make_sending(receiver.url, {"XYBRIDD_DATA_DIR": str(disk / "data")})
    patient = daemon.config.read_text().replace("read_timeout_s = 0.5", "read_timeout_s = 60")
    daemon.config.write_text(patient.replace("total_timeout_s = 1.5", "total_timeout_s = 60"))
    assert receiver._process is not None
    server = psutil.Process(receiver._process.pid)
    daemon.start()
    try:
        with daemon.wire() as wire:
            wire.call("upload.pause")
        made = ended(daemon, 120)
        daemon.stop()
        daemon.start()  # with a log that is empty: what is written from here on needs space
        server.suspend()
        with daemon.wire() as wire:
            wire.call("upload.resume")
        until(lambda: status_of(daemon)["in_flight"], "a batch to be under way")
        ballast = fill(disk)
        server.resume()
        until(lambda: "the outbox cannot be written" in daemon.said(), "the daemon to notice")
        assert len(receiver.seen()["requests"]) == 1
        assert sinks(daemon)["xybrid"]["queued"] == 120
        if killed:
            daemon.kill()
        ballast.unlink()
        if killed:
            daemon.start()
        until(lambda: now(daemon) and sinks(daemon)["xybrid"]["queued"] == 0, "it to arrive when there is space")
        arrived_once(daemon, receiver, made)
        assert receiver.seen()["repeats"] == killed
        assert "Traceback" not in daemon.said()
    finally:
        server.resume()
        daemon.end()
