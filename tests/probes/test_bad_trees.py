"""Machines some of whose files hold or do what no file should: each costs what depends on it, and nothing raises."""

from __future__ import annotations

import errno
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.probes.given import FOLDER, Link
from tests.probes.machines import LINUX, MACHINES, common, machine
from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.recorded import RecordedTree
from xybridd.probes.register import PROBES, together

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

#: Contents, and what is done instead of reading: a folder, a link to itself, an error of the device.
BAD: list[Any] = [
    b"\x00\xff\xfe\x80junk", b"", b"\n\n", FOLDER, Link("loop"), b"9" * 4000, b"-" + b"9" * 4000, b"0x" + b"f" * 4000,
    b"99999999999999999999999", b"nan", b"-256000", b"65261850", b"1" * 70_000, "\u0661\u0662".encode(),
    errno.EIO, errno.EACCES, errno.ENODEV, errno.ETIMEDOUT, errno.EINVAL,
]  # fmt: skip


class Failing(RecordedTree):
    """Opening fails as the driver's would: rights alone do not stop root, who may run this."""

    def __init__(self, root: Path, failing: dict[str, int]) -> None:
        super().__init__(root)
        self._failing = {self._place(path): number for path, number in failing.items()}

    def _place(self, path: str) -> str:
        try:
            return self.followed(path)[0]
        except OSError:
            return path

    def _open(self, path: str) -> int:
        number = self._failing.get(self._place(path))
        if number is not None:
            raise OSError(number, os.strerror(number))
        return super()._open(path)


def spoil(root: Path, path: str, bad: Any) -> None:
    place = root / path.lstrip("/")
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
    else:
        return
    if bad is FOLDER:
        place.mkdir()
    elif isinstance(bad, Link):
        place.symlink_to(place.name)
    else:
        place.write_bytes(bad)


def read_apart(machine: Tree) -> tuple[dict[str, Reading], dict[str, set[str]]]:
    """The readings, and at which paths each probe looked."""
    readings: dict[str, Reading] = {}
    looked: dict[str, set[str]] = {}
    for probe in PROBES:
        before = len(machine.looked)
        readings |= probe.read(machine, 1.0)
        looked[probe.name] = {each.path for each in machine.looked[before:]}
    return readings, looked


@cache
def read_well(name: str) -> tuple[dict[str, Reading], dict[str, set[str]]]:
    with tempfile.TemporaryDirectory() as folder:
        return read_apart(machine(Path(folder, "m"), name))


def files_of(name: str) -> dict[str, Any]:
    return {path: content for part in (common(), *MACHINES[name].parts) for path, content in part.items()}


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(LINUX))
    paths = sorted(path for path, content in files_of(name).items() if content is not FOLDER)
    some = st.dictionaries(st.sampled_from(paths), st.sampled_from(BAD), min_size=1, max_size=6)
    return name, draw(some)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoiled())
def test_what_is_broken_costs_what_depends_on_it_alone(case: tuple[str, dict[str, Any]]) -> None:
    name, broken = case
    with tempfile.TemporaryDirectory() as folder:
        machine(Path(folder, "m"), name)
        well, looked = read_well(name)
        failing = {path: bad for path, bad in broken.items() if isinstance(bad, int)}
        spoils = {path: bad for path, bad in broken.items() if not isinstance(bad, int)}
        sick = Failing(Path(folder, "m"), failing)
        for path, bad in spoils.items():
            spoil(Path(folder, "m"), path, bad)
        found, looked_sick = read_apart(sick)
    assert set(found) == set(well)
    together(found)
    for probe in PROBES:
        told = {str(each) for each in (*looked[probe.name], *looked_sick[probe.name])}
        if not any(_touches(path, told) for path in broken):
            for quantity in probe.quantities:
                assert found[quantity.name] == well[quantity.name]
    for reading in found.values():
        assert isinstance(reading.confidence, Confidence)
        assert reading.confidence is not Confidence.UNKNOWN or (reading.value is None and reading.reason)


def _touches(path: str, looked: set[str]) -> bool:
    """Whether a probe may have met a file: by its path, or by its name through links."""
    name = path.rpartition("/")[2]
    return any(each == path or each.rpartition("/")[2] == name or path.startswith(f"{each}/") for each in looked)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
@pytest.mark.parametrize(
    ("name", "path", "quantity"),
    [
        ("Raspberry Pi 5", "/proc/meminfo", "memory"),
        ("battery whose capacity lies", "/sys/class/power_supply/BAT0/energy_now", "battery"),
        ("battery whose capacity lies", "/sys/class/power_supply/BAT0/type", "battery"),
        ("Jetson Orin", "/sys/class/thermal/thermal_zone0/temp", "thermal"),
        ("Raspberry Pi 5", "/proc/net/route", "default_route"),
    ],
)
def test_the_broken_one_is_unknown_or_less_sure_and_says_why(
    tmp_path: Path, name: str, path: str, quantity: str, bad: Any
) -> None:
    machine(tmp_path, name)
    if isinstance(bad, int):
        sick: RecordedTree = Failing(tmp_path, {path: bad})
    else:
        spoil(tmp_path, path, bad)
        sick = RecordedTree(tmp_path)
    reading = read_apart(sick)[0][quantity]
    gone = bad == errno.ENODEV
    if not gone and not _plausible(bad, quantity):
        assert reading.confidence is not Confidence.HIGH
        assert reading.reason


def _plausible(bad: Any, quantity: str) -> bool:
    """Some of what is nonsense in one file is an answer in another: no route at all, a block that is off."""
    return (quantity == "default_route" and isinstance(bad, bytes)) or (quantity == "thermal" and bad == b"-256000")
