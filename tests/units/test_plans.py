"""What is planned for which facts."""

from __future__ import annotations

import msgspec
import pytest

from tests.units.given import commands, facts, installed, written
from xybridd.units import launchd, systemd
from xybridd.units.observed import Surroundings, obstacle, obstacle_to_install
from xybridd.units.plan import Facts, Remove, Scope, stamped, unstamped

UNIT = "/etc/systemd/system/xybridd.service"
SOCKET = "/etc/systemd/system/xybridd.socket"


def edited(given: Facts, path: str, old: str, new: str) -> Facts:
    text = given.files[path]
    assert old in text
    return msgspec.structs.replace(given, files={**given.files, path: text.replace(old, new)})


def as_of(given: Facts, version: str, path: str, old: str, new: str) -> Facts:
    """As if that version had written it."""
    body = unstamped(given.files[path])[0].replace(old, new)
    return msgspec.structs.replace(given, files={**given.files, path: stamped(body, version)})


def test_the_first_installation() -> None:
    plan = systemd.install(facts())
    assert set(written(plan)) == {UNIT, SOCKET, "/etc/sysusers.d/xybridd.conf"}
    assert "ExecStart=/opt/xybridd/bin/xybridd run\n" in written(plan)[UNIT]
    assert commands(plan) == [
        "systemd-sysusers /etc/sysusers.d/xybridd.conf",
        "systemctl daemon-reload",
        "systemctl enable --quiet xybridd.socket xybridd.service",
        "systemctl start xybridd.socket xybridd.service",
    ]
    assert any("usermod -aG xybrid" in note for note in plan.notes)


def test_a_users_installation() -> None:
    plan = systemd.install(facts("user", lingers=False))
    assert set(written(plan)) == {f"/home/ada/.config/systemd/user/xybridd.{kind}" for kind in ("service", "socket")}
    assert all(command.startswith("systemctl --user ") for command in commands(plan))
    assert any("loginctl enable-linger ada" in note for note in plan.notes)


def test_installing_again_writes_nothing() -> None:
    plan = systemd.install(installed())
    assert written(plan) == {}
    assert commands(plan) == [
        "systemctl enable --quiet xybridd.socket xybridd.service",
        "systemctl start xybridd.socket xybridd.service",
    ]


def test_an_upgrade_restarts_the_service_behind_its_socket() -> None:
    older = as_of(installed(), "0.0.9", UNIT, "Nice=5", "Nice=1")
    assert commands(systemd.install(older))[-1] == "systemctl restart xybridd.service"
    assert UNIT in written(systemd.install(older))
    # The same text by another version: the code behind it is another, the socket is not.
    newer = msgspec.structs.replace(installed(), version="0.2.0")
    assert commands(systemd.install(newer))[-1] == "systemctl restart xybridd.service"


def test_only_another_socket_is_made_anew() -> None:
    older = as_of(installed(), "0.0.9", SOCKET, "Backlog=4096", "Backlog=128")
    assert commands(systemd.install(older))[-1] == "systemctl restart xybridd.socket xybridd.service"


def test_what_was_changed_by_hand_is_kept_and_shown() -> None:
    changed = edited(installed(), UNIT, "MemoryMax=256M", "MemoryMax=1G")
    plan = systemd.install(changed)
    assert plan.steps == ()
    (kept,) = plan.kept
    assert kept.path == UNIT
    assert "-MemoryMax=256M\n+MemoryMax=1G\n" in kept.difference
    assert "sha" not in kept.difference
    assert UNIT in written(systemd.install(changed, force=True))


def test_a_unit_that_somebody_else_wrote_is_theirs() -> None:
    foreign = facts(files={UNIT: "[Service]\nExecStart=/usr/bin/true\n"})
    assert [kept.path for kept in systemd.install(foreign).kept] == [UNIT]
    assert [kept.path for kept in systemd.uninstall(foreign).kept] == [UNIT]
    # One that is just what we would write needs no writing.
    same = facts(files={SOCKET: systemd.wanted(facts())[SOCKET]})
    assert SOCKET not in written(systemd.install(same))


def test_uninstalling_takes_everything_but_the_data() -> None:
    plan = systemd.uninstall(installed(members=("kiosk",)))
    removed = {step.path for step in plan.steps if isinstance(step, Remove)}
    assert removed >= {UNIT, SOCKET, "/etc/sysusers.d/xybridd.conf", "/run/xybridd/xybridd.sock"}
    assert not any(path.startswith("/var/lib") for path in removed)
    ran = commands(plan)
    assert ran[0] == "systemctl disable --now --quiet xybridd.service xybridd.socket"
    # The data is root's before the number of its user is free for another.
    assert ran.index("chown -R -h root:root /var/lib/xybridd") < ran.index("userdel xybridd")
    assert any("the data stays: /var/lib/xybridd" in note for note in plan.notes)
    assert any("kiosk" in note for note in plan.notes)


