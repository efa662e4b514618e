"""``stats``, ``models``, ``errors`` and ``ps`` against a real daemon: what people see, what programs read."""

from __future__ import annotations

import csv
import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.cli.outward import told
from tests.core.given import call, session
from tests.core.test_minute import closed
from tests.support import inference, until
from xybridd.core.conditions import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon

#: Records once, and holds its session until it is told to go.
AN_APP = """
import sys, xybridd
client = xybridd.connect(app="kiosk")
client.record_inference("m", "1", 5.0)
client.flush(30)
print("on", flush=True)
sys.stdin.read()
"""

COMMANDS = ["stats", "models", "errors", "ps"]


def fill(daemon: Daemon) -> str:
    """A session with two models, one of them on two kinds of hardware, and errors; its id."""
    with daemon.wire() as wire:
        wire.hello("kiosk", app_version="2.1")
        session_id = str(wire.call("session.start")["session_id"])
        gpu = {"hardware_used": "gpu", "execution_target": "local", "tokens_per_second": 40.0}
        records = [inference("whisper", "1.0", 200, stats=gpu | {"time_to_first_token_ms": 30.0}) for _ in range(60)]
        records += [inference("whisper", "1.0", 500, stats=gpu | {"hardware_used": "cpu"}) for _ in range(40)]
        records += [inference("kokoro", "", 20)]
        records += [{"type": "error", "error": "CUDA out of memory", "model_id": "whisper"}] * 3
        records += [{"type": "error", "error": "connection refused"}]
        wire.call("record.batch", seq=1, records=records, flush=True)
        wire.call("session.end")
    return session_id


def read_csv(daemon: Daemon, *arguments: str) -> list[dict[str, str]]:
    done = daemon.xybridd(*arguments, "--csv")
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_stats_by_model_as_text_json_and_csv(daemon: Daemon) -> None:
    fill(daemon)
    whisper, kokoro = told(daemon, "stats")
    assert (whisper["model"], whisper["calls"], whisper["errors"]) == ("whisper", 100, 3)
    assert whisper["p50_ms"] == pytest.approx(200, rel=0.02)
    assert whisper["p99_ms"] == pytest.approx(500, rel=0.02)
    assert whisper["max_ms"] == 500
    assert whisper["error_percent"] == pytest.approx(100 * 3 / 103, abs=0.001)
    assert (whisper["tokens_per_second"], whisper["time_to_first_token_p50_ms"]) == (40.0, 30.0)
    assert kokoro["tokens_per_second"] is None
    rows = read_csv(daemon, "stats")
    assert [{name: json.loads(row[name] or "null") for name in ("calls", "errors", "max_ms")} for row in rows] == [
        {name: each[name] for name in ("calls", "errors", "max_ms")} for each in (whisper, kokoro)
    ]
    assert list(rows[0]) == list(whisper)
    heading, first, second = daemon.xybridd("stats").stdout.splitlines()
    assert heading.split()[:3] == ["model", "calls", "errors"]
    assert first.split()[:3] == ["whisper", "100", "3"]
    assert second.split()[:3] == ["kokoro", "1", "0"]


def test_what_is_asked_for_is_what_is_added_up(daemon: Daemon) -> None:
    session_id = fill(daemon)
    with daemon.wire() as wire:
        wire.hello("robot")
        wire.call("record.inference", model_id="m", version="1", latency_ms=5)
    assert [(row["app"], row["calls"], row["errors"]) for row in told(daemon, "stats", "--by", "app")] == [
        ("kiosk", 101, 4), ("robot", 1, 0)
    ]  # fmt: skip
    assert [row["app"] for row in told(daemon, "stats", "--by", "app", "--app", "robot")] == ["robot"]
    (one,) = told(daemon, "stats", "--by", "session", "--session", session_id[:6])
    assert (one["session"], one["sessions"]) == (session_id, 1)
    (day,) = told(daemon, "stats", "--by", "day", "--app", "kiosk")
    assert day["day"].endswith("T00:00" + time.strftime("%z")[:3] + ":" + time.strftime("%z")[3:])
    assert {(row["category"], row["errors"], row["calls"]) for row in told(daemon, "stats", "--by", "category")} == {
        ("Hardware", 3, None), ("Network", 1, None)
    }  # fmt: skip
    tomorrow = time.strftime("%Y-%m-%d", time.localtime(time.time() + 2 * 86_400))
    assert told(daemon, "stats", "--since", tomorrow) == []
    assert told(daemon, "stats", "--until", "1d") == []
    assert len(told(daemon, "stats", "--by", "", "--until", tomorrow)) == 1


def test_why_it_was_slow_by_hardware(daemon: Daemon) -> None:
    fill(daemon)
    shown = daemon.xybridd("stats", "--by", "hardware").stdout.splitlines()
    assert shown[0].split()[-2:] == ["×", "usual"]
    assert "on the cpu, whisper's median is 2.5× that on the gpu (40 calls against 60)" in shown
    assert [(row["hardware"], row["times_usual"]) for row in told(daemon, "stats", "--by", "hardware")] == [
        ("gpu", 1.0), ("cpu", pytest.approx(2.5, rel=0.03)), ("unknown", None)
    ]  # fmt: skip
    heat = daemon.xybridd("stats", "--by", "power,model").stdout.splitlines()[-1]
    assert "nothing can be said of power yet: it takes 30 calls" in heat


