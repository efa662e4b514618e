"""The daemon as a process: how it starts, what it refuses to start over, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, change, database, exit_of, ledger, new_id, producer, refusal, request_line, total
from tests.support import inference, ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon

LAZY = "[storage]\ncommit_interval_ms = 60000\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Starting


def test_it_says_ready_once_when_it_accepts(daemon: Daemon) -> None:
    assert len([line for line in daemon.said().splitlines() if "ready" in line]) == 1
    assert daemon.status()["state"] == "ok"


def test_folder_and_files_are_the_owners_alone(daemon: Daemon) -> None:
    assert mode(daemon.data) == 0o700
    assert mode(daemon.socket) == 0o600
    wire, _ = producer(daemon)
    with wire:
        batch(wire, 1)
        files = [path for path in daemon.data.iterdir() if path.is_file()]
        assert {path.name: oct(mode(path)) for path in files} == {path.name: oct(0o600) for path in files}


def test_permissions_are_tightened_again_at_each_start(daemon: Daemon) -> None:
    daemon.stop()
    daemon.data.chmod(0o777)
    for path in daemon.data.iterdir():
        path.chmod(0o777 if path.is_dir() else 0o666)
    daemon.start()
    assert mode(daemon.data) == 0o700
    assert {mode(path) for path in daemon.data.iterdir() if path.is_file()} == {0o600}
    assert mode(daemon.data / "spool") == 0o700


def test_the_sockets_mode_is_as_configured(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon('[socket]\nmode = "0660"\n').start()
    assert mode(daemon.socket) == 0o660


def test_the_device_keeps_its_id(daemon: Daemon) -> None:
    before = daemon.status()["device_id"]
    daemon.kill()
    daemon.start()
    assert daemon.status()["device_id"] == before


def test_a_second_daemon_on_the_same_data_names_the_first(daemon: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    second = make_daemon("", {"XYBRIDD_DATA_DIR": str(daemon.data)})
    code, said = exit_of(second)
    assert code == 1
    assert str(daemon.pid) in said
    assert "Traceback" not in said
    assert daemon.status()["state"] == "ok"


def test_a_live_socket_is_never_replaced(daemon: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    second = make_daemon("", {"XYBRIDD_SOCKET": str(daemon.socket)})
    code, said = exit_of(second)
    assert code == 1
    assert "Traceback" not in said
    assert daemon.status()["pid"] == daemon.pid


def test_a_live_socket_of_another_program_is_never_replaced(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        other.listen()
        code, said = exit_of(daemon)
        assert code == 1
        assert str(daemon.socket) in said
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket))


def test_a_stale_socket_is_replaced(daemon: Daemon) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.status()["pid"] == daemon.pid


def test_a_file_at_the_sockets_place_is_left_alone(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.socket.write_text("precious")
    code, said = exit_of(daemon)
    assert code == 1
    assert str(daemon.socket) in said
    assert daemon.socket.read_text() == "precious"


def test_a_socket_path_that_is_too_long_is_a_clear_error(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon = make_daemon("", {"XYBRIDD_SOCKET": str(folder / ("s" * 120))})
    code, said = exit_of(daemon)
    assert code == 1
    assert "too long" in said
    assert "Traceback" not in said


def test_a_data_folder_that_is_a_file_is_a_clear_error(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.data.write_text("precious")
    code, said = exit_of(daemon)
    assert code == 1
    assert str(daemon.data) in said
    assert "Traceback" not in said
    assert daemon.data.read_text() == "precious"


def test_a_data_folder_that_cannot_be_made_is_a_clear_error(make_daemon: Callable[..., Daemon]) -> None:
    code, said = exit_of(make_daemon("", {"XYBRIDD_DATA_DIR": "/proc/nowhere/data"}))
    assert code == 1
    assert "/proc/nowhere/data" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["lock", "device-id", "xybridd.db"])
def test_a_folder_where_a_file_should_be_is_a_clear_error(make_daemon: Callable[[], Daemon], name: str) -> None:
    daemon = make_daemon()
    (daemon.data / name).mkdir(parents=True)
    code, said = exit_of(daemon)
    assert code == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "text", ["not toml [", "[storage]\ncommit_interval_ms = 'often'\n", '[socket]\nmode = "rw"\n', "storage = 7\n"]
)
def test_a_bad_config_exits_5_and_names_the_file(make_daemon: Callable[[str], Daemon], text: str) -> None:
    daemon = make_daemon(text)
    code, said = exit_of(daemon)
    assert code == 5
    assert str(daemon.config) in said
    assert "Traceback" not in said


def test_a_missing_config_that_was_named_exits_5(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.config.unlink()
    assert exit_of(daemon)[0] == 5


def test_an_unknown_key_is_a_warning_that_names_the_nearest(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon("[storage]\ncommit_intervall_ms = 5\n").start()
    assert "storage.commit_interval_ms" in daemon.said()


# Ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_waits_is_made_durable_before_a_clean_end(
    make_daemon: Callable[[str], Daemon], number: signal.Signals
) -> None:
    daemon = make_daemon(LAZY).start()
    wire, session_id = producer(daemon)
    with wire:
        held = [wire.send("record.batch", seq=seq, records=[inference()]) for seq in (1, 2)]
        assert wire.call("session.get")["total_inferences"] == 2
        daemon.signal(number)
        assert [wire.answer_to(each)["last_seq"] for each in held] == [1, 2]
        assert wire.closed_by_peer()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    assert not daemon.socket.exists()
    daemon.start()
    assert total(daemon, session_id) == 2


def test_it_ends_though_a_peer_does_not_read_and_another_is_frozen(daemon: Daemon) -> None:
    slow, _ = producer(daemon)
    frozen = daemon.wire()
    with slow, frozen:
        models = [inference(model_id=f"{number}" + "m" * 200) for number in range(100)]
        slow.call("record.batch", seq=1, records=models, flush=True)
        slow.sock.sendall(b"".join(request_line(number, "session.get") for number in range(200)))
        frozen.sock.sendall(b'{"jsonrpc":')
        assert daemon.stop() == 0


def test_it_ends_while_everybody_sends(daemon: Daemon) -> None:
    pairs = [producer(daemon) for _ in range(4)]
    for wire, _ in pairs:
        wire.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for seq in range(1, 200):
                wire.sock.sendall(request_line(seq, "record.batch", seq=seq, records=[inference()], flush=True))
    assert daemon.stop() == 0
    acknowledged = {session_id: last_acknowledged(wire.sock) for wire, session_id in pairs}
    for wire, _ in pairs:
        wire.close()
    daemon.start()
    for session_id, least in acknowledged.items():
        assert total(daemon, session_id) >= least
    assert ledger_balances(ledger(daemon))


def last_acknowledged(sock: socket.socket) -> int:
    """The highest number that was acknowledged in what lies ready to be read."""
    sock.settimeout(30)
    data = b""
    with contextlib.suppress(OSError):
        while chunk := sock.recv(65536):
            data += chunk
    answers: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()[:-1]]
    return max((each["result"].get("last_seq", 0) for each in answers if "result" in each), default=0)


def test_a_clean_end_leaves_no_wal(daemon: Daemon) -> None:
    wire, _ = producer(daemon)
    with wire:
        batch(wire, 1)
    assert daemon.stop() == 0
    assert not list(daemon.data.glob("*-wal"))


def test_a_socket_that_another_daemon_put_there_is_not_removed(daemon: Daemon) -> None:
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        assert daemon.stop() == 0
        assert daemon.socket.exists()


# Names that are no text


@pytest.mark.parametrize("variable", ["XYBRIDD_DATA_DIR", "XYBRID_INGEST_URL"])
def test_a_variable_that_is_no_text_leaves_no_question_unanswered(
    make_daemon: Callable[..., Daemon], folder: Path, variable: str
) -> None:
    value = {"XYBRIDD_DATA_DIR": f"{folder}/\udcff", "XYBRID_INGEST_URL": "http://127.0.0.1:9/\udcff"}[variable]
    daemon = make_daemon("", {variable: value}).start()
    status = daemon.status()
    assert status["upload"]["state"] == "off"
    if variable == "XYBRID_INGEST_URL":
        assert "upload.endpoint" in status["upload"]["reason"]
    else:
        assert status["storage"]["path"].startswith(str(folder))


# SIGHUP


def test_sighup_applies_what_can_be_applied(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon(LAZY).start()
    wire, session_id = producer(daemon)
    with wire:
        daemon.config.write_text("[storage]\ncommit_interval_ms = 10\n")
        daemon.signal(signal.SIGHUP)
        until(lambda: "storage.commit_interval_ms" in daemon.said(), "the config to be applied")
        assert wire.call("record.batch", seq=1, records=[inference()])["last_seq"] == 1
    assert total(daemon, session_id) == 1


def test_a_storm_of_sighups_ends_with_the_last_config(daemon: Daemon) -> None:
    for number in range(1, 40):
        daemon.config.write_text(f'[file]\npath = "/dev/null/{number}"\n')
        daemon.signal(signal.SIGHUP)
    until(
        lambda: [each["endpoint"] for each in daemon.status()["upload"]["sinks"]] == ["/dev/null/39"],
        "the last config to be applied",
    )
    daemon.config.write_text("")
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.status()["upload"]["state"] == "off", "the sink to be off")
    assert "never retrieved" not in daemon.said()


def test_a_config_that_the_database_refuses_for_now_is_applied_when_it_does_not(daemon: Daemon) -> None:
    with contextlib.closing(sqlite3.connect(database(daemon), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon.config.write_text('[file]\npath = "/dev/null/x"\n')
        daemon.signal(signal.SIGHUP)
        until(lambda: "nothing is uploaded until the database can be used again" in daemon.said(), "a word about it")
        other.execute("ROLLBACK")
    until(
        lambda: [each["endpoint"] for each in daemon.status()["upload"]["sinks"]] == ["/dev/null/x"],
        "the config to be applied",
    )


def test_sighup_says_what_needs_a_restart(daemon: Daemon) -> None:
    daemon.config.write_text("[limits]\nmax_sessions = 1\n")
    daemon.signal(signal.SIGHUP)
    until(lambda: "limits.max_sessions" in daemon.said(), "the daemon to name the key")
    assert "restart" in daemon.said()
    assert daemon.status()["state"] == "ok"


@pytest.mark.parametrize("text", ["not toml [", "[storage]\ncommit_interval_ms = -1\n"])
def test_sighup_refuses_a_bad_config_and_keeps_the_one_it_has(daemon: Daemon, text: str) -> None:
    daemon.config.write_text(text)
    daemon.signal(signal.SIGHUP)
    until(lambda: "not applied" in daemon.said(), "the config to be refused")
    assert daemon.status()["state"] == "ok"
    wire, _ = producer(daemon)
    with wire:
        assert batch(wire, 1)["last_seq"] == 1


# Databases that are not as they should be


def test_a_database_of_a_newer_version_is_left_untouched(daemon: Daemon) -> None:
    daemon.stop()
    change(daemon, "PRAGMA user_version = 999")
    before = database(daemon).read_bytes()
    code, said = exit_of(daemon)
    assert code == 1
    assert "newer" in said
    assert "Traceback" not in said
    assert database(daemon).read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_file_that_is_no_database_is_set_aside_and_the_daemon_serves(daemon: Daemon, content: bytes) -> None:
    wire, session_id = producer(daemon)
    wire.close()
    daemon.stop()
    database(daemon).write_bytes(content)
    daemon.start()
    aside = [path for path in daemon.data.iterdir() if "damaged" in path.name]
    assert any(path.read_bytes() == content for path in aside)
    assert {mode(path) for path in aside} == {0o600}
    again, fresh = producer(daemon)
    with again:
        batch(again, 1)
        assert refusal(again, "session.get", session_id=session_id).code == "unknown_session"
    assert total(daemon, fresh) == 1
    assert daemon.status()["storage"]["salvages"]
    assert ledger_balances(ledger(daemon))


def test_an_empty_database_file_is_a_new_database(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    daemon.data.mkdir()
    database(daemon).touch()
    daemon.start()
    assert daemon.status()["state"] == "ok"


def filled(daemon: Daemon, sessions: int = 20, models: int = 40) -> dict[str, str]:
    """Sessions with as many records as models, one of them open: session by producer."""
    made = {}
    for number in range(sessions):
        client_id = new_id()
        wire, session_id = producer(daemon, client_id=client_id)
        with wire:
            records = [inference(model_id=f"model-{each}" + "x" * 100) for each in range(models)]
            wire.call("record.batch", seq=1, records=records, flush=True)
            if number:
                wire.call("session.end")
        made[client_id] = session_id
    return made


def damage(daemon: Daemon, table: str) -> None:
    """Overwrite a page in the middle of a table."""
    with contextlib.closing(sqlite3.connect(database(daemon))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = (
            connection.execute("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (table,)).fetchall()
            if has_dbstat(connection)
            else []
        )
    if not pages:
        pytest.skip("this SQLite cannot say which page belongs to what")
    (page,) = pages[len(pages) // 2]
    size = int.from_bytes(database(daemon).read_bytes()[16:18], "big")  # the page size, from the file's header
    with database(daemon).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


def has_dbstat(connection: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.Error):
        connection.execute("SELECT 1 FROM dbstat LIMIT 1")
        return True
    return False


@pytest.mark.parametrize("clean", [True, False], ids=["after a clean end", "after a kill"])
@pytest.mark.parametrize("table", ["model", "session", "producer", "ledger"])
def test_a_damaged_database_is_salvaged_and_served(daemon: Daemon, table: str, clean: bool) -> None:
    made = filled(daemon)
    if clean:
        daemon.stop()
    else:
        daemon.kill()
    damage(daemon, table)
    if not clean:
        database(daemon).with_name("xybridd.db-wal").write_bytes(b"\x00" * 32)  # the mark of an unclean end
    daemon.start()
    with daemon.wire() as wire:
        listed = {each["session_id"]: each for each in wire.call("session.list", limit=1000)["sessions"]}
        assert set(listed) <= set(made.values())
        for session_id in listed:
            assert wire.call("session.get", session_id=session_id)["total_inferences"] <= 40
        for client_id, session_id in made.items():
            assert wire.hello(client_id=client_id)["last_seq"] <= 1
            answer = batch(wire, 2)
            assert answer["last_seq"] == 2
            if session_id in listed:
                assert wire.call("session.export", session_id=session_id)
    assert ledger_balances(ledger(daemon))
    assert daemon.status()["storage"]["salvages"]


def test_a_damaged_database_with_an_open_session_does_not_keep_the_daemon_from_starting(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello(app="shell")
        records = [inference(model_id=f"model-{each}" + "x" * 200) for each in range(300)]
        wire.call("record.batch", seq=1, records=records, flush=True)
    assert daemon.stop() == 0
    damage(daemon, "model")
    daemon.start()
    wire, session_id = producer(daemon)
    with wire:
        batch(wire, 1)
    assert total(daemon, session_id) == 1
    assert ledger_balances(ledger(daemon))


def test_a_database_that_is_damaged_while_it_is_used_is_salvaged(daemon: Daemon) -> None:
    """Memory is newer than the file: what was acknowledged in sessions that are active is all there."""
    wire, session_id = producer(daemon)
    with wire:
        batch(wire, 1, 10)
        database(daemon).write_bytes(b"\xff" * database(daemon).stat().st_size)
        for seq in range(2, 6):
            assert batch(wire, seq, 10)["last_seq"] == seq
        daemon.kill()
    daemon.start()
    assert total(daemon, session_id) == 50
    assert ledger_balances(ledger(daemon))


def test_a_salvage_that_was_itself_killed_loses_nothing_that_could_be_read(daemon: Daemon) -> None:
    made = filled(daemon, sessions=40, models=300)
    daemon.kill()
    damage(daemon, "producer")
    database(daemon).with_name("xybridd.db-wal").write_bytes(b"\x00" * 32)
    daemon.launch()
    until(lambda: database(daemon).with_name("xybridd.db.new").exists(), "the salvage to begin")
    daemon.kill()
    daemon.start()
    with daemon.wire() as wire:
        listed = wire.call("session.list", limit=1000)["sessions"]
        assert {each["session_id"] for each in listed} == set(made.values())
        assert sum(each["total_inferences"] for each in listed) == 40 * 300
    assert ledger_balances(ledger(daemon))


def test_systemd_is_told_when_it_is_ready(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(30)
        notify.bind(str(folder / "n"))
        make_daemon("", {"NOTIFY_SOCKET": str(folder / "n")}).start()
        assert b"READY=1" in notify.recv(4096)


def test_status_is_answered_whatever_state_the_database_is_in(daemon: Daemon) -> None:
    filled(daemon)
    daemon.stop()
    daemon.start()
    with database(daemon).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (database(daemon).stat().st_size - 4096))
    assert daemon.status()["state"] in {"ok", "degraded"}
