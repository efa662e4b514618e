"""The clients in examples/clients, against a real daemon that is there, is not, dies, or has enough."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.clients import Demo, command_of, sum_up_to
from tests.support import ledger_balances, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import Daemon

#: The one in C is built with the sanitizers here; as an app would build it in a test of its own.
CLIENTS = ("shell", "node", "c-sanitized")

#: Those that write rings: what they recorded survives them.
WITH_RINGS = ("c-sanitized",)

#: Commits soon, so that many batches come and go.
CONFIG = "[storage]\ncommit_interval_ms = 10\n"

HOSTILE = 'a "quoted"\\model\\n\nsecond line\ttab \x01 \x7f é ß 中文 😀 {"seq":1} $(id) `id` %s \\u0041'


@pytest.fixture(scope="module", params=CLIENTS)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return command_of(request.param, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """All of them."""
    return {client: command_of(client, tmp_path_factory.mktemp("client")) for client in CLIENTS}


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(CONFIG)


def sessions(daemon: Daemon, app: str) -> list[dict[str, Any]]:
    with daemon.wire() as wire:
        found: list[dict[str, Any]] = wire.call("session.list", app=app)["sessions"]
    return found


def counted(daemon: Daemon, app: str) -> int:
    return sum(session["total_inferences"] for session in sessions(daemon, app))


def shown(daemon: Daemon, session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.xybridd("sessions", "show", session_id, "--json").stdout)
    return found


def test_what_it_records_is_counted_and_its_session_ended(daemon: Daemon, command: list[str]) -> None:
    records_and_ends(daemon, command)


def test_the_one_in_c_as_an_app_builds_it(daemon: Daemon, tmp_path: Path) -> None:
    records_and_ends(daemon, command_of("c", tmp_path))


def records_and_ends(daemon: Daemon, command: list[str]) -> None:
    daemon.start()
    with Demo(command, daemon, "kiosk", "whisper", "1.0") as demo:
        demo.feed(120)
        demo.feed_lines([b"187.5", b"CUDA out of memory"])
        code, report, said = demo.end()
    assert (code, said) == (0, ""), daemon.said()
    assert (report["recorded"], report["acknowledged"], report["dropped"], report["refused"]) == (122, 122, 0, 0)
    found = shown(daemon, report["session"])
    assert (found["total_inferences"], found["error_count"]) == (121, 1)
    assert found["total_latency_ms"] == sum_up_to(120) + 188
    assert found["errors"][0]["category"] == "Hardware"
    assert (found["extensions"]["app"], found["extensions"]["app_version"]) == ("kiosk", "1.0")
    assert found["extensions"]["end_reason"] == "ended"
    assert found["extensions"]["models"]["whisper@1.0"]["stats"]["hardware_used"] == {"cpu": 121}
    assert found["started_at"] <= found["by_model"]["whisper@1.0"]["last_called"] <= found["ended_at"]


def test_hostile_names_come_through(daemon: Daemon, command: list[str]) -> None:
    daemon.start()
    lines = ["plain", '"', "\\", '\\"},{"', "tab\there \x02", "né 中文 😀 \x7f", "-1", "1e999", " ", "1 x"]
    with Demo(command, daemon, HOSTILE[:100], HOSTILE, HOSTILE[::-1]) as demo:
        demo.feed(1)
        demo.feed_lines(line.encode() for line in lines)
        demo.feed_lines([b"lat\xe9in", b"over\xc0\xafflow", b"cut \xe4\xb8"])
        code, report, said = demo.end()
    assert (code, said) == (0, ""), daemon.said()
    assert report["acknowledged"] == report["recorded"] == 4 + len(lines)
    found = shown(daemon, report["session"])
    assert found["models_used"] == [HOSTILE]
    assert found["extensions"]["app"] == HOSTILE[:100]
    assert {entry["version"] for entry in found["by_model"].values()} == {HOSTILE[::-1]}
    messages = {error["message"].replace("\ufffd\ufffd", "\ufffd") for error in found["errors"]}
    assert messages == {*lines, "lat\ufffdin", "over\ufffdflow", "cut \ufffd"}


def test_names_that_are_too_long_are_cut_and_the_batch_is_taken(daemon: Daemon, commands: dict[str, list[str]]) -> None:
    daemon.start()
    for client, command in commands.items():
        with Demo(command, daemon, "é" * 500, "😀" * 1000, "v" * 500) as demo:
            demo.feed(3)
            demo.feed_lines([b"x" * 3000])
            code, report, _ = demo.end()
        assert (code, report["acknowledged"]) == (0, 4), client
        found = shown(daemon, report["session"])
        assert (found["models_used"], found["extensions"]["app"]) == (["😀" * 256], "é" * 128), client


def test_started_before_the_daemon_it_waits_for_it(daemon: Daemon, command: list[str]) -> None:
    with Demo(command, daemon, "early", "m", "1") as demo:
        demo.feed(60)
        daemon.start()
        demo.feed(60)
        code, report, _ = demo.end()
    assert (code, report["acknowledged"]) == (0, 120)
    assert shown(daemon, report["session"])["total_latency_ms"] == sum_up_to(120)


def test_a_daemon_that_hangs_keeps_no_app_from_its_work(daemon: Daemon, command: list[str]) -> None:
    daemon.start()
    with Demo(command, daemon, "patient", "m", "1") as demo:
        demo.feed(50)
        until(lambda: counted(daemon, "patient"), "records to arrive")
        daemon.signal(signal.SIGSTOP)
        demo.feed(500)
        until(demo.has_read_all, "it to go on")
        daemon.signal(signal.SIGCONT)
        code, report, _ = demo.end()
    assert (code, report["acknowledged"], report["dropped"]) == (0, 550, 0)
    assert shown(daemon, report["session"])["total_latency_ms"] == sum_up_to(550)


def test_past_its_bounds_it_drops_and_says_how_many(daemon: Daemon, command: list[str]) -> None:
    """Each bound is another one; so many records of this size are more than any of them."""
    daemon.env["XYBRIDD_MOST_BATCHES"] = "8"
    many = 600 if command[0] == "sh" else 20_000
    with Demo(command, daemon, "bounded", "m" * 250, "v" * 100) as demo:
        demo.feed(many)
        until(demo.has_read_all, "it to read all of it")
        daemon.start()
        code, report, _ = demo.end()
    assert (code, report["recorded"]) == (0, many)
    assert 0 < report["acknowledged"] < many
    assert report["acknowledged"] + report["dropped"] == many
    assert counted(daemon, "bounded") == report["acknowledged"]
    ledger = daemon.status()["ledger"]
    assert (ledger["dropped_by_clients"], ledger["missing_batches"]) == (report["dropped"], 0)


def test_they_find_the_users_socket_without_being_told(
    make_daemon: Callable[..., Daemon], folder: Path, commands: dict[str, list[str]]
) -> None:
    daemon = make_daemon(CONFIG)
    daemon.socket = folder / "xybridd" / "xybridd.sock"
    daemon.socket.parent.mkdir()
    daemon.env["XYBRIDD_SOCKET"] = str(daemon.socket)
    daemon.start()
    told = dict(daemon.env)
    del daemon.env["XYBRIDD_SOCKET"]
    daemon.env["XDG_RUNTIME_DIR"] = str(folder)
    for client, command in commands.items():
        with Demo(command, daemon, client, "m", "1") as demo:
            demo.feed(3)
            code, report, _ = demo.end()
        assert (code, report["acknowledged"]) == (0, 3), client
    daemon.env = told
    assert [counted(daemon, client) for client in CLIENTS] == [3] * len(CLIENTS)


def test_without_telemetry_wanted_nothing_is_recorded(daemon: Daemon, commands: dict[str, list[str]]) -> None:
    daemon.start()
    for name, value in (("DO_NOT_TRACK", "1"), ("XYBRID_TELEMETRY_OPTOUT", "Yes")):
        told = dict(daemon.env)
        daemon.env[name] = value
        for client, command in commands.items():
            with Demo(command, daemon, client, "m", "1") as demo:
                demo.feed(60)
                code, report, _ = demo.end()
            assert (code, report["recorded"]) == (0, 0), client
        daemon.env = told
    assert daemon.status()["sessions"]["stored"] == 0


def test_the_daemon_is_killed_while_it_sends_and_everything_is_counted_once(daemon: Daemon, command: list[str]) -> None:
    daemon.start()
    with Demo(command, daemon, "survivor", "m", "1") as demo:
        for _ in range(3):
            before = counted(daemon, "survivor")

            def is_sending(before: int = before) -> bool:
                demo.feed(10)
                return counted(daemon, "survivor") > before

            until(is_sending, "records to arrive")
            daemon.kill()
            demo.feed(200)
            daemon.start()
        code, report, said = demo.end()
    assert (code, said) == (0, ""), daemon.said()
    assert (report["recorded"], report["acknowledged"], report["dropped"]) == (demo.fed, demo.fed, 0)
    assert report.get("connections", 4) >= 4
    (session,) = sessions(daemon, "survivor")
    found = shown(daemon, report["session"])
    assert session["session_id"] == report["session"]
    assert (found["total_inferences"], found["total_latency_ms"]) == (demo.fed, sum_up_to(demo.fed))
    ledger = daemon.status()["ledger"]
    assert ledger_balances(ledger)
    assert (ledger["missing_batches"], ledger["rejected"]) == (0, {})


def test_a_session_that_somebody_else_ended_is_followed_by_another(daemon: Daemon, command: list[str]) -> None:
    daemon.start()
    with Demo(command, daemon, "interrupted", "m", "1") as demo:
        demo.feed(50)
        first = until(lambda: sessions(daemon, "interrupted"), "its session")[0]["session_id"]
        until(lambda: counted(daemon, "interrupted"), "records in it")
        with daemon.wire() as wire:
            wire.call("session.end", session_id=first)
        demo.feed(50)
        code, report, _ = demo.end()
    assert (code, report["acknowledged"]) == (0, 100)
    assert report["session"] != first
    both = [shown(daemon, session_id) for session_id in (first, report["session"])]
    assert sum(found["total_latency_ms"] for found in both) == sum_up_to(100)
    assert {found["extensions"]["end_reason"] for found in both} == {"ended"}


def test_a_session_lives_as_long_as_its_app_and_no_longer(
    make_daemon: Callable[..., Daemon], commands: dict[str, list[str]]
) -> None:
    """All of them at once, beside a witness whose connection broke: it shows that their time would be up."""
    daemon = make_daemon("[session]\nlost_after_s = 3\n").start()
    with ExitStack() as stack:
        demos = [stack.enter_context(Demo(command, daemon, client, "m", "1")) for client, command in commands.items()]
        for demo in demos:
            demo.feed(50)
        until(lambda: all(counted(daemon, client) for client in CLIENTS), "records of each to arrive")
        with daemon.wire() as witness:
            witness.hello("witness")
            witness.call("session.start")
        until(lambda: ends_of(daemon, "witness") == ["client_lost"], "the witness to be lost")
        assert [ends_of(daemon, client) for client in CLIENTS] == [[None]] * len(CLIENTS)
        for demo in demos:
            demo.process.kill()
        until(lambda: all(ends_of(daemon, client) == ["client_lost"] for client in CLIENTS), "the killed to be lost")


def test_a_daemon_that_has_enough_gets_it_later(
    make_daemon: Callable[..., Daemon], commands: dict[str, list[str]]
) -> None:
    """Only one answer may wait for the disk, so they are in each other's way."""
    daemon = make_daemon("[limits]\nmax_waiting_answers = 1\n[storage]\ncommit_interval_ms = 300\n").start()
    with ExitStack() as stack:
        demos = [stack.enter_context(Demo(command, daemon, client, "m", "1")) for client, command in commands.items()]

        def were_refused() -> bool:
            for demo in demos:
                demo.feed(5)
            rejected: dict[str, int] = daemon.status()["ledger"]["rejected"]
            return rejected.get("overloaded", 0) >= 10

        until(were_refused, "some to be told to come later")
        reports = {demo.app: (demo.fed, demo.end()) for demo in demos}
    for client, (fed, (code, report, _)) in reports.items():
        assert (code, report["acknowledged"], report["refused"]) == (0, fed, 0), client
        assert shown(daemon, report["session"])["total_latency_ms"] == sum_up_to(fed), client
    assert daemon.status()["ledger"]["missing_batches"] == 0


