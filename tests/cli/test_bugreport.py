"""`xybridd bugreport`: what is in the archive, and that no secret is, wherever one was put."""

from __future__ import annotations

import gzip
import json
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon

SECRETS = {
    "key in the environment": "xk-environment-1a2b3c",
    "key beside the config": "plainkeywithoutdigits",
    "header": "tenant/secret+4711",
    "bearer": "bearerwordonly",
    "password in a URL": "pw-in-url-55",
    "user in a URL": "collector-user",
    "query of a URL": "query-token-66",
    "key in a drop-in": "dropin-key-77",
    "key in the log": "logged-key-88",
    "value of a label": "label-value-99",
    "model": "unreleased-model",
    "app": "secret-app-name",
    "error": "the-patient-is-well",
}

JOURNAL = f"""#!/bin/sh
echo "Nov 25 12:00:00 somewhere xybridd[7]: tried https://u:{SECRETS["password in a URL"]}@host/p?t=1"
echo "XYBRID_API_KEY={SECRETS["key in the log"]}"
echo "sent with {SECRETS["key in the environment"]} by ada@example.org from 10.1.2.3"
"""


@pytest.fixture
def planted(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon, and a secret wherever one may be."""
    daemon = make_daemon(
        "[upload]\n"
        f'endpoint = "https://{SECRETS["user in a URL"]}:{SECRETS["password in a URL"]}@nowhere.invalid/in'
        f'?token={SECRETS["query of a URL"]}"\n'
        "[otlp]\n"
        f'endpoint = "http://{SECRETS["user in a URL"]}:{SECRETS["password in a URL"]}@localhost:9"\n'
        'headers_file = "headers"\n',
        {"XYBRID_API_KEY": SECRETS["key in the environment"]},
    )
    home = daemon.folder
    headers = home / "headers"
    daemon.config.write_text(daemon.config.read_text().replace('"headers"', f'"{headers}"'))
    headers.write_text(f"Authorization: Bearer {SECRETS['bearer']}\nX-Tenant: {SECRETS['header']}\n")
    (home / "api-key").write_text(SECRETS["key beside the config"])
    for path in (headers, home / "api-key"):
        path.chmod(0o600)
    units = home / ".config/systemd/user"
    (units / "xybridd.service.d").mkdir(parents=True)
    (units / "xybridd.service").write_text("[Service]\nExecStart=/usr/bin/xybridd run\n")
    (units / "xybridd.service.d/override.conf").write_text(
        f'[Service]\nEnvironment="XYBRID_API_KEY={SECRETS["key in a drop-in"]}"\n'
    )
    tools = home / "tools"
    tools.mkdir()
    (tools / "journalctl").write_text(JOURNAL)
    (tools / "journalctl").chmod(0o755)
    daemon.env["PATH"] = f"{tools}:{daemon.env['PATH']}"
    daemon.start()
    with daemon.wire() as wire:
        wire.hello(app=SECRETS["app"])
        wire.call("session.start", labels={"who": SECRETS["value of a label"]})
        wire.call("record.inference", model_id=SECRETS["model"], version="1", latency_ms=1)
        wire.call("record.error", error=SECRETS["error"])
    return daemon


def reported(daemon: Daemon, folder: Path) -> dict[str, str]:
    """Every file of the archive by its name."""
    path = folder / "report.tar.gz"
    done = daemon.xybridd("bugreport", "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert all(member.isreg() and member.mode == 0o600 and member.uid == 0 for member in members)
        taken = {member.name: archive.extractfile(member) for member in members}
        return {name.partition("/")[2]: file.read().decode() for name, file in taken.items() if file is not None}


def test_no_secret_is_in_it(planted: Daemon, folder: Path) -> None:
    files = reported(planted, folder)
    raw = gzip.decompress((folder / "report.tar.gz").read_bytes())
    for where, secret in SECRETS.items():
        assert secret.encode() not in raw, where
    for mine in (str(planted.folder), "ada@example.org", "10.1.2.3"):
        assert mine.encode() not in raw
    # The places were looked at: what stood around the secrets is there.
    assert "nowhere.invalid" in files["config.json"]
    assert "XYBRID_API_KEY=[redacted]" in files["log.txt"]
    assert "override.conf" in files["units.txt"]
    assert "XYBRID_API_KEY" in files["units.txt"]
    assert "XYBRID_API_KEY" in json.loads(files["versions.json"])["environment"]


def test_what_is_in_it(planted: Daemon, folder: Path) -> None:
    files = reported(planted, folder)
    manifest = files.pop("MANIFEST.txt")
    assert all(name in manifest for name in files)
    assert json.loads(files["status.json"])["state"] == "ok"
    assert {each["check"] for each in json.loads(files["doctor.json"])} >= {"daemon", "database", "network"}
    assert json.loads(files["database.json"])["rows"]["error"] == 1
    assert json.loads(files["config.json"])["changed"]["upload.endpoint"] == "https://nowhere.invalid/in"
    assert "memory" in json.loads(files["device.json"])["details"]


def test_a_preview_shows_all_and_writes_nothing(planted: Daemon) -> None:
    before = sorted(planted.folder.iterdir())
    shown = planted.xybridd("bugreport", "--preview", cwd=planted.folder).stdout
    for name in ("MANIFEST.txt", "status.json", "units.txt"):
        assert f"── {name}" in shown
    assert not any(secret in shown for secret in SECRETS.values())
    assert sorted(planted.folder.iterdir()) == before


def test_without_a_daemon(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    daemon = make_daemon().start()
    assert daemon.stop() == 0
    files = reported(daemon, folder)
    assert json.loads(files["database.json"])["rows"]["session"] == 0
    assert "no daemon answers" in files["status.json"]
    assert "memory" in json.loads(files["device.json"])["details"]


def test_a_file_that_is_there_is_left_alone(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    path = folder / "mine"
    path.write_text("mine")
    done = make_daemon().xybridd("bugreport", "-o", str(path))
    assert done.returncode == 1
    assert "--output" in done.stderr
    assert path.read_text() == "mine"
