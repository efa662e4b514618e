"""Memory, processor, platform and network, on trees of machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.probes.given import FOLDER, Link, tree
from xybridd.core.capabilities import Confidence
from xybridd.probes.cpu import read_cores_of, read_cpu
from xybridd.probes.memory import read_memory
from xybridd.probes.metered import Metered
from xybridd.probes.network import read_network
from xybridd.probes.platform import read_platform
from xybridd.probes.recorded import RecordedTree, open_tree
from xybridd.probes.register import PROBES

GIB = 2**30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:  1048576 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0"


def memory(folder: Path, files: dict[str, object], process: str = "self") -> Any:
    reading = read_memory(tree(folder, {"/proc/meminfo": MEMINFO}, files), 0.0, process)["memory"]
    return reading.value, reading.source


def test_without_limits_memory_is_the_machines(tmp_path: Path) -> None:
    value, source = memory(tmp_path, {"/proc/self/cgroup": "0::/user.slice"})
    assert value == {"total_bytes": 16 * GIB, "available_bytes": 8 * GIB}
    assert source == "/proc/meminfo"


CONTAINER = {
    "/proc/77/cgroup": "0::/pod/box/app",
    "/sys/fs/cgroup/pod/memory.max": 2 * GIB,
    "/sys/fs/cgroup/pod/memory.current": GIB,
    "/sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB // 4}\nactive_file 7",
    "/sys/fs/cgroup/pod/box/memory.max": "max",
    "/sys/fs/cgroup/pod/box/memory.current": GIB,
    "/sys/fs/cgroup/pod/box/app/memory.max": "max",
}


def test_a_limit_two_cgroups_up_counts_with_the_cache_it_would_give_back(tmp_path: Path) -> None:
    value, source = memory(tmp_path, CONTAINER, "77")
    assert value == {"total_bytes": 2 * GIB, "available_bytes": GIB + GIB // 4}
    assert source == "/sys/fs/cgroup/pod/memory.max"


def test_version_1_of_cgroups_has_other_names(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "/proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc",
        "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": GIB,
        "/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": GIB // 2,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
    }
    assert memory(tmp_path, files)[0] == {"total_bytes": GIB, "available_bytes": GIB // 2}


@pytest.mark.parametrize("content", [b"\xff\x00", FOLDER, "", "MemTotal: many kB", Link("meminfo")])
def test_a_broken_meminfo_is_unknown(tmp_path: Path, content: object) -> None:
    reading = read_memory(tree(tmp_path, {"/proc/meminfo": content}), 0.0)["memory"]
    assert (reading.value, reading.confidence) == (None, Confidence.UNKNOWN)
    assert reading.reason


def test_cores_are_counted_and_a_recording_has_no_load(tmp_path: Path) -> None:
    found = read_cpu(tree(tmp_path, {"/proc/stat": "cpu  1 2\ncpu0 1 2\ncpu1 1 2\ncpufreq 5\nintr 7"}), 0.0)
    assert found["cpu_cores"].value == 2
    assert found["cpu_usage_percent"].confidence is Confidence.UNKNOWN
    assert read_cpu(RecordedTree(tmp_path / "nothing"), 0.0)["cpu_cores"].confidence is Confidence.UNKNOWN


@pytest.mark.parametrize(
    ("files", "cores", "source"),
    [
        ({"/proc/7/status": "Name:\tapp\nCpus_allowed_list:\t0-1,6"}, 3, "/proc/7/status"),
        ({"/proc/7/status": "Cpus_allowed_list:\t0-7", "/proc/7/cgroup": "0::/pod/box",
          "/sys/fs/cgroup/pod/cpu.max": "150000 100000", "/sys/fs/cgroup/pod/box/cpu.max": "max 100000"},
         2, "/sys/fs/cgroup/pod/cpu.max"),
        ({"/proc/7/cgroup": "4:cpu,cpuacct:/docker/a\n0::/", "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us": 50000,
          "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us": 100000, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1},
         1, "/sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us"),
        ({"/proc/7/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "0 0"}, None, None),
        ({"/proc/7/status": b"\xff", "/proc/7/cgroup": FOLDER}, None, None),
    ],
)  # fmt: skip
def test_the_processors_that_a_process_may_use(
    tmp_path: Path, files: dict[str, object], cores: int | None, source: str | None
) -> None:
    reading = read_cores_of(tree(tmp_path, files), 0.0, "7")
    assert (reading.value, reading.source) == (cores, source)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/sys/devices/system/cpu/online": "0-3,8"}, 5),
        ({"/proc/cpuinfo": "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1"}, 2),
        ({"/proc/stat": "cpu 1\ncpu0 1", "/sys/devices/system/cpu/online": "0-3"}, 1),
        ({"/proc/stat": "", "/sys/devices/system/cpu/online": "junk"}, None),
        (
            {
                "/sys/devices/system/cpu/cpu0/topology/core_id": 0,
                "/sys/devices/system/cpu/cpu1/topology/core_id": 1,
                "/sys/devices/system/cpu/cpufreq/boost": 1,
            },
            2,
        ),
    ],
)
def test_cores_are_counted_wherever_they_are_listed(
    tmp_path: Path, files: dict[str, object], cores: int | None
) -> None:
    assert read_cpu(tree(tmp_path, files), 0.0)["cpu_cores"].value == cores


def test_without_its_place_among_the_cgroups_a_recordings_limit_is_the_one_at_their_root(tmp_path: Path) -> None:
    limit: dict[str, object] = {"/sys/fs/cgroup/memory.max": GIB, "/sys/fs/cgroup/memory.current": GIB // 4}
    assert memory(tmp_path, limit) == (
        {"total_bytes": GIB, "available_bytes": 3 * GIB // 4},
        "/sys/fs/cgroup/memory.max",
    )


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"/proc/device-tree/model": b"Raspberry Pi 5 Model B Rev 1.0\0"}, "Raspberry Pi 5 Model B Rev 1.0"),
        ({"/sys/class/dmi/id/product_name": "XPS 13"}, "XPS 13"),
        ({}, None),
    ],
)
def test_the_machines_name(tmp_path: Path, files: dict[str, object], name: str | None) -> None:
    assert read_platform(tree(tmp_path, files), 0.0)["machine"].value == name


IPV4_HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
LAN = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"
WIFI = "wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0"
CABLE = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"
DOWN = "usb0\t00000000\t0100A8C0\t0002\t0\t0\t50\t00000000\t0\t0\t0"
ZERO = "0" * 32
IPV6 = f"{ZERO} 00 {ZERO} 00 fe80{'0' * 24}0001 00000400 00000002 00000000 00000003    wlan1"
REJECTED = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "interface"),
    [
        ([LAN, WIFI, CABLE], "", "eth0"),
        ([LAN, WIFI], REJECTED, "wlan0"),
        ([LAN, DOWN], REJECTED, ""),
        ([LAN], IPV6, "wlan1"),
        ([], "", ""),
    ],
)
def test_the_default_route(tmp_path: Path, ipv4: list[str], ipv6: str, interface: str) -> None:
    files = {"/proc/net/route": "\n".join([IPV4_HEAD, *ipv4]), "/proc/net/ipv6_route": ipv6}
    reading = read_network(tree(tmp_path, files), 0.0)["default_route"]
    assert (reading.value, reading.confidence) == (interface, Confidence.HIGH)


def test_without_the_files_the_route_is_unknown(tmp_path: Path) -> None:
    assert read_network(RecordedTree(tmp_path), 0.0)["default_route"].confidence is Confidence.UNKNOWN


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
@pytest.mark.parametrize("root", [Path("/"), None], ids=["this machine", "an empty tree"])
def test_a_probe_reads_what_it_declares_and_nothing_else(
    tmp_path: Path, probe: Any, root: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xybridd.probes.network._METERED", Metered())
    readings = probe.read(open_tree(root or tmp_path), 1.0)
    assert set(readings) == {quantity.name for quantity in probe.quantities}
    assert all(reading.taken_s == 1.0 for reading in readings.values())


def test_every_quantity_has_one_probe() -> None:
    names = [quantity.name for probe in PROBES for quantity in probe.quantities]
    assert len(names) == len(set(names))