def test_why_it_was_slow_by_heat(daemon: Daemon) -> None:
    session_id = fill(daemon)
    daemon.stop()
    now_ms = int(time.time() * 1000)
    made = session(session_id=session_id)
    for heat, latency in (("normal", 100.0), ("hot", 210.0)):
        made.apply([call("asr", "1", latency) for _ in range(1203)], now_ms - 120_000, Surroundings(heat, "ac"))
    (minute,) = closed(made, now_ms - 60_000)
    with closing(sqlite3.connect(daemon.data / "xybridd.db")) as database, database:
        database.execute(
            "INSERT INTO minute (session_id, started_at_ms, ended_at_ms, calls, errors, body) VALUES (?, ?, ?, ?, 0, ?)",
            (session_id, minute.started_at_ms, minute.ended_at_ms, minute.calls, msgspec.msgpack.encode(minute)),
        )
    daemon.start()
    shown = daemon.xybridd("stats", "--by", "thermal").stdout.splitlines()
    assert shown[-1] == "when hot, asr's median is 2.1× that of normal (1,203 calls against 1,203)"


@pytest.mark.parametrize("by", ["nonsense", "model,model", "category,thermal"])
def test_what_cannot_be_asked_for_is_said(daemon: Daemon, by: str) -> None:
    done = daemon.xybridd("stats", "--by", by)
    assert done.returncode == 2
    assert "--by" in done.stderr


def test_models_say_where_they_ran_and_when(daemon: Daemon) -> None:
    fill(daemon)
    whisper, kokoro = told(daemon, "models")
    assert (whisper["version"], whisper["target_local"], whisper["target_cloud"]) == ("1.0", 100, 0)
    assert (whisper["hardware_gpu"], whisper["hardware_cpu"]) == (60, 40)
    assert kokoro["hardware_cpu"] == 0
    assert abs(whisper["last_used_ms"] - time.time() * 1000) < 3_600_000
    assert list(read_csv(daemon, "models")[0]) == list(whisper)
    shown = daemon.xybridd("models", env={"COLUMNS": "160"}).stdout
    assert "gpu 60 %, cpu 40 %" in shown
    assert "whisper@1.0" in shown


def test_errors_by_their_words_and_by_category(daemon: Daemon) -> None:
    fill(daemon)
    fill(daemon)
    first, second = told(daemon, "errors")
    assert (first["category"], first["model"], first["message"]) == ("Hardware", "whisper", "CUDA out of memory")
    assert (first["count"], first["share_percent"], first["sessions"]) == (6, 75.0, 2)
    assert (second["message"], second["model"], second["count"]) == ("connection refused", None, 2)
    assert list(read_csv(daemon, "errors")[0]) == list(first)
    assert [(row["category"], row["count"]) for row in told(daemon, "errors", "--by-category")] == [
        ("Hardware", 6), ("Network", 2)
    ]  # fmt: skip
    few = daemon.xybridd("errors", "--limit", "1")
    assert "CUDA out of memory" in few.stdout
    assert "1 more errors were left out" in few.stderr
    assert told(daemon, "errors", "--app", "robot") == []


def test_ps_knows_who_holds_a_session_and_who_lost_it(daemon: Daemon) -> None:
    app = subprocess.Popen(
        [sys.executable, "-c", AN_APP], env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert app.stdin is not None
    assert app.stdout is not None
    assert app.stdout.readline() == b"on\n"
    daemon.xybridd("record", "inference", "m", "1", "5")
    rows = {row["app"]: row for row in told(daemon, "ps")}
    kiosk = rows.pop("kiosk")
    (shell,) = rows.values()
    assert (kiosk["state"], kiosk["pids"], kiosk["calls"], kiosk["models"]) == ("connected", [app.pid], 1, ["m"])
    assert kiosk["calls_per_second"] > 0
    assert (shell["state"], shell["pids"]) == ("open", [])
    assert str(app.pid) in daemon.xybridd("ps", "--app", "kiosk").stdout
    assert [row["pids"] for row in read_csv(daemon, "ps", "--app", "kiosk")] == [str(app.pid)]
    app.send_signal(signal.SIGKILL)
    app.wait()
    app.stdin.close()
    app.stdout.close()
    until(lambda: told(daemon, "ps", "--app", "kiosk")[0]["state"] == "lost", "the session to have lost its app")
    assert "lost its app" in daemon.xybridd("ps").stdout


def test_an_unused_daemon_has_nothing_and_says_what_to_do(daemon: Daemon) -> None:
    for command in COMMANDS:
        done = daemon.xybridd(command)
        assert done.returncode == 0
        assert "xybridd " in done.stdout or "no errors" in done.stdout
        assert told(daemon, command) == []
    assert daemon.xybridd("ps", "--csv").stdout.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_daemon_they_exit_3_and_help_fits_a_screen(make_daemon: Callable[..., Daemon], command: str) -> None:
    daemon = make_daemon()
    done = daemon.xybridd(command)
    assert (done.returncode, done.stdout) == (3, "")
    lines = daemon.xybridd(command, "--help", env={"COLUMNS": "80"}).stdout.splitlines()
    assert any(f"Example:  xybridd {command}" in line for line in lines)
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_tables_fit_the_terminal(daemon: Daemon) -> None:
    fill(daemon)
    daemon.xybridd("record", "inference", "a-model-with-a-very-long-name-that-fits-nowhere", "2024-11-01", "5")
    for command in ("stats --by model,hardware", "models", "errors", "ps"):
        for columns in ("60", "80"):
            shown = daemon.xybridd(*command.split(), env={"COLUMNS": columns}).stdout
            table = [line.rstrip() for line in shown.splitlines() if "median" not in line]
            assert max(map(len, table)) <= int(columns), shown
