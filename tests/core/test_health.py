"""What a doctor makes of facts: each judgement by a table of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from xybridd.core.health import clients, clock, config, daemon, device, service, socket, storage, upload
from xybridd.core.health.finding import EXIT_CODES, ORDER, Finding, Level, Topic, by_weight, worst

if TYPE_CHECKING:
    from collections.abc import Callable

OK, UNKNOWN, WARNING, PROBLEM = Level.OK, Level.UNKNOWN, Level.WARNING, Level.PROBLEM
MiB = 2**20
NOW_MS = 1_800_000_000_000


def only(found: list[Finding]) -> Finding:
    (one,) = found
    return one


def of(found: list[Finding], topic: Topic) -> Finding:
    return next(each for each in found if each.check == topic.check)


def test_what_is_worst_stands_first_and_the_rest_keeps_its_order() -> None:
    topic = Topic("t", "because")
    found = [topic.ok("a"), topic.warning("b", "m"), topic.unknown("c"), topic.problem("d", "m"), topic.ok("e")]
    assert [each.says for each in by_weight(found)] == ["d", "b", "c", "a", "e"]
    assert worst(found) is PROBLEM
    assert worst([topic.ok("a"), topic.unknown("b")]) is UNKNOWN
    assert worst([]) is OK


def test_exit_codes_grow_with_the_weight() -> None:
    codes = [EXIT_CODES[level] for level in ORDER]
    assert codes == [7, 6, 0, 0]
    assert all(heavier >= lighter for heavier, lighter in pairwise(codes))


# Daemon


def status(**more: Any) -> dict[str, Any]:
    ledger = {"received": 5, "counted": 3, "duplicates": 1, "rejected": {"overloaded": 1}, "exports": {}}
    return {
        "state": "ok", "reason": None, "version": "1", "pid": 7, "uptime_s": 90,
        "storage": {"path": "/d/xybridd.db"}, "ledger": ledger, **more,
    }  # fmt: skip


def judged(**facts: Any) -> list[Finding]:
    return daemon.judge(daemon.DaemonFacts(**{"answers": "running", "version": "1", "status": status(), **facts}))


def test_a_daemon_that_is_well() -> None:
    assert [each.level for each in judged()] == [OK, OK, OK]


@pytest.mark.parametrize(
    ("facts", "level", "mend"),
    [
        ({"answers": "absent"}, PROBLEM, "xybridd run"),
        ({"answers": "absent", "service": "user"}, PROBLEM, "xybridd service start"),
        ({"answers": "absent", "service": "system"}, PROBLEM, "sudo xybridd service start --system"),
        ({"answers": "silent", "service": "user"}, PROBLEM, "xybridd service restart"),
        ({"answers": "denied"}, UNKNOWN, "sudo xybridd doctor"),
    ],
)
def test_a_daemon_that_does_not_answer(facts: dict[str, Any], level: Level, mend: str) -> None:
    finding = only(judged(status=None, **facts))
    assert (finding.level, finding.mend) == (level, mend)


@pytest.mark.parametrize(
    ("reason", "mend"),
    [("the disk is full", "df -h /d"), ("disk I/O error", "findmnt -T /d; sudo dmesg | tail")],
)
def test_a_disk_that_refuses_is_the_daemons_problem(reason: str, mend: str) -> None:
    finding = of(judged(status=status(state="degraded", reason=reason)), daemon.DAEMON)
    assert finding.level is PROBLEM
    assert reason in finding.says
    assert finding.mend == mend


def test_another_version_runs() -> None:
    finding = of(judged(version="2", service="system"), daemon.VERSION)
    assert (finding.level, finding.mend) == (WARNING, "sudo xybridd service install --system")


@pytest.mark.parametrize(
    "ledger",
    [
        {"received": 6, "counted": 5, "duplicates": 0, "rejected": {}},
        {
            "received": 0, "counted": 0, "duplicates": 0, "rejected": {},
            "exports": {"otlp": {"made": 3, "delivered": 1, "queued": 1, "superseded": 0, "dead": 0, "evicted": 0,
                                 "forgotten": 0}},
        },
    ],
)  # fmt: skip
def test_a_ledger_that_does_not_add_up(ledger: dict[str, Any]) -> None:
    assert of(judged(status=status(ledger=ledger)), daemon.LEDGER).level is PROBLEM


# Socket


def at(reached: str, **more: Any) -> socket.SocketFacts:
    facts = {"path": "/r/s", "mode": 0o660, "owner": "xybridd", "group": "xybrid", "user": "ada", **more}
    return socket.SocketFacts(reached=reached, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sockets", "level", "words"),
    [
        ([at("connected")], OK, "members of xybrid"),
        ([at("connected", mode=0o600)], OK, "xybridd"),
        ([at("connected", mode=0o666)], WARNING, "0660"),
        ([at("missing", mode=None), at("connected")], OK, "members"),
        ([at("denied")], PROBLEM, "sudo usermod -aG xybrid ada"),
        ([at("denied", is_member=True)], PROBLEM, "newgrp xybrid"),
        ([at("denied", mode=0o600, owner="root")], PROBLEM, "root alone"),
        ([at("denied", mode=None, owner="")], PROBLEM, "somebody else"),
        ([at("too long", mode=None)], PROBLEM, "XYBRIDD_SOCKET"),
        ([at("no socket")], PROBLEM, "is no socket"),
        ([at("silent")], PROBLEM, "queue"),
        ([at("refused")], UNKNOWN, "nobody listens"),
        ([at("missing", mode=None)], UNKNOWN, "the daemon makes it"),
    ],
)
def test_sockets(sockets: list[socket.SocketFacts], level: Level, words: str) -> None:
    finding = only(socket.judge(sockets))
    assert finding.level is level
    assert words in f"{finding.says} {finding.mend}"


def test_a_folder_in_which_anybody_may_put_a_socket() -> None:
    assert of(socket.judge([at("connected", folder_open=True)]), socket.FOLDER).level is PROBLEM


# Storage


def folder(**more: Any) -> list[Finding]:
    facts = {
        "path": "/d", "there": True, "mode": 0o700, "owner": "ada", "file_system": "ext4", "free_bytes": 500 * MiB,
        "free_files": 9999, "quota_bytes": 64 * MiB, **more,
    }  # fmt: skip
    return storage.judge_folder(storage.FolderFacts(**facts))


@pytest.mark.parametrize(
    ("facts", "topic", "level"),
    [
        ({}, storage.FOLDER, OK),
        ({"there": False}, storage.FOLDER, OK),
        ({"there": False, "writable": False}, storage.FOLDER, PROBLEM),
        ({"there": False, "daemon_runs": True}, storage.FOLDER, PROBLEM),
        ({"mode": 0o755}, storage.FOLDER, WARNING),
        ({"mode": None}, storage.FOLDER, UNKNOWN),
        ({"writable": False}, storage.FOLDER, PROBLEM),
        ({"writable": False, "ours": False}, storage.FOLDER, OK),
        ({}, storage.DISK, OK),
        ({"read_only": True}, storage.DISK, PROBLEM),
        ({"free_bytes": 1 * MiB}, storage.DISK, PROBLEM),
        ({"free_bytes": 30 * MiB}, storage.DISK, WARNING),
        ({"free_bytes": 30 * MiB, "used_bytes": 60 * MiB}, storage.DISK, OK),
        ({"free_files": 3}, storage.DISK, PROBLEM),
        ({"free_files": None}, storage.DISK, OK),
        ({"free_bytes": None}, storage.DISK, UNKNOWN),
        ({}, storage.FILES, OK),
        ({"file_system": "nfs4"}, storage.FILES, PROBLEM),
        ({"file_system": "tmpfs"}, storage.FILES, WARNING),
        ({"file_system": "exfat"}, storage.FILES, WARNING),
        ({"file_system": None}, storage.FILES, UNKNOWN),
    ],
)
def test_folder_and_disk(facts: dict[str, Any], topic: Topic, level: Level) -> None:
    assert of(folder(**facts), topic).level is level


SALVAGE = {"at_ms": NOW_MS - 60_000, "set_aside": "xybridd.db.damaged-1", "reason": "r", "rows_saved": 3}


@pytest.mark.parametrize(
    ("facts", "topic", "level"),
    [
        ({"looked": "daemon"}, storage.DATABASE, OK),
        ({"looked": "copy", "unclean": True}, storage.DATABASE, OK),
        ({"looked": "absent"}, storage.DATABASE, OK),
        ({"looked": "open"}, storage.DATABASE, UNKNOWN),
        ({"looked": "denied"}, storage.DATABASE, UNKNOWN),
        ({"looked": "failed", "complaint": "no"}, storage.DATABASE, UNKNOWN),
        ({"looked": "copy", "complaint": "malformed"}, storage.DATABASE, PROBLEM),
        ({"looked": "daemon", "used_bytes": 1, "quota_bytes": 10}, storage.ROOM, OK),
        ({"looked": "daemon", "used_bytes": 10, "quota_bytes": 10}, storage.ROOM, WARNING),
        ({"looked": "daemon", "salvages": (SALVAGE,), "set_aside": ("x",)}, storage.SALVAGE, WARNING),
        ({"looked": "daemon", "salvages": (SALVAGE,)}, storage.SALVAGE, WARNING),
        ({"looked": "daemon", "salvages": (SALVAGE,), "set_aside": ()}, storage.SALVAGE, OK),
        ({"looked": "daemon", "salvages": ({**SALVAGE, "at_ms": 0},)}, storage.SALVAGE, OK),
    ],
)
def test_database(facts: dict[str, Any], topic: Topic, level: Level) -> None:
    found = storage.judge_database(storage.DatabaseFacts(path="/d/xybridd.db", now_ms=NOW_MS, **facts))
    assert of(found, topic).level is level


# Clock, config, service


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"now_ms": NOW_MS, "synchronised": True}, OK),
        ({"now_ms": NOW_MS}, OK),
        ({"now_ms": NOW_MS, "synchronised": False, "kept": True}, WARNING),
        ({"now_ms": 0, "synchronised": True}, PROBLEM),
        ({"now_ms": -1}, PROBLEM),
        ({"now_ms": 2**53}, PROBLEM),
        ({"now_ms": NOW_MS, "synchronised": True, "moved_s": 59.0}, OK),
        ({"now_ms": NOW_MS, "synchronised": True, "moved_s": -3600.0}, WARNING),
    ],
)
def test_clocks(facts: dict[str, Any], level: Level) -> None:
    assert only(clock.judge(clock.ClockFacts(**facts))).level is level


@pytest.mark.parametrize(
    ("facts", "topic", "level"),
    [
        ({"path": None}, config.CONFIG, OK),
        ({"path": "/c"}, config.CONFIG, OK),
        ({"path": "/c", "hidden": True}, config.CONFIG, UNKNOWN),
        ({"path": "/c", "error": "not TOML"}, config.CONFIG, PROBLEM),
        ({"path": "/c", "warnings": ("unknown key",)}, config.CONFIG, WARNING),
        ({"path": "/c", "mode": 0o664}, config.MODE, PROBLEM),
        ({"path": "/c", "mode": 0o600, "trusted_owner": False}, config.MODE, PROBLEM),
        ({"path": None, "declined": ("DO_NOT_TRACK=1",)}, config.OPT_OUT, WARNING),
    ],
)
def test_configs(facts: dict[str, Any], topic: Topic, level: Level) -> None:
    assert of(config.judge(config.ConfigFacts(**facts)), topic).level is level


def installed(**more: Any) -> dict[str, Any]:
    return {
        "scope": "user", "installed": True, "running": True, "at_boot": True, "listening": True, "result": "success",
        "lingers": True, "files": [{"path": "/u", "state": "as written"}], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gathered", "topic", "level", "mend"),
    [
        (installed(), service.SERVICE, OK, None),
        (installed(lingers=False), service.SERVICE, OK, None),
        (installed(installed=False), service.SERVICE, WARNING, "xybridd service install"),
        (installed(running=False), service.SERVICE, PROBLEM, "xybridd service start"),
        (installed(result="oom-kill"), service.SERVICE, PROBLEM, "xybridd service logs"),
        (installed(at_boot=False, scope="system"), service.SERVICE, WARNING, "sudo xybridd service install --system"),
        (installed(listening=False), service.SERVICE, WARNING, "xybridd service install"),
        (
            installed(files=[{"path": "/u", "state": "of another version"}]),
            service.UNITS,
            WARNING,
            "xybridd service install",
        ),
        (installed(files=[{"path": "/u", "state": "changed by hand"}]), service.UNITS, OK, None),
    ],
)
def test_services(gathered: dict[str, Any], topic: Topic, level: Level, mend: str | None) -> None:
    finding = of(service.judge(service.ServiceFacts(gathered=(gathered,))), topic)
    assert (finding.level, finding.mend) == (level, mend)


def test_a_machine_without_services() -> None:
    assert only(service.judge(service.ServiceFacts(manager_runs=False))).level is OK
    assert only(service.judge(service.ServiceFacts(obstacle="no"))).level is UNKNOWN


# Upload


def sink(**more: Any) -> dict[str, Any]:
    return {"sink": "xybrid", "state": "idle", "queued": 0, "dead": 0, "last_error": None, **more}


def sending(*sinks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"state": "on", "reason": None, "problems": [], "sinks": list(sinks), "not_configured": {}, **more}


OFF = {"state": "off", "reason": "nothing is configured"}


@pytest.mark.parametrize(
    ("told", "topic", "level"),
    [
        (sending(sink()), upload.UPLOAD, OK),
        (sending(**OFF), upload.UPLOAD, OK),
        (sending(**OFF, not_configured={"otlp": {"queued": 2}}), upload.UPLOAD, WARNING),
        (sending(sink(), state="paused"), upload.UPLOAD, WARNING),
        (sending(sink(state="blocked", last_error="401")), upload.UPLOAD, PROBLEM),
        (sending(sink(state="retrying", last_error="503")), upload.UPLOAD, WARNING),
        (sending(**OFF, problems=["others may read the key"]), upload.UPLOAD, PROBLEM),
        (sending(state="unknown", reason="the database cannot be read"), upload.UPLOAD, UNKNOWN),
        (None, upload.UPLOAD, UNKNOWN),
        (sending(sink(dead=1)), upload.DEAD, WARNING),
        (sending(sink()), upload.DEAD, OK),
        (sending(sink()), upload.NETWORK, OK),
    ],
)
def test_uploads(told: dict[str, Any] | None, topic: Topic, level: Level) -> None:
    assert of(upload.judge(upload.UploadFacts(status=told, by_daemon=True)), topic).level is level


def test_a_problem_that_says_what_to_run_is_mended_by_that() -> None:
    told = sending(**OFF, problems=["/k may be read by others and is not used; run: chmod 600 /k"])
    finding = of(upload.judge(upload.UploadFacts(status=told, by_daemon=True)), upload.UPLOAD)
    assert (finding.says, finding.mend) == ("/k may be read by others and is not used", "chmod 600 /k")


@pytest.mark.parametrize(
    ("keys", "by_daemon", "level"),
    [
        ([upload.KeyFacts("/k", 0o600)], False, OK),
        ([upload.KeyFacts("/k", 0o644)], False, PROBLEM),
        ([upload.KeyFacts("/k", 0o600, ours=False)], False, PROBLEM),
        ([upload.KeyFacts("/k", None)], False, OK),
        ([], False, WARNING),
        ([], True, OK),
    ],
)
def test_keys(keys: list[upload.KeyFacts], by_daemon: bool, level: Level) -> None:
    facts = upload.UploadFacts(status=sending(sink()), by_daemon=by_daemon, keys=tuple(keys))
    assert of(upload.judge(facts), upload.KEY).level is level


@pytest.mark.parametrize(
    ("stage", "level"), [("resolve", PROBLEM), ("connect", PROBLEM), ("tls", PROBLEM), ("done", OK)]
)
def test_how_far_an_endpoint_is_reached(stage: Any, level: Level) -> None:
    reached = upload.ReachFacts("otlp", "collector.example:4318", stage, "why", by_proxy="proxy")
    finding = of(upload.judge(upload.UploadFacts(status=sending(sink()), reached=(reached,))), upload.NETWORK)
    assert finding.level is level
    assert "collector.example" in finding.says


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({}, OK),
        ({"files": 2, "size_bytes": 9, "oldest_s": 5, "daemon_runs": True}, OK),
        ({"files": 2, "size_bytes": 9, "oldest_s": 5}, WARNING),
        ({"files": 2, "size_bytes": 9, "oldest_s": 9999, "daemon_runs": True}, WARNING),
        ({"damaged": 1}, WARNING),
    ],
)
def test_spools(facts: dict[str, Any], level: Level) -> None:
    assert only(upload.judge_spool(upload.SpoolFacts(path="/s", **facts))).level is level


# Clients


@pytest.mark.parametrize(
    ("method", "code", "advice"),
    [
        ("session.start", "invalid_params", "correct in this app"),
        ("session.start", "permission_denied", "run this app as the user"),
        ("ring.attach", "invalid_params", "upgrade the xybridd of this app"),
        ("hello", "unknown_session", "start a session of its own"),
        ("session.start", "session_ended", "start another session"),
    ],
)
def test_refused_clients_say_what_to_do(method: str, code: str, advice: str) -> None:
    client = {"uid": 1000, "app": "kiosk", "method": method, "code": code, "message": "why", "count": 3}
    facts = clients.ClientFacts(refused=[{**client, "last_at_ms": 0}], now_ms=60_000)
    finding = only(clients.judge(facts))
    assert finding.level is WARNING
    assert finding.says == f"kiosk (user 1000): {method} was refused 3 times, 1 min ago: why"
    assert advice in (finding.mend or "")
    later = clients.ClientFacts(refused=facts.refused, now_ms=3_600_001)
    assert only(clients.judge(later)).level is OK


def test_only_a_daemon_knows_the_refused_clients() -> None:
    assert only(clients.judge(clients.ClientFacts(refused=None, now_ms=0))).level is Level.UNKNOWN


# GPU and NPU


def reading(*devices: dict[str, Any]) -> dict[str, Any]:
    return {"gpu": {"value": list(devices)}, "npu": {"value": []}}


RENDER = {"name": "Arc", "stage": "driver_bound", "hint": "add the user to the group render"}


@pytest.mark.parametrize(
    ("details", "level", "words"),
    [
        (reading(), OK, "none"),
        (reading({"name": "Arc", "stage": "usable", "hint": None}), OK, "Arc: usable"),
        (reading(RENDER), WARNING, "sudo usermod -aG render xybridd"),
        (reading({**RENDER, "hint": "no driver is bound"}), WARNING, "xybridd device --explain"),
        ({"gpu": {"value": None, "reason": "it hangs"}}, UNKNOWN, "it hangs"),
        (None, UNKNOWN, "--explain"),
    ],
)
def test_gpus(details: dict[str, Any] | None, level: Level, words: str) -> None:
    finding = of(device.judge(device.DeviceFacts(details=details, user="xybridd")), device.GPU)
    assert finding.level is level
    assert words in f"{finding.says} {finding.mend}"


def test_whatever_needs_mending_names_a_command_and_says_why() -> None:
    """Of every topic; a finding with nothing to do about it would help nobody."""
    make: list[Callable[[str, str], Finding]] = [
        getattr(each, level)
        for module in (clock, config, daemon, device, service, socket, storage, upload)
        for each in vars(module).values()
        if isinstance(each, Topic)
        for level in ("warning", "problem")
    ]
    assert len(make) > 30
    assert all(finding("says", "mend").why for finding in make)


def test_damage_that_was_mended_in_its_place_never_has_the_whole_folder_removed() -> None:
    in_place = {"at_ms": 0, "set_aside": "", "reason": "the ledger does not agree", "rows_saved": 0}
    facts = storage.DatabaseFacts(
        path="/data/xybridd.db", looked="daemon", salvages=(in_place,), set_aside=("xybridd.db.damaged-1",)
    )
    found = of(storage.judge_database(facts), storage.SALVAGE)
    assert found.mend == "rm /data/xybridd.db.damaged-1*"
    assert "saved" not in found.says
