"""Recordings of machines: ours give the same again and tell nobody's name, and those of others are taken as they are."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.probes.given import Files, Link, tree
from tests.probes.machines import LINUX, MACBOOK, MACHINES, common, machine
from tests.probes.machines_gpu_npu import CORAL_AFTER, STRIX_POINT
from tests.probes.machines_power_thermal import RYZEN_LAPTOP, supply
from xybridd.cli.recording import Redaction, unpacked, write
from xybridd.errors import XybriddError
from xybridd.probes.macos import FOR_RECORDINGS
from xybridd.probes.recorded import RecordedTree, open_tree
from xybridd.probes.register import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.probes.tree import Tree


def recorded(given: Tree, out: Path) -> list[str]:
    """Record what every probe looks at; what could not be read."""
    read_all(given, 1.0)
    if given.platform == "darwin":
        for command in FOR_RECORDINGS:
            given.output(*command)
    return write(given, out)[1]


def replayed(out: Path) -> Any:
    with unpacked(out) as folder:
        return read_all(open_tree(folder), 1.0)


@pytest.mark.parametrize("name", MACHINES)
def test_a_replay_says_what_the_machine_said(tmp_path: Path, name: str) -> None:
    given = machine(tmp_path / "machine", name)
    assert recorded(given, tmp_path / "out.tar") == []
    assert replayed(tmp_path / "out.tar") == read_all(given, 1.0)


def test_a_recording_of_a_replay_is_the_same_recording(tmp_path: Path) -> None:
    given = machine(tmp_path / "machine", "Ryzen APU laptop")
    recorded(given, tmp_path / "once.tar")
    with unpacked(tmp_path / "once.tar") as folder:
        recorded(open_tree(folder), tmp_path / "twice.tar")
    assert (tmp_path / "twice.tar").read_bytes() == (tmp_path / "once.tar").read_bytes()


def test_what_could_not_be_read_or_used_is_recorded_as_that(tmp_path: Path) -> None:
    given = tree(tmp_path / "machine", common(), STRIX_POINT, RYZEN_LAPTOP)
    (tmp_path / "machine/sys/class/thermal/thermal_zone0/temp").chmod(0)
    (tmp_path / "machine/dev/accel/accel0").chmod(0o440)
    (tmp_path / "machine/proc/meminfo").chmod(0)
    unread = recorded(given, tmp_path / "out.tar")
    assert {each.partition(":")[0] for each in unread} == {"/sys/class/thermal/thermal_zone0/temp", "/proc/meminfo"}
    again = replayed(tmp_path / "out.tar")
    assert again == read_all(given, 1.0)
    assert again.readings["memory"].reason == "/proc/meminfo: Permission denied"
    assert again.readings["npu"].value[0]["hint"] == "add the user to the group render"


HOST = "annas-thinkpad"
SECRETS = [
    HOST, "PF3ABC42", "L1HF0042", "S4EWNX0R", "4c4c4544-0042", "BAT-0815", "CORAL-77", "98:fa:9b", "98_fa_9b",
    "0102A8C0", "fe80", "deadbeef", "3f2504e0", "1f:20:aa",
]  # fmt: skip
_POD = "kubepods-pod3f2504e0_4f89_41d3_9a0c_0305e82c3301.slice"
_BOX = f"cri-{'deadbeef' * 8}.scope"
PLANTED: Files = {
    **common(),
    **STRIX_POINT,
    **RYZEN_LAPTOP,
    **CORAL_AFTER,
    "/etc/hostname": HOST,
    "/proc/sys/kernel/hostname": HOST,
    "/sys/class/dmi/id/product_name": "20XW0042GE",
    "/sys/class/dmi/id/product_serial": "PF3ABC42",
    "/sys/class/dmi/id/board_serial": "L1HF0042",
    "/sys/class/dmi/id/product_uuid": "4c4c4544-0042-3510-8052-b4c04f4d3432",
    "/sys/class/power_supply/BAT1/serial_number": "BAT-0815",
    "/sys/class/power_supply/BAT1/uevent": "POWER_SUPPLY_SERIAL_NUMBER=BAT-0815",
    **supply("hid-00:1f:20:aa:bb:cc-battery", type="Battery", scope="Device", capacity=9),
    "/sys/class/nvme/nvme0/serial": "S4EWNX0R",
    "/sys/bus/usb/devices/2-1/serial": "CORAL-77",
    "/sys/devices/pci0000:00/0000:c4:00.0/uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:c4:00.0\nHID_UNIQ=98:fa:9b:1:2:3\n"
    "SERIAL=PF3ABC42\nPHYS=98:fa:9b:00:11:22",
    "/proc/net/ipv6_route": f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}7 00000400 00000002 00000000 00000003 wlan1",
    "/proc/self/cgroup": f"0::/{HOST}.slice/{_POD}/{_BOX}",
    f"/sys/fs/cgroup/{HOST}.slice/{_POD}/memory.max": 2**30,
    f"/sys/fs/cgroup/{HOST}.slice/{_POD}/memory.current": 2**29,
    f"/sys/fs/cgroup/{HOST}.slice/{_POD}/memory.stat": "inactive_file 0",
}


def test_a_recording_tells_nobodys_name(tmp_path: Path) -> None:
    given = tree(tmp_path / "machine", PLANTED)
    recorded(given, tmp_path / "out.tar")
    raw = (tmp_path / "out.tar").read_bytes()
    assert [secret for secret in SECRETS if secret.lower().encode() in raw.lower()] == []
    was, told = read_all(given, 1.0), replayed(tmp_path / "out.tar")
    assert told.capabilities == was.capabilities
    assert told.capabilities.memory_total_mb == 1024
    # Of the details, only where the limit stands was somebody's name.
    different = {name for name, reading in told.readings.items() if reading != was.readings[name]}
    assert different == {"memory"}
    assert told.readings["memory"].value == was.readings["memory"].value


def test_a_macs_recording_tells_no_serial_number(tmp_path: Path) -> None:
    recorded(machine(tmp_path, MACBOOK), tmp_path / "out.tar")
    raw = (tmp_path / "out.tar").read_bytes()
    assert b"F8Y3450ABCDEFGHIJ" not in raw
    assert b"192.168" not in raw
    assert b"CurrentCapacity" in raw


def test_an_id_becomes_the_same_other_one_everywhere() -> None:
    redaction = Redaction("")
    first = redaction.path("/sys/fs/cgroup/3f2504e0-4f89-41d3-9a0c-0305e82c3301/memory.max")
    assert first == "/sys/fs/cgroup/00000000-0000-0000-0000-000000000001/memory.max"
    assert redaction.content("/proc/self/cgroup", b"0::/3F2504E0-4f89-41d3-9a0c-0305e82c3301").endswith(b"0001")
    assert redaction.path("/a/98:fa:9b:00:11:22/0000:00:1f.3") == "/a/00:00:00:00:00:02/0000:00:1f.3"


# What others record


def _copied(source: Path, place: Path) -> None:
    """As ``cp -rL`` has it: what a link leads to stands in its place; one that leads nowhere is left out."""
    place.mkdir(parents=True)
    for each in source.iterdir():
        if each.is_dir():
            _copied(each, place / each.name)
        elif each.exists():
            (place / each.name).write_bytes(each.read_bytes())


def _followed(given: RecordedTree, place: Path) -> Path:
    _copied(Path(given.root), place)
    return place


def _absolute(given: RecordedTree, _place: Path) -> Path:
    """As a tool writes links that asked the system where they lead."""
    for folder, names, files in os.walk(given.root):
        for name in [*names, *files]:
            link = Path(folder, name)
            if link.is_symlink():
                within = os.path.relpath(os.path.normpath(link.parent / link.readlink()), given.root)
                link.unlink()
                link.symlink_to(f"/{within}")
    return Path(given.root)


def _as_text(given: RecordedTree, _place: Path) -> Path:
    """As an archive without links keeps a driver's: a small file with where it led."""
    for folder, names, files in os.walk(given.root):
        for name in [*names, *files]:
            link = Path(folder, name)
            if link.is_symlink() and not link.exists():
                target = link.readlink()
                link.unlink()
                link.write_text(f"{target}\n")
    return Path(given.root)


