"""`xybridd doctor` in situations that are really broken, and in one that is well."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.support import RECEIVER_KEY, WireFailure, inference
from xybridd.cli.checks import register
from xybridd.cli.checks.scene import Scene, config_of, look_around
from xybridd.config import Config
from xybridd.core.health.finding import Finding, Level
from xybridd.paths import SYSTEM_SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon
    from xybridd.testing import Receiver


def examined(daemon: Daemon, **more: Any) -> dict[str, dict[str, Any]]:
    """The findings by what was checked; of several the worst."""
    done = daemon.xybridd("doctor", "--json", **more)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert done.returncode == {"problem": 7, "warning": 6}.get(told["worst"], 0)
    return {each["check"]: each for each in reversed(told["findings"])}


def level(found: dict[str, dict[str, Any]], check: str) -> str:
    return str(found[check]["level"])


def test_a_daemon_that_is_well(daemon: Daemon) -> None:
    found = examined(daemon)
    for check in (
        "daemon",
        "version",
        "ledger",
        "socket",
        "data folder",
        "database",
        "config",
        "upload",
        "spool",
        "clients",
    ):
        assert level(found, check) == "ok", found[check]
    shown = daemon.xybridd("doctor").stdout
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].endswith(f"xybridd {found['version']['says'].split()[-1]}")


def test_nothing_is_there(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    before = sorted(daemon.folder.rglob("*"))
    found = examined(daemon)
    assert level(found, "daemon") == "problem"
    assert found["daemon"]["mend"] == "xybridd run"
    assert level(found, "data folder") == level(found, "database") == "ok"
    assert sorted(daemon.folder.rglob("*")) == before
    assert daemon.xybridd("doctor").stdout.startswith("✗ daemon")


def test_a_daemon_that_hangs(daemon: Daemon) -> None:
    daemon.signal(signal.SIGSTOP)
    found = examined(daemon)
    assert level(found, "daemon") == "problem"
    assert level(found, "database") == "unknown"
    assert "does not answer" in found["daemon"]["says"]


def test_a_socket_that_was_left(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.kill()
    found = examined(daemon)
    assert level(found, "daemon") == "problem"
    assert "nobody listens" in found["socket"]["says"]


def test_a_config_that_cannot_be_used_and_one_with_a_slip(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[storage]\nquota_mib = 0\n")
    found = examined(daemon)
    assert level(found, "config") == "problem"
    assert "storage.quota_mib" in found["config"]["says"]
    daemon.config.write_text("[storage]\nquota = 5\n")
    found = examined(daemon)
    assert level(found, "config") == "warning"
    assert "quota_mib" in found["config"]["says"]
    daemon.config.chmod(0o666)
    found = examined(daemon)
    assert level(found, "config") == "problem"
    assert found["config permissions"]["mend"] == f"chmod go-w {daemon.config}"


def test_variables_that_decline_telemetry(make_daemon: Callable[..., Daemon]) -> None:
    found = examined(make_daemon(env={"DO_NOT_TRACK": "1"}))
    assert found["opt-out"]["mend"] == "unset DO_NOT_TRACK"


def test_a_database_is_looked_at_without_being_touched(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    with daemon.wire() as wire:
        wire.hello()
        wire.call("record.batch", seq=1, records=[inference()] * 50, flush=True)
    daemon.kill()
    before = {path: path.read_bytes() for path in sorted(daemon.data.iterdir()) if path.is_file()}
    found = examined(daemon)
    assert level(found, "database") == "ok"
    assert "did not end cleanly" in found["database"]["says"]
    assert {path: path.read_bytes() for path in sorted(daemon.data.iterdir()) if path.is_file()} == before


def test_a_damaged_database(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    assert daemon.stop() == 0
    path = daemon.data / "xybridd.db"
    good = path.read_bytes()
    path.write_bytes(good[:4096] + b"\xa5" * 8192 + good[12_288:])
    found = examined(daemon)
    assert level(found, "database") == "problem"
    daemon.start()
    found = examined(daemon)
    assert level(found, "database") == "ok"
    assert level(found, "salvage") == "warning"
    assert found["salvage"]["mend"].startswith(f"rm {daemon.data}/xybridd.db.damaged-")
    subprocess.run(["sh", "-c", found["salvage"]["mend"]], check=True)
    assert level(examined(daemon), "salvage") == "ok"


def test_damage_under_a_running_daemon_is_found_and_mended_by_it(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello()
        wire.call("record.batch", seq=1, records=[inference()], flush=True)
        checked = wire.call("daemon.check")
        assert checked["complaint"] is None
        assert checked["rows"]["model"] == 1
    path = daemon.data / "xybridd.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * 16_384)
    assert level(examined(daemon), "database") in {"problem", "ok"}  # ok: read from its cache
    assert level(examined(daemon), "ledger") == "ok"


def test_a_database_of_a_newer_version(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.data / "xybridd.db")) as connection:
        connection.executescript("ALTER TABLE session ADD COLUMN of_tomorrow INTEGER; PRAGMA user_version = 9999;")
    assert "newer" in examined(daemon)["database"]["says"]


def test_a_file_system_in_memory_and_full(make_daemon: Callable[..., Daemon], disk: Path) -> None:
    daemon = make_daemon(env={"XYBRIDD_DATA_DIR": str(disk / "data")})
    found = examined(daemon)
    assert level(found, "file system") == "warning"
    assert level(found, "disk") == "problem"
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    found = examined(daemon)
    assert "read-only" in found["disk"]["says"]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def test_what_waits_for_a_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    script = (
        "import xybridd\n"
        "client = xybridd.connect(app='kiosk')\n"
        "client.record_inference('m', '1', latency_ms=1)\n"
        "client.close(timeout_s=0.1)\n"
    )
    subprocess.run([sys.executable, "-c", script], env=daemon.env, check=True)
    found = examined(daemon)
    assert level(found, "spool") == "warning"
    assert found["spool"]["mend"] == "xybridd run"


def test_a_ring_whose_process_lives_does_not_wait(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    script = (
        "import sys, xybridd\n"
        "client = xybridd.connect(app='kiosk')\n"
        "client.record_inference('m', '1', latency_ms=1)\n"
        "print('on', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"on\n"
        assert list((daemon.data / "spool").glob("*.ring"))
        assert examined(daemon)["spool"]["says"] == "empty"
        app.kill()
        app.wait()
        assert "1 ring of exited processes" in examined(daemon)["spool"]["says"]


def test_a_file_that_is_no_ring(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    (daemon.data / "spool").mkdir(parents=True, mode=0o700)
    (daemon.data / "spool" / "some.damaged").write_bytes(b"junk")
    found = examined(daemon)
    assert level(found, "spool") == "warning"
    assert found["spool"]["mend"] == f"ls -l {daemon.data / 'spool'}"


def test_a_client_that_is_refused(daemon: Daemon) -> None:
    with daemon.wire() as wire, pytest.raises(WireFailure):
        wire.call("hello", app="kiosk", client_id="no UUID")
    found = examined(daemon)
    assert level(found, "clients") == "warning"
    assert "kiosk" in found["clients"]["says"]
    assert "correct in this app" in found["clients"]["mend"]
    shown = daemon.xybridd("status").stdout
    assert "kiosk (user" in shown
    assert "hello was refused 1 time, last" in shown


# The network


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def sent_to(port: int, scheme: str = "http", **more: str) -> str:
    lines = [f'{name} = "{value}"' for name, value in {"endpoint": f"{scheme}://localhost:{port}", **more}.items()]
    return "\n".join(["[upload]", *lines])


def test_an_endpoint_that_answers_is_sent_nothing(make_daemon: Callable[..., Daemon], receiver: Receiver) -> None:
    daemon = make_daemon(f'[upload]\nendpoint = "{receiver.url}"\n', {"XYBRID_API_KEY": RECEIVER_KEY}).start()
    found = examined(daemon)
    assert level(found, "network") == "ok"
    assert level(found, "upload") == "ok"
    assert level(found, "API key") == "ok"
    assert receiver.seen()["requests"] == []


def test_endpoints_that_cannot_be_reached(make_daemon: Callable[..., Daemon]) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
    found = examined(make_daemon(sent_to(port)))
    assert level(found, "network") == "problem"
    assert f"localhost:{port}" in found["network"]["says"]
    found = examined(make_daemon('[upload]\nendpoint = "https://nowhere.invalid"\n'))
    assert "no address" in found["network"]["says"]


def test_an_endpoint_behind_a_certificate(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with listening() as server:
        greeter = threading.Thread(target=_greet, args=(server, context, 2))
        greeter.start()
        port = server.getsockname()[1]
        found = examined(make_daemon(sent_to(port, "https")))
        assert level(found, "network") == "problem"
        assert "not trusted" in found["network"]["says"]
        found = examined(make_daemon(sent_to(port, "https", ca_bundle=str(folder / "ca.pem"))))
        assert level(found, "network") == "ok"
        greeter.join()


def _greet(server: socket.socket, context: ssl.SSLContext, times: int) -> None:
    """Shake hands, and read to the end: whatever came after the greeting would be data."""
    for _ in range(times):
        connection, _address = server.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as trusted:
                assert trusted.recv(1) == b""
        except OSError:
            connection.close()


def test_a_key_that_others_may_read(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    key = folder / "key"
    key.write_text("xk-secret-0123456789")
    key.chmod(0o644)
    daemon = make_daemon(f'[upload]\nkey_file = "{key}"\n')
    found = examined(daemon)
    assert level(found, "API key") == level(found, "upload") == "problem"
    assert found["API key"]["mend"] == f"chmod 600 {key}"
    assert "xk-secret" not in daemon.xybridd("doctor").stdout


# Who asks


#: Once as root, so that all is imported: another user may not be able to read where it is.
AS_NOBODY = """
import contextlib, io, os, sys
from xybridd.cli.main import _run
with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
    _run(["doctor", "--json"])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(_run(["doctor", "--json"]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_somebody_who_may_nothing(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon = make_daemon("[socket]\nmode = '0600'\n").start()
    for path in (folder, daemon.folder):
        path.chmod(0o755)
    home = folder / "home"
    home.mkdir(mode=0o755)
    shutil.chown(home, 65534)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], env=daemon.env | {"HOME": str(home)}, capture_output=True, check=False
    )
    assert done.stdout, done.stderr
    found = {each["check"]: each for each in reversed(json.loads(done.stdout)["findings"])}
    assert done.returncode == 7
    assert level(found, "socket") == "problem"
    assert level(found, "daemon") == level(found, "database") == "unknown"


def test_one_check_that_fails_or_hangs_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def fails(_scene: Scene) -> list[Finding]:
        raise ValueError("no such thing")

    def hangs(_scene: Scene) -> list[Finding]:
        gate.wait()
        return []

    checks = (register.Check("a", fails), register.Check("b", hangs, 0.01), register.CHECKS[-4])
    monkeypatch.setattr(register, "CHECKS", checks)
    monkeypatch.setattr(register, "look_around", _nowhere)
    found = register.examine()
    gate.set()
    assert [each.level for each in found[:2]] == [Level.UNKNOWN, Level.PROBLEM]
    assert "no such thing" in found[0].says
    assert found[2].check == "config"


def _nowhere() -> Scene:
    return Scene(Config(), None, None, (), None, None, None, None, "ada", 1000)


def test_the_scene_without_a_daemon_is_the_configs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYBRIDD_SOCKET", str(folder / "none"))
    monkeypatch.setenv("XYBRIDD_DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("XYBRIDD_CONFIG", str(folder / "none.toml"))
    scene = look_around()
    assert scene.data == folder / "data"
    assert not scene.daemon_runs
    assert scene.config_error is not None


def test_whose_config_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XYBRIDD_CONFIG", raising=False)
    folder, config = str(tmp_path), tmp_path / "config.toml"
    assert config_of(SYSTEM_SOCKET, "system", folder) is None  # it has none: the defaults hold
    config.touch()
    assert config_of(SYSTEM_SOCKET, None, folder) == str(config)
    assert config_of(None, "system", folder) == str(config)
    assert config_of(tmp_path / "own.sock", "system", folder) is None
    assert config_of(None, "user", folder) is None
    monkeypatch.setenv("XYBRIDD_CONFIG", "/elsewhere")
    assert config_of(SYSTEM_SOCKET, "system", folder) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_user_without_a_name(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    """As in a container that is run under a number."""
    daemon = make_daemon()
    env = {name: value for name, value in daemon.env.items() if name not in {"USER", "LOGNAME", "LNAME", "USERNAME"}}
    for path in (folder, daemon.folder):
        path.chmod(0o755)
    script = (
        AS_NOBODY.replace("65534", "54321")
        .replace('"doctor", "--json"', '"doctor"')
        .replace("os.setgroups", "_run(['status']); os.setgroups")
    )
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    assert "no daemon answers" in done.stderr


def test_what_is_well_takes_a_line_together_or_one_each(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    shown = daemon.xybridd("doctor").stdout
    assert "✗ daemon" in shown
    assert shown.count("✓") == 1
    assert "✓ data folder" in daemon.xybridd("doctor", "--verbose").stdout
