"""What no daemon has read when a process ended: its rings stay, and are counted once, whoever brings them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.rings import RingWire, Written
from tests.support import PATIENCE_S, environment, until
from xybridd.client.orphans import orphans
from xybridd.protocol.ring import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon

APP = """
import sys, xybridd
client = xybridd.connect(app="short", app_version="3", labels={"site": "42"})
for number in range(2500):
    client.record_inference("m", "1", number)
client.record_error("boom", "m", "1")
print(client.session_id, flush=True)
"""


def run_app(daemon: Daemon, code: str = APP, **env: str) -> str:
    """An app that ends while no daemon answers; what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**daemon.env, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def found(folder: Path) -> list[Path]:
    """The orphans in a folder."""
    paths = []
    for path, fd in orphans(folder):
        os.close(fd)
        paths.append(path)
    return paths


def session(daemon: Daemon, session_id: str | None) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def test_the_daemon_reads_what_was_recorded_before_it_was_there(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    session_id = run_app(daemon)
    (kept,) = (daemon.data / "spool").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    daemon.start()
    until(lambda: not kept.exists(), "the daemon to read the ring")
    found = session(daemon, session_id)
    assert (found["total_inferences"], found["error_count"]) == (2500, 1)
    more = found["extensions"]
    assert (more["end_reason"], more["app"], more["app_version"]) == ("ended", "short", "3")
    assert more["labels"] == {"site": "42"}
    assert "processes" not in more


def test_memory_goes_to_the_disk_when_a_process_ends(make_daemon: Callable[..., Daemon]) -> None:
    """Where there is a runtime folder, rings are in memory; what no daemon has read must outlive a power failure."""
    daemon = make_daemon()
    runtime, home = daemon.folder / "runtime", daemon.folder / "home"
    runtime.mkdir(mode=0o700)
    apart = {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(home), "XYBRIDD_DATA_DIR": ""}
    run_app(daemon, **apart)
    assert list((runtime / "xybridd" / "rings").iterdir()) == []
    (kept,) = (home / ".local" / "share" / "xybridd" / "spool").iterdir()
    with environment(XYBRIDD_DATA_DIR=str(daemon.folder / "elsewhere")):
        daemon.start()
        with RingWire(daemon.socket) as wire:
            assert wire.drain(kept) == {"drained": True}
    assert daemon.status()["ledger"]["counted"] == 2501


def test_the_next_process_of_the_user_brings_it(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    elsewhere = str(daemon.folder / "home")
    session_id = run_app(daemon, XYBRIDD_DATA_DIR=elsewhere)
    daemon.start()
    run_app(
        daemon,
        "import xybridd; from tests.support import until; client = xybridd.connect(app='next');"
        "from pathlib import Path; import os; folder = Path(os.environ['XYBRIDD_DATA_DIR']) / 'spool';"
        f"until(lambda: not list(folder.glob('*{session_id[:0]}.ring'))[1:], 'the ring to be brought')",
        XYBRIDD_DATA_DIR=elsewhere,
    )
    assert session(daemon, session_id)["total_inferences"] == 2500


def test_a_daemon_that_hangs_at_the_end_of_an_app_counts_it_once(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[session]\nlost_after_s = 0.2").start()
    app = subprocess.Popen(
        [
            sys.executable,
            "-c",
            APP.replace("client.record_error", "client.flush(20)\nprint(flush=True)\ninput()\nclient.record_error"),
        ],
        env={**daemon.env, "XYBRIDD_DATA_DIR": str(daemon.folder / "home")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert app.stdout is not None
    app.stdout.readline()
    daemon.signal(signal.SIGSTOP)
    said, _ = app.communicate("\n", timeout=PATIENCE_S)
    assert app.returncode == 0
    daemon.signal(signal.SIGCONT)
    session_id = said.strip()
    until(lambda: session(daemon, session_id)["error_count"], "the rest of the ring")
    for path in found(daemon.folder / "home" / "spool"):
        with RingWire(daemon.socket) as wire:
            wire.drain(path)
    counted = session(daemon, session_id)
    assert (counted["total_inferences"], counted["error_count"]) == (2500, 1)


def test_many_who_bring_the_same_ring_count_it_once(daemon: Daemon) -> None:
    home = daemon.folder / "home"
    for _ in range(5):
        written = Written(home)
        written.start()
        written.calls(8)
        written.close()
    paths = list(home.iterdir())

    def bring() -> None:
        with RingWire(daemon.socket) as wire:
            for path in paths:
                wire.drain(path)

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    bring()
    assert daemon.status()["ledger"]["counted"] == 40


def test_what_others_may_write_or_made_is_not_trusted(folder: Path) -> None:
    home = folder / "home"
    written = Written(home)
    written.close()
    assert found(home) == [written.path]
    (home / "0-link.ring").symlink_to(written.path)
    os.mkfifo(home / "1-pipe.ring", 0o600)
    written.path.chmod(0o666)
    assert list(orphans(home)) == []
    written.path.chmod(0o600)
    home.chmod(0o777)
    assert list(orphans(home)) == []


def test_a_ring_whose_process_lives_is_no_orphan(folder: Path) -> None:
    written = Written(folder / "home")
    assert list(orphans(folder / "home")) == []  # it has the lock
    fcntl.flock(written.ring.fd, fcntl.LOCK_UN)
    assert list(orphans(folder / "home")) == []  # it closed all of its files, as a process does that detaches itself
    written.close()
    assert found(folder / "home") == [written.path]


def test_where_no_file_can_be_made_records_wait_in_memory(
    folder: Path, spool_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_folder.parent.mkdir()
    spool_folder.write_text("a file where the folder should be")
    client = xybridd.connect(app="a", socket=folder / "nobody")
    for number in range(1234):
        client.record_inference("m", "1", number)
    assert client.counters()["waiting"] == 1234
    assert not client.close()
    assert client.counters()["lost"] == 1234
    assert client.counters()["waiting"] == 0
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files without a folder are Linux's")
def test_where_no_folder_can_be_written_a_daemon_reads_all_the_same(daemon: Daemon, spool_folder: Path) -> None:
    """As in a container whose file system is read-only."""
    spool_folder.parent.mkdir()
    spool_folder.write_text("a file where the folder should be")
    with xybridd.connect(app="a", socket=daemon.socket) as client:
        for _ in range(1234):
            client.record_inference("m", "1", 1)
        assert client.flush(PATIENCE_S)
        assert client.counters()["acknowledged"] == 1234
        session_id = client.session_id
    assert session(daemon, session_id)["extensions"]["end_reason"] == "ended"


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
def test_a_full_disk_costs_records_and_no_app(folder: Path, spool_folder: Path) -> None:
    """Memory that is mapped and cannot be provided is a signal: what is written must be there beforehand."""
    spool_folder.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", spool_folder], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        spool_folder.chmod(0o700)
        client = xybridd.connect(app="a", socket=folder / "nobody")
        for number in range(3 * SLOTS):
            client.record_inference("m", "1", number)
            if not number % 100:
                client.record_error(f"boom {number}" * 100)
        client.close()
        counters = client.counters()
        assert counters["waiting"] == 0
        assert sum(counters.values()) == 3 * SLOTS + -(-3 * SLOTS // 100)
        assert counters["lost"] + counters["dropped"] > 0
    finally:
        subprocess.run(["umount", "-l", spool_folder], check=True)


def test_many_rings_are_filled_without_a_daemon_and_all_of_it_arrives(
    make_daemon: Callable[..., Daemon], spool_folder: Path
) -> None:
    daemon = make_daemon()
    client = xybridd.connect(app="a", socket=daemon.socket)
    total = 200_000
    for _ in range(total):
        client.record_inference("m", "1", 1)
    assert len(list(spool_folder.glob("*.ring"))) > 1
    assert client.counters()["dropped"] == 0
    daemon.start()
    assert client.flush(PATIENCE_S)
    assert session(daemon, client.session_id)["total_inferences"] == total
    until(lambda: len(list(spool_folder.glob("*.ring"))) == 1, "the full rings to be removed")
    session_id = client.session_id
    assert client.close(PATIENCE_S)
    assert session(daemon, session_id)["extensions"]["end_reason"] == "ended"
    assert list(spool_folder.glob("*.ring")) == []


def test_thousands_of_large_errors_without_a_daemon_all_arrive(
    make_daemon: Callable[..., Daemon], spool_folder: Path
) -> None:
    daemon = make_daemon()
    client = xybridd.connect(app="a", socket=daemon.socket)
    for number in range(5000):
        client.record_error(f"Traceback {number}: " + "y" * 2000)
    client.record_error("z" * 1_100_000 + " gpu")
    assert client.counters() | {"waiting": 0, "spooled": 0} == dict.fromkeys(client.counters(), 0)
    daemon.start()
    assert client.flush(PATIENCE_S)
    assert client.counters()["acknowledged"] == 5001
    found = session(daemon, client.session_id)
    assert found["error_count"] == 5001
    assert client.close(PATIENCE_S)
    assert list(spool_folder.glob("*.ring")) == []