def _filled_up(given: RecordedTree, _place: Path) -> Path:
    """As ``tar`` does with sysfs, whose files all say that they have 4096 bytes."""
    for folder, _, files in os.walk(f"{given.root}/sys"):
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.write_bytes(file.read_bytes().ljust(4096, b"\0"))
    return Path(given.root)


def _in_a_folder(given: RecordedTree, place: Path) -> Path:
    (place / "my-machine").mkdir(parents=True)
    (place / "MANIFEST").write_text("my-machine/tree\n")
    Path(given.root).rename(place / "my-machine/tree")
    return place


def _tar(given: RecordedTree, place: Path, *, prefix: str) -> Path:
    with tarfile.open(place, "w:gz") as tar:
        tar.add(given.root, prefix)
    return place


VARIANTS: dict[str, Callable[[RecordedTree, Path], Path]] = {
    "links followed": _followed,
    "absolute links": _absolute,
    "links as text": _as_text,
    "filled up with zeros": _filled_up,
    "in a folder, with a list": _in_a_folder,
    "a .tar.gz from ./": lambda given, place: _tar(given, place, prefix="./"),
    "a .tar.gz with a folder on top": lambda given, place: _tar(given, place, prefix="machine-1.0"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", LINUX)
def test_the_same_machine_in_whatever_form_it_was_copied(tmp_path: Path, name: str, variant: str) -> None:
    given = machine(tmp_path / "machine", name)
    was = read_all(given, 1.0)
    told = replayed(VARIANTS[variant](given, tmp_path / "copy"))
    assert told.capabilities == was.capabilities
    for kind in ("gpu", "npu"):
        found, expected = (
            [(each["name"], each["driver"], each["stage"]) for each in state.readings[kind].value or []]
            for state in (told, was)
        )
        assert found == expected


def _real_sysfs(files: Files) -> Files:
    """As a kernel has it: what is in /sys/class and on a bus are links into /sys/devices."""
    moved: Files = {}
    for path, content in files.items():
        parts = path.split("/")
        if parts[:3] == ["", "sys", "class"] and parts[3] in {"thermal", "power_supply", "hwmon"}:
            folder = f"/sys/devices/virtual/{parts[3]}"
            moved[f"{folder}/{'/'.join(parts[4:])}"] = content
            moved[f"/sys/class/{parts[3]}/{parts[4]}"] = Link(f"../../devices/virtual/{parts[3]}/{parts[4]}")
        else:
            moved[path] = content
    return moved


@pytest.mark.parametrize("name", ["Ryzen APU laptop", "desktop with NVIDIA", "old Intel laptop"])
def test_files_alone_without_any_link_are_enough(tmp_path: Path, name: str) -> None:
    """As ``find -type f`` lists them: nothing of /sys/class is left but what is in /sys/devices."""
    files = _real_sysfs({key: value for part in (common(), *MACHINES[name].parts) for key, value in part.items()})
    cards = [
        (path, value) for path, value in files.items() if path.startswith(("/sys/class/drm/", "/sys/class/accel/"))
    ]
    for path, value in cards:
        kind, card = path.split("/")[3:5]
        if isinstance(value, Link) and path.endswith("/device"):
            device = str(value).removeprefix("../../../devices")
            del files[path]
            beside = [at for at in files if at.startswith(f"/sys/class/{kind}/{card}/")]
            for at in beside:
                files[f"/sys/devices{device}/{kind}/{card}/{at.split('/', 5)[5]}"] = files.pop(at)
            files[f"/sys/devices{device}/{kind}/{card}/dev"] = "226:0"
            files[f"/sys/class/{kind}/{card}"] = Link(f"../../devices{device}/{kind}/{card}")
    given = tree(tmp_path / "machine", files)
    was = read_all(given, 1.0)
    place = tmp_path / "files"
    for folder, _, names in os.walk(given.root):
        for each in names:
            source = Path(folder, each)
            if not source.is_symlink():
                copy = place / source.relative_to(given.root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(source.read_bytes())
    assert not (place / "sys/class/thermal").exists()
    told = read_all(RecordedTree(place), 1.0)
    assert told.capabilities == was.capabilities
    assert [gpu["driver"] for gpu in told.readings["gpu"].value] == [gpu["driver"] for gpu in was.readings["gpu"].value]
    assert told.readings["npu"] == was.readings["npu"]


def test_batteries_by_their_uevents_alone(tmp_path: Path) -> None:
    state = read_all(
        tree(
            tmp_path,
            common(),
            {
                "/sys/class/power_supply/BAT0/uevent": "POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_TYPE=Battery\n"
                "POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_PRESENT=1\nPOWER_SUPPLY_ENERGY_NOW=20000000\n"
                "POWER_SUPPLY_ENERGY_FULL=50000000\nPOWER_SUPPLY_CAPACITY=40",
                "/sys/class/power_supply/AC/uevent": "POWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=0",
            },
        ),
        1.0,
    )
    assert state.capabilities.battery_level == 40
    assert state.readings["power_source"].value == "battery"


def _member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", content: bytes = b"") -> Any:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content)
    return member, io.BytesIO(content)


def test_a_tar_with_nodes_and_links_to_anywhere_writes_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        for member, content in (
            _member("proc/meminfo", content=b"MemTotal: 2048 kB\nMemAvailable: 1024 kB\n"),
            _member("dev/dxg", tarfile.CHRTYPE),
            _member("dev/pipe", tarfile.FIFOTYPE),
            _member("out", tarfile.SYMTYPE, link=str(tmp_path / "victim")),
            _member("out/planted", content=b"x"),
            _member("../victim/planted", content=b"x"),
            _member("sys/class/thermal", tarfile.SYMTYPE, link="/sys/devices/virtual/thermal"),
            _member("sys/devices/virtual/thermal/thermal_zone0/type", content=b"cpu-thermal"),
            _member("sys/devices/virtual/thermal/thermal_zone0/temp", content=b"50000"),
            _member("sys/hard", tarfile.LNKTYPE, link="nowhere"),
        ):
            tar.addfile(member, content)
    state = replayed(tmp_path / "odd.tar")
    assert state.capabilities.memory_total_mb == 2
    assert state.readings["thermal"].value["max_c"] == 50.0
    assert [gpu["driver"] for gpu in state.readings["gpu"].value] == ["dxgkrnl"]
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x1f\x8b\x08junk"])
def test_what_is_no_recording_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junk").write_bytes(content)
    with pytest.raises(XybriddError, match="is no recorded tree"), unpacked(tmp_path / "junk"):
        pass


def test_the_command_records_a_tree_and_replays_it(make_daemon: Callable[..., Daemon], folder: Path) -> None:
    given = machine(folder / "machine", "Raspberry Pi 5")
    daemon, out = make_daemon(), folder / "pi.tar"
    done = daemon.xybridd("device", "record", "--root", given.root, str(out))
    assert done.returncode == 0, done.stderr
    first, again = (
        json.loads(daemon.xybridd("device", "--root", root, "--json").stdout) for root in (given.root, str(out))
    )
    for each in (first, again):
        for reading in each["details"].values():
            del reading["age_s"]
    assert again == first
    assert first["has_npu"] is True
