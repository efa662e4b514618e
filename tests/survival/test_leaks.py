"""Everything that a run wrote is searched for what must not stand there: keys, tokens, people, homes, addresses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support import RECEIVER_KEY, until
from xybridd.testing import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon
    from xybridd.testing import Receiver

#: Each alone in an error, as libraries write them.
PLANTED = {
    "Xk9sVeryLongKey1234": "HTTP 401 for api_key=Xk9sVeryLongKey1234 at load",
    "sk-proj-AbCdEf0123456789xyz": "Incorrect API key provided: sk-proj-AbCdEf0123456789xyz",
    "hf_AbCdEfGhIjKlMnOpQrSt": "gated repo, token hf_AbCdEfGhIjKlMnOpQrSt is not allowed",
    "ghp_0123456789abcdefghijABCDEFGHIJ": "clone failed for ghp_0123456789abcdefghijABCDEFGHIJ",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.sig-nature": (
        "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.sig-nature refused"
    ),
    "ada.lovelace@example.org": "no licence for ada.lovelace@example.org",
    "/home/adalovelace": "cannot open /home/adalovelace/models/w.onnx",
    "/Users/AdaLovelace": "cannot open /Users/AdaLovelace/Library/w.mlmodelc",
    "203.0.113.77": "connection to 203.0.113.77:443 failed",
    "2001:db8::77aa": "connection to [2001:db8::77aa]:443 failed",
    "hunter2hunter2": "cannot get https://ada:hunter2hunter2@models.example/w.onnx",
    "querysecret99": "cannot get https://models.example/w.onnx?sig=querysecret99",
    "Tr0ub4dor-passwd": 'config {"password": "Tr0ub4dor-passwd"} is invalid',
}

#: Ours: what the daemon is given to send with.
HEADER_SECRET = "otlp-header-secret-5521"  # noqa: S105 - planted
SECRETS = [*PLANTED, RECEIVER_KEY, HEADER_SECRET, "endpointpass77"]

APP = """
import json, sys, xybridd
client = xybridd.connect(app="leaky")
for message in json.loads(sys.argv[1]):
    client.record_error(message, model_id="m", version="1")
client.record_inference("m", "1", latency_ms=5)
if sys.argv[2] == "flush":
    assert client.flush(timeout_s=30)
"""


def app(daemon: Daemon, how: str) -> None:
    subprocess.run([sys.executable, "-c", APP, json.dumps(list(PLANTED.values())), how], env=daemon.env, check=True)


def written(folder: Path) -> dict[str, bytes]:
    """Every file below, but those that hold secrets by their purpose."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in {"api-key", "headers", "config.toml"}
    }


def found(texts: dict[str, bytes]) -> list[tuple[str, str]]:
    return [(name, secret) for name, data in texts.items() for secret in SECRETS if secret.encode() in data]


def test_nothing_that_a_run_wrote_holds_a_secret(
    make_daemon: Callable[..., Daemon], receiver: Receiver, folder: Path
) -> None:
    daemon = make_daemon(env={"XYBRIDD_DATA_DIR": str(folder / "data")})
    key, headers = daemon.folder / "api-key", daemon.folder / "headers"
    for path, text in ((key, RECEIVER_KEY), (headers, f"X-Token: {HEADER_SECRET}\n")):
        path.write_text(text)
        path.chmod(0o600)
    host = receiver.url.removeprefix("http://")
    daemon.config.write_text(
        f'[upload]\nendpoint = "http://ada:endpointpass77@{host}"\nwait_while_inferring = false\n'
        f'[otlp]\nendpoint = "http://127.0.0.1:1"\nheaders_file = "{headers}"\n'
        f'[file]\npath = "{folder / "exports.jsonl"}"\n[log]\nlevel = "debug"\n'
    )
    # Without a daemon: a ring, the app's own memory in a file that only its user can read, until a daemon has read it.
    app(daemon, "leave")
    (ring,) = (folder / "data" / "spool").iterdir()
    assert ring.stat().st_mode & 0o777 == 0o600
    daemon.start()
    until(lambda: not any((folder / "data" / "spool").iterdir()), "the spool to be brought")
    receiver.misbehave(Behaviour("status", status=400, times=1))
    app(daemon, "flush")
    texts: dict[str, bytes] = {}
    with daemon.wire() as wire:
        wire.call("upload.now")
        until(lambda: wire.call("upload.dead.list")["dead"], "a dead letter")
        wire.call("upload.now")
        until(receiver.counts, "an export")
        until((folder / "exports.jsonl").exists, "the file")
        for method, params in calls(wire):
            texts[method] = json.dumps(wire.call(method, **params)).encode()
        # What is told when something is wrong with what was said.
        for line in PLANTED.values():
            wire.send("record.error", error=line, category=line)
            texts[f"answer to {line[:8]}"] = json.dumps(wire.read()).encode()
    for command in (("status",), ("doctor",), ("config", "show"), ("sessions", "list"), ("upload", "dead", "list")):
        done = daemon.xybridd(*command)
        texts[" ".join(command)] = (done.stdout + done.stderr).encode()
    texts["received"] = receiver.last_body() + json.dumps(receiver.seen()).encode()
    texts |= written(folder)  # the database with its log, while it is open
    daemon.kill()
    texts |= {f"after a kill: {name}": data for name, data in written(folder).items()}
    assert any(name.endswith("xybridd.db-wal") for name in texts)
    assert found(texts) == []
    # The search is not blind: the rest of the messages is there.
    assert b"no licence for [email]" in b"".join(data for name, data in texts.items() if "xybridd.db" in name)


def calls(wire: Any) -> list[tuple[str, dict[str, Any]]]:
    session_id = wire.call("session.list")["sessions"][0]["session_id"]
    dead = wire.call("upload.dead.list")["dead"][0]["export_id"]
    return [
        ("daemon.status", {}),
        ("session.list", {}),
        ("session.get", {"session_id": session_id}),
        ("session.export", {"session_id": session_id}),
        ("upload.status", {}),
        ("upload.preview", {}),
        ("upload.dead.list", {}),
        ("upload.dead.show", {"export_id": dead}),
        ("device.capabilities", {}),
        ("stats.minutes", {}),
    ]
