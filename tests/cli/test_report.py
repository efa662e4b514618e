from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.report.week import DAY_MS, Week, make_week, write_week
from tests.support import Daemon, inference
from xybridd.core.minute import HOUR_MS, MINUTE_MS
from xybridd.core.report.figures import Report

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def made_week(make_daemon: Callable[..., Daemon]) -> tuple[Daemon, Week]:
    """A daemon that holds the made-up week, until a minute ago."""
    made, running = make_week(int(time.time() * 1000) - MINUTE_MS), make_daemon()
    asyncio.run(write_week(running.data, made))
    return running.start(), made


def report_of(daemon: Daemon, *options: str) -> Report:
    found = daemon.xybridd("report", "--format", "json", *options)
    assert found.returncode == 0, found.stderr
    return msgspec.json.decode(found.stdout, type=Report)


def test_a_week_through_a_real_daemon_is_the_week_that_was_recorded(made_week: tuple[Daemon, Week]) -> None:
    daemon, week = made_week
    report = report_of(daemon, "--since", "8d")
    assert report.totals.calls + report.totals.errors == week.records
    heads = {head.session_id: head for head in week.changes.heads}
    assert report.totals.sessions == len(heads)
    assert report.totals.lost == sum(head.end_reason == "client_lost" for head in heads.values()) > 0
    assert report.device.samples == len(week.samples)
    assert {one.what for one in report.device.energy} == {"GPU", "battery, the whole device"}
    assert report.ledger["counted"] == week.records
    heat = next(each for each in report.models[0].dimensions if each.dimension == "thermal_state")
    assert [state.value for state in heat.states] == ["normal", "warm", "hot", "critical"]

    kiosk = report_of(daemon, "--since", "8d", "--app", "kiosk")
    assert {model.model_id for model in kiosk.models} == {"magika", "whisper-tiny"}
    assert kiosk.totals.sessions < report.totals.sessions
    # Between two whole hours, where nothing begins: the two commands have no common now.
    apart = f"{(3 * DAY_MS + time.time() * 1000 % HOUR_MS + HOUR_MS / 2) // 1000:.0f}s"
    older, newer = report_of(daemon, "--since", "8d", "--until", apart), report_of(daemon, "--since", apart)
    assert older.totals.calls + newer.totals.calls == report.totals.calls
    assert older.totals.calls > 0
    assert older.device.samples + newer.device.samples == len(week.samples)
    assert max(step.at_ms for step in older.over_time) < newer.since_ms


def test_the_page_is_a_file_and_the_other_forms_go_where_they_are_wanted(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.call("record.inference", model_id="m", version="1", latency_ms=20)
    said = daemon.xybridd("report", cwd=daemon.folder)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("xybridd-report.html: 7 d, 1 sessions, 1 calls, 0 errors; ")
    html = (daemon.folder / "xybridd-report.html").read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>")
    for name, begins in (("r.csv", "model_id,version,"), ("r.md", "# xybridd report"), ("r.json", "{")):
        assert daemon.xybridd("report", "-o", name, cwd=daemon.folder).returncode == 0
        assert (daemon.folder / name).read_text("utf-8").startswith(begins)
    assert daemon.xybridd("report", "-o", "-").stdout.startswith("<!DOCTYPE html>")
    assert sorted(each.name for each in daemon.folder.glob("*r*.*")) == [
        "r.csv",
        "r.json",
        "r.md",
        "xybridd-report.html",
    ]


def test_with_nothing_recorded_the_page_says_what_to_do(daemon: Daemon) -> None:
    assert "Nothing was recorded" in daemon.xybridd("report", "-o", "-").stdout
    assert report_of(daemon).totals.crash_free_percent is None


def test_what_is_recorded_this_minute_is_in_it(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        wire.hello("kiosk")
        wire.call("session.start")
        wire.call("record.batch", seq=1, records=[inference("m", latency_ms=20)] * 3, flush=True)
        report = report_of(daemon, "--since", "1h")
        assert [(model.model_id, model.calls) for model in report.models] == [("m", 3)]
        assert (report.totals.sessions, report.totals.active) == (1, 1)
        assert report.sessions[0].app == "kiosk"


def test_what_cannot_be_made_is_said(daemon: Daemon) -> None:
    backwards = daemon.xybridd("report", "--since", "1d", "--until", "2d")
    assert (backwards.returncode, "--until" in backwards.stderr) == (2, True)
    nowhere = daemon.xybridd("report", "-o", str(daemon.folder / "missing" / "r.html"))
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr) == (1, True)
    daemon.stop()
    assert daemon.xybridd("report").returncode == 3


def test_json_is_the_figures_as_they_are(daemon: Daemon) -> None:
    found = json.loads(daemon.xybridd("report", "--format", "json").stdout)
    assert list(found) == list(Report.__struct_fields__)
    assert found["format"] == 1
