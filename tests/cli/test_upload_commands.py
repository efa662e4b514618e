"""``xybridd upload`` against a daemon and a receiver, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.outward import KEY, at_a_terminal, ended, sending_to, sinks, told, until_idle, until_state
from tests.support import until
from xybridd.testing import Behaviour, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon


@pytest.fixture
def sending(make_daemon: Callable[..., Daemon], receiver: Receiver) -> Daemon:
    return sending_to(make_daemon, receiver)


def busy(receiver: Receiver) -> None:
    """From now on it wants to be left alone for ten minutes."""
    receiver.misbehave(Behaviour("status", times=None, status=503, retry_after="600"))


# Off, paused, on


def test_off_says_why_and_how_to_switch_it_on(daemon: Daemon) -> None:
    shown = daemon.xybridd("upload", "status")
    assert shown.returncode == 0
    assert "upload is off: nothing is configured" in shown.stdout
    for way in (f"{daemon.config.with_name('api-key')}", "[otlp] endpoint =", "[file] path ="):
        assert way in shown.stdout
    assert told(daemon, "upload", "status")["state"] == "off"
    now = daemon.xybridd("upload", "now")
    assert now.returncode == 1
    assert "upload is off: nothing is configured" in now.stderr
    assert "off: nothing is configured" in daemon.xybridd("status").stdout


def test_declined_in_the_environment_says_so(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[file]\npath = "/nowhere/x"\n', {"DO_NOT_TRACK": "1"}).start()
    shown = daemon.xybridd("upload", "status").stdout
    assert "DO_NOT_TRACK" in shown
    assert "take the variable out" in shown


def test_a_key_that_others_may_read_is_a_problem_with_its_command(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    key = daemon.config.with_name("api-key")
    key.write_text(KEY)
    key.chmod(0o644)
    daemon.start()
    shown = daemon.xybridd("upload", "status", env={"COLUMNS": "300"}).stdout
    assert f"chmod 600 {key}" in shown
    assert KEY not in shown


def test_everything_sent_looks_well(sending: Daemon) -> None:
    ended(sending, 2)
    until_idle(sending)
    shown = sending.xybridd("upload", "status").stdout
    assert "upload is on" in shown
    assert "idle: everything was sent" in shown
    assert "2 made = 2 delivered + 0 queued" in shown
    assert KEY not in shown
    line = sending.xybridd("status").stdout
    assert "idle, 0 to send → xybrid http://127.0.0.1" in line
    assert "2 made = 2 delivered + 0 queued" in line
    assert told(sending, "upload", "status")["sinks"][0]["delivered"] == 2


def test_a_pause_holds_until_it_is_taken_back_also_over_a_restart(sending: Daemon, receiver: Receiver) -> None:
    assert "go on with: xybridd upload resume" in sending.xybridd("upload", "pause").stdout
    ended(sending)
    sending.stop()
    sending.start()
    assert "xybridd upload resume" in sending.xybridd("upload", "status").stdout
    now = sending.xybridd("upload", "now")
    assert now.returncode == 1
    assert "xybridd upload resume" in now.stderr
    assert receiver.counts() == {}
    assert told(sending, "upload", "pause")["state"] == "paused"
    assert told(sending, "upload", "resume")["state"] == "on"
    until_idle(sending)
    assert list(receiver.counts().values()) == [1]


def test_a_wrong_key_blocks_and_the_page_says_what_to_check(
    make_daemon: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = sending_to(make_daemon, receiver, key="another-key")
    ended(daemon)
    until_state(daemon, "blocked")
    shown = daemon.xybridd("upload", "status").stdout
    assert "blocked: 1 to send, next try in 1" in shown
    assert "check the API key" in shown
    assert "then: xybridd upload now" in shown
    assert "another-key" not in shown
    now = daemon.xybridd("upload", "now")
    assert now.returncode == 1
    assert "answered 401" in now.stdout


def test_nobody_there_is_said_with_the_next_try(make_daemon: Callable[..., Daemon]) -> None:
    with Receiver() as gone:
        url_of_nobody = gone
    daemon = sending_to(make_daemon, url_of_nobody)
    ended(daemon)
    until(lambda: sinks(daemon)["xybrid"]["failures"], "an attempt that failed")
    shown = daemon.xybridd("upload", "status").stdout
    assert "last error" in shown
    assert "1 made = 0 delivered + 1 queued" in shown


# Now


def test_now_sends_what_waits_for_another_time(sending: Daemon, receiver: Receiver) -> None:
    busy(receiver)
    made = ended(sending, 5)
    until_state(sending, "retrying")
    receiver.misbehave()
    done = sending.xybridd("upload", "now")
    assert done.returncode == 0, done.stdout
    assert "xybrid: 5 of 5" in done.stdout
    assert "5 delivered" in done.stdout
    assert receiver.counts() == {(session_id, 1): 1 for session_id in made}
    again = sending.xybridd("upload", "now")
    assert (again.returncode, again.stdout) == (0, "nothing waits to be sent\n")


def test_now_that_fails_says_why_and_exits_1(sending: Daemon, receiver: Receiver) -> None:
    busy(receiver)
    ended(sending)
    until_state(sending, "retrying")
    done = sending.xybridd("upload", "now")
    assert done.returncode == 1
    assert "1 left: the receiver answered 503" in done.stdout
    assert "tried again by itself in" in done.stdout
    found = told(sending, "upload", "now", exits=1)
    assert found["sinks"][0]["left"] == 1
    assert "503" in found["sinks"][0]["failure"]
    assert found["status"]["state"] == "on"


def test_now_on_a_terminal_shows_a_bar(sending: Daemon, receiver: Receiver) -> None:
    busy(receiver)
    ended(sending, 3)
    until_state(sending, "retrying")
    receiver.misbehave()
    code, shown = at_a_terminal(sending, "upload", "now")
    assert code == 0
    assert "━" in shown
    assert "3 delivered" in shown


def test_now_without_waiting(sending: Daemon, receiver: Receiver) -> None:
    busy(receiver)
    ended(sending)
    until_state(sending, "retrying")
    receiver.misbehave()
    done = sending.xybridd("upload", "now", "--no-wait")
    assert done.returncode == 0
    assert "xybridd upload status" in done.stdout
    until_idle(sending)


# Dead letters


@pytest.fixture
def letters(sending: Daemon, receiver: Receiver) -> list[str]:
    """Two sessions that the receiver refused for good; it behaves again."""
    receiver.misbehave(Behaviour("status", times=None, status=422))
    made = ended(sending, 2)
    until(lambda: sinks(sending)["xybrid"]["dead"] == 2, "two dead letters")
    receiver.misbehave()
    return made


def test_dead_letters_are_listed_and_read(sending: Daemon, letters: list[str]) -> None:
    assert "xybridd upload dead list" in sending.xybridd("upload", "status").stdout
    shown = sending.xybridd("upload", "dead", "list").stdout
    assert all(session_id[:8] in shown for session_id in letters)
    assert "the receiver answered 422" in shown
    first = told(sending, "upload", "dead", "list")[0]
    number = str(first["export_id"])
    done = sending.xybridd("upload", "dead", "show", number)
    assert "answered 422" in done.stderr
    assert f'"session_id": "{first["session_id"]}"' in done.stdout
    assert told(sending, "upload", "dead", "show", number)["payload"]["session"]["session_id"] == first["session_id"]


def test_dead_letters_are_replayed(sending: Daemon, receiver: Receiver, letters: list[str]) -> None:
    number = str(told(sending, "upload", "dead", "list")[0]["export_id"])
    assert "queued again: 1" in sending.xybridd("upload", "dead", "replay", number).stdout
    assert told(sending, "upload", "dead", "replay", "--all") == {"replayed": 1}
    until_idle(sending)
    assert receiver.counts() == {(session_id, 1): 1 for session_id in letters}
    assert "no dead letters" in sending.xybridd("upload", "dead", "list").stdout


def test_dead_letters_are_dropped_after_a_question(sending: Daemon, letters: list[str]) -> None:
    number = str(told(sending, "upload", "dead", "list")[0]["export_id"])
    refused = sending.xybridd("upload", "dead", "drop", number, stdin=subprocess.DEVNULL)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    code, shown = at_a_terminal(sending, "upload", "dead", "drop", number, answer="n")
    assert code == 1
    assert "nothing was done" in shown
    assert len(told(sending, "upload", "dead", "list")) == len(letters)
    code, shown = at_a_terminal(sending, "upload", "dead", "drop", number, answer="y")
    assert (code, "dropped: 1" in shown) == (0, True)
    assert told(sending, "upload", "dead", "drop", "--all", "--yes") == {"dropped": 1}
    tally = sinks(sending)["xybrid"]
    assert (tally["made"], tally["forgotten"], tally["dead"]) == (2, 2, 0)


@pytest.mark.parametrize("command", ["replay", "drop --yes", "replay 1 --all", "show", "show x", "drop 0 --yes"])
def test_dead_letters_must_be_named(make_daemon: Callable[..., Daemon], command: str) -> None:
    done = make_daemon().xybridd("upload", "dead", *command.split())
    assert done.returncode == 2
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("command", ["replay 99", "drop 99 --yes", "show 99"])
def test_a_dead_letter_that_is_none(daemon: Daemon, command: str) -> None:
    done = daemon.xybridd("upload", "dead", *command.split())
    assert done.returncode == 1
    assert "there is no dead letter 99" in done.stderr


# Forgetting


def test_what_is_forgotten_is_asked_back(sending: Daemon, receiver: Receiver) -> None:
    gone, kept = ended(sending, 2)
    until_idle(sending)
    done = sending.xybridd("forget", gone[:8], "--yes")
    assert done.returncode == 0, done.stderr
    assert f"about to delete session {gone} of kiosk" in done.stderr
    assert "deleted: 1 sessions with 1 records" in done.stdout
    assert "queued: 1 requests" in done.stdout
    until_idle(sending)
    rows = [row for row in receiver.seen()["counts"] if row["event_type"] == "SessionDeletion"]
    assert [(row["session_id"], row["count"]) for row in rows] == [(gone, 1)]
    assert [each["session_id"] for each in told(sending, "sessions", "list")] == [kept]


def test_everything_is_forgotten(sending: Daemon, receiver: Receiver) -> None:
    ended(sending, 3)
    until_idle(sending)
    assert told(sending, "forget", "--all", "--yes") == {"sessions": 3, "records": 3, "deletion_requests": 1}
    until_idle(sending)
    assert "DeviceDeletion" in {row["event_type"] for row in receiver.seen()["counts"]}
    assert told(sending, "sessions", "list") == []


def test_forget_asks_and_takes_no_for_an_answer(daemon: Daemon) -> None:
    (session_id,) = ended(daemon)
    silent = daemon.xybridd("forget", session_id, stdin=subprocess.DEVNULL)
    assert silent.returncode == 2
    assert "--yes" in silent.stderr
    code, shown = at_a_terminal(daemon, "forget", session_id, answer="n")
    assert (code, "nothing was done" in shown) == (1, True)
    assert daemon.xybridd("sessions", "show", session_id).returncode == 0
    code, shown = at_a_terminal(daemon, "forget", session_id, answer="y")
    assert (code, "deleted: 1 sessions" in shown) == (0, True)
    assert "no sink that is on has any of it" in shown
    again = daemon.xybridd("forget", session_id, "--yes")
    assert again.returncode == 1
    assert "xybridd sessions list" in again.stderr


@pytest.mark.parametrize("command", [[], ["abc", "--all"]])
def test_forget_wants_one_or_all(daemon: Daemon, command: list[str]) -> None:
    assert daemon.xybridd("forget", *command, "--yes").returncode == 2


# Everywhere

COMMANDS = [
    ["upload", "status"],
    ["upload", "now"],
    ["upload", "pause"],
    ["upload", "resume"],
    ["upload", "dead", "list"],
    ["upload", "dead", "show", "1"],
    ["upload", "dead", "replay", "--all"],
    ["upload", "dead", "drop", "--all", "--yes"],
    ["export", "--preview"],
    ["export", "--to", "-"],
    ["import", "/dev/null"],
    ["forget", "--all", "--yes"],
    ["device", "history"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_daemon_they_exit_3(make_daemon: Callable[..., Daemon], command: list[str]) -> None:
    done = make_daemon().xybridd(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert "xybridd run" in done.stderr


#: Becomes another user when all that it may need is in memory, since the files of this project may be out of reach.
STRANGER = """
import os, sys
import rich.console, rich.progress, xybridd.client.connection, xybridd.paths
from xybridd.cli import export, forget, import_, main, output, upload, upload_page
os.setgroups([]); os.setgid(65534); os.setuid(65534)
main.main(sys.argv[1:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_stranger_may_look_and_exits_4_at_everything_else(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[socket]\nmode = "0666"\n[file]\npath = "/dev/null/x"\n').start()
    (session_id,) = ended(daemon)
    daemon.folder.chmod(0o755)
    daemon.folder.parent.chmod(0o755)

    def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", STRANGER, *arguments],
            env={**daemon.env, "COLUMNS": "120"},
            input=f'{{"version": "2.0", "session": {{"session_id": "{session_id}", "device_id": "d"}}}}\n',
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert as_nobody("upload", "status").returncode == 0
    refused = [
        ["upload", "now"], ["upload", "pause"], ["upload", "resume"], ["upload", "dead", "list"],
        ["upload", "dead", "show", "1"], ["upload", "dead", "replay", "--all"],
        ["upload", "dead", "drop", "--all", "--yes"], ["export", "--preview"], ["import", "-"],
        ["forget", "--all", "--yes"],
    ]  # fmt: skip
    for command in refused:
        done = as_nobody(*command)
        assert (done.returncode, done.stdout) == (4, ""), (command, done.stderr)
        assert "not permitted:" in done.stderr
    theirs = as_nobody("export", "--to", "-")
    assert (theirs.returncode, theirs.stdout) == (0, "")
    assert as_nobody("forget", session_id, "--yes").returncode == 1


@pytest.mark.parametrize(
    "command",
    ["upload", "upload status", "upload now", "upload dead", "upload dead drop", "export", "import", "forget",
     "device history"],
)  # fmt: skip
def test_help_fits_a_screen(make_daemon: Callable[..., Daemon], command: str) -> None:
    done = make_daemon().xybridd(*command.split(), "--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
