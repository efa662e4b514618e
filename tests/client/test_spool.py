"""What was not acknowledged when a process ended: kept, and counted once, whoever brings it."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import xybridd
from tests.support import PATIENCE_S, until
from xybridd.client import spool

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


def session(daemon: Daemon, session_id: str) -> Any:
    with daemon.wire() as wire:
        return wire.call("session.get", session_id=session_id)


def counted(daemon: Daemon) -> int:
    return int(daemon.status()["ledger"]["counted"])


def test_the_daemon_fetches_what_was_recorded_before_it_was_there(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    session_id = run_app(daemon)
    (kept,) = (daemon.data / "spool").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    daemon.start()
    until(lambda: not kept.exists(), "the daemon to fetch the spool")
    found = session(daemon, session_id)
    assert found["total_inferences"] == 2500
    assert found["error_count"] == 1
    assert found["extensions"]["end_reason"] == "ended"
    assert (found["extensions"]["app"], found["extensions"]["app_version"]) == ("short", "3")
    assert found["extensions"]["labels"] == {"site": "42"}
    assert daemon.status()["ledger"]["duplicates"] == 0


def test_the_next_process_of_the_user_brings_it(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    elsewhere = str(daemon.folder / "home")
    session_id = run_app(daemon, XYBRIDD_DATA_DIR=elsewhere)
    daemon.start()
    run_app(
        daemon,
        "import xybridd; from tests.support import until; client = xybridd.connect(app='next');"
        "from pathlib import Path; import os; folder = Path(os.environ['XYBRIDD_DATA_DIR']) / 'spool';"
        "until(lambda: not list(folder.iterdir()), 'the spool to be brought')",
        XYBRIDD_DATA_DIR=elsewhere,
    )
    assert session(daemon, session_id)["total_inferences"] == 2500


def test_a_daemon_that_hangs_at_the_end_of_an_app_counts_it_once(make_daemon: Callable[..., Daemon]) -> None:
    """What it has read already and what the spool holds are the same batches."""
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
    until(lambda: session(daemon, session_id)["ended_at"] is not None, "the session to end")
    for _ in range(2):
        spool.deliver_all((daemon.folder / "home" / "spool",), (daemon.socket,))
    found = session(daemon, session_id)
    assert (found["total_inferences"], found["error_count"]) == (2500, 1)


def test_late_records_go_into_the_session_that_was_lost_meanwhile(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[session]\nlost_after_s = 0.1").start()
    client_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
    with daemon.wire() as wire:
        wire.hello(app="a", client_id=client_id)
        wire.call("session.start", session_id=session_id)
        wire.call("record.batch", seq=1, records=[INFERENCE], flush=True)
    until(lambda: session(daemon, session_id)["extensions"]["end_reason"] == "client_lost", "the loss")
    keep(daemon.folder / "home", client_id, [batch(1, session_id), batch(2, session_id)])
    assert spool.deliver_all((daemon.folder / "home",), (daemon.socket,)) == 1
    found = session(daemon, session_id)
    assert found["total_inferences"] == 2
    assert found["extensions"]["end_reason"] == "client_lost"


def test_records_for_a_session_that_was_ended_get_one_of_their_own(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        session_id = wire.call("session.start")["session_id"]
        wire.call("session.end", session_id=session_id)
    home = daemon.folder / "home"
    keep(home, str(uuid.uuid4()), [batch(1, session_id), batch(2, session_id)])
    assert spool.deliver_all((home,), (daemon.socket,)) == 1
    assert counted(daemon) == 2
    with daemon.wire() as wire:
        newest = wire.call("session.list")["sessions"][0]
    assert newest["session_id"] != session_id
    assert newest["end_reason"] == "ended"


INFERENCE = {"type": "inference", "model_id": "m", "version": "1", "latency_ms": 5}


def batch(seq: int, session_id: str, records: list[Any] | None = None) -> tuple[str, bytes]:
    params = {"seq": seq, "session_id": session_id, "records": [INFERENCE] if records is None else records}
    return "record.batch", msgspec.json.encode(params)


def keep(folder: Path, client_id: str, requests: list[tuple[str, bytes]]) -> Path:
    return spool.write(folder, spool.Producer("a", client_id), requests)


def started(session_id: str) -> tuple[str, bytes]:
    return "session.start", msgspec.json.encode({"session_id": session_id})


def test_many_who_deliver_the_same_file_count_it_once(daemon: Daemon) -> None:
    home, session_id = daemon.folder / "home", str(uuid.uuid4())
    for _ in range(5):
        keep(home, str(uuid.uuid4()), [started(session_id), *(batch(seq, session_id) for seq in range(1, 9))])
    copies = [(path, path.read_bytes()) for path in spool.waiting(home)]

    def bring() -> None:
        spool.deliver_all((home,), (daemon.socket,))

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    for path, data in copies:  # and somebody restores them from a backup
        path.write_bytes(data)
        path.chmod(0o600)
    bring()
    assert counted(daemon) == 40
    assert not spool.waiting(home)


def test_a_delivery_that_the_daemon_dies_under_is_gone_on_with(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    home, session_id = daemon.folder / "home", str(uuid.uuid4())
    keep(home, str(uuid.uuid4()), [started(session_id), *(batch(seq, session_id) for seq in range(1, 401))])

    def bring() -> None:
        with pytest.raises(xybridd.errors.DaemonUnreachable):
            spool.deliver_all((home,), (daemon.socket,))

    thread = threading.Thread(target=bring)
    thread.start()
    until(lambda: counted(daemon) > 20, "the first batches")
    daemon.kill()
    thread.join(PATIENCE_S)
    assert len(spool.waiting(home)) == 1
    daemon.start()
    assert spool.deliver_all((home,), (daemon.socket,)) == 1
    assert session(daemon, session_id)["total_inferences"] == 400


def test_a_damaged_file_gives_what_can_be_read_and_is_kept(daemon: Daemon) -> None:
    home, session_id = daemon.folder / "home", str(uuid.uuid4())
    path = keep(home, str(uuid.uuid4()), [started(session_id), *(batch(seq, session_id) for seq in range(1, 4))])
    lines = path.read_bytes().splitlines()
    lines[3] = b'{"method": "record.ba\xff'
    path.write_bytes(b"\n".join(lines))
    nonsense = keep(home, str(uuid.uuid4()), [])
    nonsense.write_bytes(b"\x00" * 100)
    assert spool.deliver_all((home,), (daemon.socket,)) == 2
    assert counted(daemon) == 2
    assert not spool.waiting(home)
    assert {each.suffix for each in home.iterdir()} == {".damaged"}


def test_what_others_may_write_or_made_is_not_trusted(daemon: Daemon) -> None:
    home, session_id = daemon.folder / "home", str(uuid.uuid4())
    path = keep(home, str(uuid.uuid4()), [started(session_id), batch(1, session_id)])
    path.chmod(0o666)
    (home / "0-link.spool").symlink_to(path)
    os.mkfifo(home / "1-pipe.spool", 0o600)
    assert spool.deliver_all((home,), (daemon.socket,)) == 0
    path.chmod(0o600)
    home.chmod(0o777)
    assert spool.waiting(home) == []
    with pytest.raises(PermissionError):
        keep(home, str(uuid.uuid4()), [batch(1, session_id)])
    assert counted(daemon) == 0


def test_a_spool_that_cannot_be_written_is_counted_and_said_once(
    folder: Path, spool_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_folder.parent.mkdir()
    spool_folder.write_text("a file where the folder should be")
    client = xybridd.connect(app="a", socket=folder / "nobody")
    for number in range(1234):
        client.record_inference("m", "1", number)
    assert not client.close()
    assert client.counters()["lost"] == 1234
    assert client.counters()["waiting"] == 0
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
def test_a_full_disk_loses_what_it_must_and_says_so(folder: Path, spool_folder: Path) -> None:
    spool_folder.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spool_folder], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        spool_folder.chmod(0o700)
        client = xybridd.connect(app="a", socket=folder / "nobody")
        for number in range(5000):
            client.record_inference("m", "1", number)
        assert not client.close()
        assert client.counters()["lost"] == 5000
        assert list(spool_folder.iterdir()) == []
    finally:
        subprocess.run(["umount", spool_folder], check=True)


def has_spooled(client: xybridd.Client, count: int) -> bool:
    return client.counters()["spooled"] == count


def test_a_queue_that_overflows_goes_to_disk_and_all_of_it_arrives(
    make_daemon: Callable[..., Daemon], spool_folder: Path
) -> None:
    daemon = make_daemon()
    client = xybridd.connect(app="a", socket=daemon.socket)
    total = 200_000
    for number in range(total):
        client.record_inference("m", "1", 1)
        if number % 50_000 == 49_999:
            until(functools.partial(has_spooled, client, number + 1), "the overflow to be on disk")
    client.record_inference("m", "1", 1)
    assert len(spool.waiting(spool_folder)) == 4
    daemon.start()
    assert client.flush(PATIENCE_S)
    session_id = client.session_id
    assert session_id is not None
    assert session(daemon, session_id)["total_inferences"] == total + 1
    assert client.counters()["dropped"] == 0
    assert not spool.waiting(spool_folder)
    assert client.close(PATIENCE_S)
    assert session(daemon, session_id)["extensions"]["end_reason"] == "ended"


def test_errors_are_redacted_before_they_are_on_disk_and_keep_their_category(spool_folder: Path) -> None:
    records = [
        {"type": "error", "error": "cannot open /home/network/x.bin"},
        {"type": "error", "error": "for ada@example.org", "category": "memory"},
        {"type": "inference", "model_id": "m", "version": "1", "latency_ms": 1.5},
    ]
    path = keep(spool_folder, str(uuid.uuid4()), [batch(1, str(uuid.uuid4()), records)])
    written = msgspec.json.decode(path.read_bytes().splitlines()[1])["params"]["records"]
    assert written == [
        {"type": "error", "error": "cannot open ~/x.bin", "category": "Network"},  # taken from the whole of it
        {"type": "error", "error": "for [email]", "category": "memory"},
        records[2],
    ]
