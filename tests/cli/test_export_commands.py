"""``xybridd export`` and ``xybridd import``: what would be sent, to the byte; and files carried from device to device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.cli.outward import KEY, at_a_terminal, ended, sending_to, sinks, told, until_idle, until_state
from tests.daemon.scenes import change
from tests.support import PATIENCE_S
from xybridd.client.connection import Connection
from xybridd.core.importing import item_from
from xybridd.core.minute import Sample
from xybridd.testing import Behaviour, Receiver

export = import_module("xybridd.cli.export")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon


@pytest.fixture
def sending(make_daemon: Callable[..., Daemon], receiver: Receiver) -> Daemon:
    return sending_to(make_daemon, receiver)


def output(daemon: Daemon, *arguments: str) -> tuple[bytes, str]:
    """Standard output to the byte, and standard error."""
    command = [sys.executable, "-m", "xybridd", *arguments]
    done = subprocess.run(command, env=daemon.env, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.decode()


# The next bytes


def test_a_preview_is_the_very_bytes_that_then_go(sending: Daemon, receiver: Receiver) -> None:
    sending.xybridd("upload", "pause")
    made = ended(sending, 3)
    body, head = output(sending, "export", "--preview")
    assert body == output(sending, "export", "--preview", "--sink", "xybrid")[0]
    assert [event["session_id"] for event in json.loads(body)["events"]] == made
    assert f"POST {receiver.url}/v1/events/batch" in head
    assert "Idempotency-Key: " in head
    assert KEY not in head + body.decode()
    assert receiver.seen()["requests"] == []
    sending.xybridd("upload", "resume")
    until_idle(sending)
    assert receiver.last_body() == body


def test_a_preview_of_a_batch_that_failed_is_what_goes_again(sending: Daemon, receiver: Receiver) -> None:
    receiver.misbehave(Behaviour("status", times=1, status=503, retry_after="600"))
    ended(sending)
    until_state(sending, "retrying")
    ended(sending)  # waits behind it, in a batch of its own
    body, head = output(sending, "export", "--preview")
    assert "it was sent before" in head
    done = sending.xybridd("upload", "now")
    assert done.returncode == 0, done.stdout
    first, second = receiver.seen()["batches"]
    assert first["key"] == json.loads(body)["idempotency_key"]
    assert first["events"] == json.loads(body)["events"]
    assert second["key"] != first["key"]


def test_a_preview_of_the_file_is_its_lines(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    path = folder / "out" / "exports.jsonl"
    daemon = make_daemon(f'[upload]\nwait_while_inferring = false\n[file]\npath = "{path}"\n').start()
    daemon.xybridd("upload", "pause")
    ended(daemon, 2)
    body, head = output(daemon, "export", "--preview")
    assert f"append to {path}: 2 lines" in head
    daemon.xybridd("upload", "resume")
    until_idle(daemon)
    assert path.read_bytes() == body


def test_a_preview_of_otlp_is_its_message_as_json(make_daemon: Callable[..., Daemon], receiver: Receiver) -> None:
    daemon = sending_to(make_daemon, receiver, f'[otlp]\nendpoint = "http://me:{KEY}@127.0.0.1:{receiver.port}"\n')
    daemon.xybridd("upload", "pause")
    ended(daemon)
    both = daemon.xybridd("export", "--preview")
    assert both.returncode == 2
    assert "--sink" in both.stderr
    body, head = output(daemon, "export", "--preview", "--sink", "otlp")
    assert f"POST http://127.0.0.1:{receiver.port}/v1/metrics" in head
    assert KEY not in head
    metrics = json.loads(body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert "gen_ai.client.operation.duration" in {metric["name"] for metric in metrics}


def test_nothing_to_preview_is_a_sentence(sending: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    assert output(sending, "export", "--preview") == (b"", "nothing waits to be sent\n")
    wrong = sending.xybridd("export", "--preview", "--sink", "otlp")
    assert wrong.returncode == 1
    assert "on are: xybrid" in wrong.stderr
    off = make_daemon().start()
    body, said = output(off, "export", "--preview")
    assert (body, "upload is off" in said) == (b"", True)


def test_export_without_an_option_helps(daemon: Daemon) -> None:
    assert "Usage: xybridd export" in daemon.xybridd("export").stdout


@pytest.mark.parametrize(
    "options",
    ["--preview --to x", "--preview --active", "--sink file", "abc", "--since 7d", "--to x --since soon", "--force"],
)
def test_options_that_do_not_go_together(daemon: Daemon, options: str) -> None:
    done = daemon.xybridd("export", *options.split(), cwd=daemon.folder)
    assert done.returncode == 2
    assert not (daemon.folder / "x").exists()


# From device to device


def test_a_round_trip_brings_every_session_once(
    make_daemon: Callable[..., Daemon], sending: Daemon, receiver: Receiver, folder: Path
) -> None:
    offline = make_daemon().start()
    made = ended(offline, 7)
    file = folder / "stick.jsonl"
    done = offline.xybridd("export", "--to", str(file))
    assert "7 sessions" in done.stdout
    assert "xybridd import stick.jsonl" in done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["session_id"] for line in file.read_text().splitlines()] == made
    assert "queued 7 exports" in sending.xybridd("import", str(file)).stdout
    until_idle(sending)
    assert receiver.counts() == {(session_id, 1): 1 for session_id in made}
    devices = {event["device_id"] for batch in receiver.seen()["batches"] for event in batch["events"]}
    assert devices == {offline.status()["device_id"]}
    assert told(sending, "import", str(file), str(file)) == {"queued": 0, "known": 14}
    assert len(receiver.seen()["batches"]) == 1


def test_what_the_file_sink_wrote_is_taken_from_a_pipe(
    make_daemon: Callable[..., Daemon], sending: Daemon, receiver: Receiver, folder: Path
) -> None:
    path = folder / "exports.jsonl"
    offline = make_daemon(f'[upload]\nwait_while_inferring = false\n[file]\npath = "{path}"\n').start()
    made = ended(offline, 2)
    until_idle(offline)
    done = sending.xybridd("import", "-", input=path.read_text())
    assert "queued 2 exports" in done.stdout, done.stderr
    until_idle(sending)
    assert receiver.counts() == {(session_id, 1): 1 for session_id in made}


def test_what_is_sent_in_many_requests_is_all_there(
    make_daemon: Callable[..., Daemon], receiver: Receiver, folder: Path
) -> None:
    small = sending_to(make_daemon, receiver, "[limits]\nmax_frame_bytes = 16384\n")
    made = ended(small, 12)
    until_idle(small)
    again = Receiver(key=KEY)
    with again:
        other = sending_to(make_daemon, again, "[limits]\nmax_frame_bytes = 16384\n")
        file = folder / "many.jsonl"
        small.xybridd("export", "--to", str(file))
        assert file.stat().st_size > 16384
        assert told(other, "import", str(file)) == {"queued": 12, "known": 0}
        until_idle(other)
        assert again.counts() == {(session_id, 1): 1 for session_id in made}


def test_which_sessions_are_written(daemon: Daemon) -> None:
    first, second = ended(daemon, 2)
    with daemon.wire() as wire:
        wire.hello("kiosk")
        running = wire.call("session.start")["session_id"]

        def written(*arguments: str) -> set[str]:
            return {
                json.loads(line)["session_id"]
                for line in output(daemon, "export", "--to", "-", *arguments)[0].splitlines()
            }

        assert written() == {first, second}
        assert written("--active") == {first, second, running}
        assert written("--since", "1h") == {first, second}
        assert written(first[:8], running) == {first, running}
    once, twice = (output(daemon, "export", "--to", "-", first)[0] for _ in range(2))
    assert json.loads(once)["idempotency_key"] == json.loads(twice)["idempotency_key"]
    assert item_from(once, 0).session_id == first
    missing = daemon.xybridd("export", "zz", "--to", "-")
    assert missing.returncode == 1
    assert "xybridd sessions list" in missing.stderr


@pytest.mark.parametrize("at_once", [2, 3, 9, 10])
def test_a_long_list_is_read_in_parts(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    made = ended(daemon, 9)
    monkeypatch.setattr(export, "_LISTED_AT_ONCE", at_once)
    connection = Connection.open([daemon.socket])
    assert export._listed(connection, active=False, since=None) == made
    connection.close()


def test_a_file_is_not_overwritten_unless_asked_for(daemon: Daemon, folder: Path) -> None:
    ended(daemon)
    file = folder / "mine"
    file.write_text("precious")
    refused = daemon.xybridd("export", "--to", str(file))
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert file.read_text() == "precious"
    assert told(daemon, "export", "--to", str(file), "--force") == {"path": str(file), "sessions": 1}
    assert json.loads(file.read_text())["event_type"] == "SessionExport"
    for nowhere in (folder / "missing" / "x", folder):
        done = daemon.xybridd("export", "--to", str(nowhere), "--force")
        assert (done.returncode, done.stdout) == (1, "")
        assert str(nowhere) in done.stderr
    assert not [each for each in folder.iterdir() if each.name.endswith(".part")]


# What is no export


def a_line(daemon: Daemon) -> bytes:
    ended(daemon)
    return output(daemon, "export", "--to", "-")[0].splitlines()[0]


BAD: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("junk", lambda line: line + b"\n" + bytes(range(1, 256)) * 20, "line 2: not an export"),
    ("not-text", lambda line: line.replace(b'"linux"', b'"\xff"'), "line 1: not an export: it is not text"),
    ("version", lambda line: line.replace(b'"version":"2.0"', b'"version":"9.9"'), "line 1: an export of version '9.9'"),
    ("half", lambda line: line + b"\n" + line[:400], "line 2: not an export: the line is cut off"),
    ("other", lambda line: line.replace(b"SessionExport", b"Surprise"), "line 1: no export, but an event of type"),
    ("array", lambda _: b"[]\n", "line 1: not an export"),
    ("long", lambda line: line + b"\n" + line[:-1] + b" " * 2**20 + b"}", "raise max_frame_bytes under [limits]"),
    ("empty", lambda _: b"", "there is no export in"),
    ("blank", lambda _: b"\n\n \n", "there is no export in"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_named_and_nothing_is_taken(
    make_daemon: Callable[..., Daemon], folder: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    daemon = make_daemon('[file]\npath = "/dev/null/x"\n').start()
    line = a_line(make_daemon().start())
    good, bad = folder / "good.jsonl", folder / "bad.jsonl"
    good.write_bytes(line)
    bad.write_bytes(spoil(line))
    done = daemon.xybridd("import", *([] if said.startswith("there is no") else [str(good)]), str(bad))
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert str(bad) in done.stderr
    assert sinks(daemon)["file"]["made"] == 0
    assert told(daemon, "import", str(good)) == {"queued": 1, "known": 0}


@pytest.mark.parametrize("files", [[], ["missing.jsonl"], ["."]], ids=str)
def test_a_file_that_is_none_is_a_mistake_in_usage(daemon: Daemon, files: list[str]) -> None:
    done = daemon.xybridd("import", *files, cwd=daemon.folder)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_with_nowhere_to_send_to_nothing_is_taken(daemon: Daemon, folder: Path) -> None:
    (folder / "x").write_bytes(a_line(daemon))
    done = daemon.xybridd("import", str(folder / "x"))
    assert done.returncode == 1
    assert "no sink that takes sessions is on" in done.stderr


def test_bars_are_for_terminals(make_daemon: Callable[..., Daemon], daemon: Daemon, folder: Path) -> None:
    ended(daemon, 3)
    code, shown = at_a_terminal(daemon, "export", "--to", str(folder / "x"))
    assert (code, "━" in shown) == (0, True)
    other = make_daemon('[file]\npath = "/dev/null/x"\n').start()
    code, shown = at_a_terminal(other, "import", str(folder / "x"))
    assert (code, "━" in shown) == (0, True)
    assert "queued 3 exports" in shown


# The device, over time


def test_device_history(daemon: Daemon) -> None:
    assert "nothing was recorded" in daemon.xybridd("device", "history").stdout
    daemon.stop()
    now_ms = int(time.time() * 1000)
    hot = Sample(now_ms - 60_000, 1, "boot", "hot", 91.4, throttled=True, power_source="ac", cpu_percent=55.0)
    gpus = [{"name": "GPU", "utilization_percent": 97.0, "temperature_c": 71.0}]
    cool = Sample(now_ms, 2, "boot", power_source="battery", battery_percent=41.0, charging=False, gpus=gpus)
    long_ago = Sample(now_ms - 3 * 86_400_000, 3, "boot", "warm")
    for sample in (long_ago, hot, cool):
        change(daemon, "INSERT INTO sample (at_ms, body) VALUES (?, ?)", sample.at_ms, msgspec.msgpack.encode(sample))
    daemon.start()
    heading, first, second = daemon.xybridd("device", "history").stdout.splitlines()
    assert "battery" in heading
    assert "hot, throttled" in first
    assert first.split()[3:] == ["91", "55", "–", "ac", "–"]
    assert second.split()[-4:] == ["–", "97", "battery", "41"]
    exact = daemon.xybridd("device", "history", "--csv").stdout.splitlines()
    assert exact[0].startswith("at_ms,mono_ms,boot_id,thermal_state")
    assert exact[2] == f"{cool.at_ms},2,boot,,,,battery,41.0,false,,,,GPU,97.0,,71.0,,,,,,"
    assert [each["at_ms"] for each in told(daemon, "device", "history", "--since", "4d")] == [
        each.at_ms for each in (long_ago, hot, cool)
    ]
    assert len(told(daemon, "device", "history", "--limit", "1")) == 1
    assert daemon.xybridd("device", "history", "--since", "yesterday").returncode == 2