def ends_of(daemon: Daemon, app: str) -> list[str | None]:
    return [session["end_reason"] for session in sessions(daemon, app)]


def test_what_was_acknowledged_is_there_when_the_daemon_never_came_back(
    daemon: Daemon, commands: dict[str, list[str]]
) -> None:
    """All of them at once, since each waits before it gives up. Nothing is there twice, and no gap.

    The one in C leaves the rest in its ring, where the daemon finds it.
    """
    daemon.start()
    with ExitStack() as stack:
        demos = [
            stack.enter_context(Demo(command, daemon, client, "m", "1", patience_s=3))
            for client, command in commands.items()
        ]

        def all_send() -> bool:
            for demo in demos:
                demo.feed(10)
            return all(counted(daemon, demo.app) for demo in demos)

        until(all_send, "records of each to arrive")
        daemon.kill()
        for demo in demos:
            demo.feed(200)
            assert demo.process.stdin is not None
            demo.process.stdin.close()
            demo.process.stdin = None
        reports = {demo.app: (demo.fed, demo.end()) for demo in demos}
    daemon.start()
    for client, (fed, (code, report, said)) in reports.items():
        assert (code, report["recorded"]) == (1, fed), client
        assert ("the rest waits" if client in WITH_RINGS else "the rest is lost") in said
        if client in WITH_RINGS:
            until(lambda client=client, fed=fed: counted(daemon, client) == fed, "the ring to be read")  # type: ignore[misc]
        there = counted(daemon, client)
        assert 0 < report["acknowledged"] <= there, client
        assert (there == fed) is (client in WITH_RINGS)
        assert shown(daemon, report["session"])["total_latency_ms"] == sum_up_to(there), client


@pytest.mark.parametrize("daemon_is", ["there", "away"])
def test_a_killed_app_in_c_loses_nothing(daemon: Daemon, tmp_path: Path, daemon_is: str) -> None:
    if daemon_is == "there":
        daemon.start()
    with Demo(command_of("c", tmp_path), daemon, "killed", "m", "1") as demo:
        demo.feed(2000)
        until(demo.has_read_all, "it to read all of it")
        demo.feed(1)  # read without a buffer: when this is gone from the pipe, the one before was recorded
        until(demo.has_read_all, "it to read that")
        demo.process.kill()
        demo.process.wait()
    if daemon_is == "away":
        daemon.start()
    until(lambda: counted(daemon, "killed") >= 2000, "its ring to be read")
    assert counted(daemon, "killed") in {2000, 2001}
    assert ledger_balances(daemon.status()["ledger"])
    until(lambda: not list((daemon.data / "spool").glob("*.ring")), "its ring to be removed")
