"""``xybridd advice``, of a real daemon about this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon


def test_advice_as_people_and_as_programs_read_it(daemon: Daemon) -> None:
    found = json.loads(daemon.xybridd("advice", "--json").stdout)
    assert found["prefer"] in {"npu", "gpu", "cpu"}
    assert found["can_load_model"] is None
    assert found["cpu_cores"] == len(os.sched_getaffinity(0)) or found["cpu_cores"] < (os.cpu_count() or 1)
    shown = daemon.xybridd("advice").stdout
    assert f"the {found['prefer'].upper()}" in shown
    assert "MB left, pressure" in shown
    assert "model" not in shown
    for reason in found["reasons"]:
        assert reason in shown


@pytest.mark.parametrize(("size", "words"), [("1", "fits: 1 MB × 2"), ("1e9", "does not fit: 1e+09 MB × 2")])
def test_whether_a_model_fits(daemon: Daemon, size: str, words: str) -> None:
    done = daemon.xybridd("advice", "--model-size-mb", size, "--margin", "2")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert ("MB are needed" in done.stdout) == (size != "1")


def test_colours_are_for_a_terminal(daemon: Daemon) -> None:
    assert "\x1b[" not in daemon.xybridd("advice").stdout
    assert "\x1b[32m" in daemon.xybridd("advice", env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout


@pytest.mark.parametrize("arguments", [["--model-size-mb", "-1"], ["--margin", "0"], ["--model-size-mb", "big"]])
def test_nonsense_is_a_usage_error(make_daemon: Callable[..., Daemon], arguments: list[str]) -> None:
    assert make_daemon().xybridd("advice", *arguments).returncode == 2


def test_without_a_daemon_it_says_how_to_start_one(make_daemon: Callable[..., Daemon]) -> None:
    done = make_daemon().xybridd("advice")
    assert done.returncode == 3
    assert "xybridd run" in done.stderr