def test_uninstalling_what_is_not_there_does_nothing() -> None:
    for given in (facts("user"), facts("system")):
        plan = systemd.uninstall(given)
        assert plan.steps == ()
        assert plan.notes == ("it is not installed",)


def test_uninstalling_keeps_a_unit_that_was_changed_and_the_user_it_names() -> None:
    plan = systemd.uninstall(edited(installed(), UNIT, "Nice=5", "Nice=9"))
    assert [kept.path for kept in plan.kept] == [UNIT]
    assert Remove(SOCKET) in plan.steps
    assert "userdel xybridd" not in commands(plan)


def test_stopping_stops_the_socket_too() -> None:
    assert commands(systemd.steer(facts(), "stop")) == ["systemctl stop xybridd.service xybridd.socket"]
    assert commands(systemd.steer(facts(), "restart")) == ["systemctl restart xybridd.service"]


def test_logs_are_asked_of_the_journal() -> None:
    assert systemd.logs(facts(), 5, follow=True) == (
        "journalctl", "--unit", "xybridd.service", "--lines", "5", "--follow",
    )  # fmt: skip
    assert "--user-unit" in systemd.logs(facts("user"), 5, follow=False)


AROUND = Surroundings(
    uid=1000, user="ada", booted=True, runtime_folder="/run/user/1000", homes_of_code=("/opt/x/bin/xybridd", "/usr")
)


@pytest.mark.parametrize(
    ("around", "scope", "said"),
    [
        ({"booted": False}, "system", "xybridd run"),
        ({"booted": False}, "user", "a container?"),
        ({"runtime_folder": None}, "user", "sudo loginctl enable-linger ada"),
        ({"runtime_folder": None, "uid": 0, "user": "root"}, "user", "add --system"),
        ({"runtime_folder": None}, "system", None),
        ({}, "user", None),
    ],
)
def test_what_is_in_the_way_is_said_with_what_to_do(around: dict[str, object], scope: Scope, said: str | None) -> None:
    found = obstacle(scope, msgspec.structs.replace(AROUND, **around))
    assert found is None if said is None else said in (found or "")


def test_the_systems_service_must_see_its_code() -> None:
    assert obstacle_to_install("system", AROUND) is None
    hidden = msgspec.structs.replace(AROUND, homes_of_code=("/home/ada/venv/bin/xybridd", "/usr"))
    assert "python3 -m venv /opt/xybridd" in (obstacle_to_install("system", hidden) or "")
    assert obstacle_to_install("user", hidden) is None
    assert obstacle_to_install("system", msgspec.structs.replace(AROUND, homes_of_code=("/homely/x",))) is None


def test_launchd_is_asked_in_its_words() -> None:
    ada = facts("user", home="/Users/ada", uid=501)
    plist = "/Users/ada/Library/LaunchAgents/dev.xybrid.xybridd.agent.plist"
    plan = launchd.install(ada)
    assert list(written(plan)) == [plist]
    assert commands(plan) == [f"launchctl bootstrap gui/501 {plist}"]
    there = msgspec.structs.replace(ada, files=written(plan))
    assert commands(launchd.install(there)) == ["launchctl kickstart gui/501/dev.xybrid.xybridd.agent"]
    newer = msgspec.structs.replace(there, version="0.2.0")
    assert commands(launchd.install(newer))[0] == "launchctl bootout gui/501/dev.xybrid.xybridd.agent"
    gone = launchd.uninstall(there)
    assert commands(gone) == ["launchctl bootout gui/501/dev.xybrid.xybridd.agent"]
    assert Remove(plist) in gone.steps
    assert launchd.logs(ada, 7, follow=True) == ("tail", "-n", "7", "-f", "/Users/ada/Library/Logs/xybridd.log")


def test_on_a_mac_the_systems_daemon_gets_a_user_of_its_own() -> None:
    plan = launchd.install(facts(group_id=399, data="/Library/Application Support/xybridd"))
    ran = commands(plan)
    assert ran[0] == "dseditgroup -o create -i 399 xybrid"
    assert ran[-1] == "launchctl bootstrap system /Library/LaunchDaemons/dev.xybrid.xybridd.daemon.plist"
    assert any(command.startswith("install -d -o _xybridd") and command.endswith("/xybridd") for command in ran)
