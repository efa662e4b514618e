from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes import machines_power_thermal as machines
from tests.probes.given import FOLDER, Link, tree
from tests.probes.machines_power_thermal import cooling, hwmon, throttle_counts, zone
from xybridd.core.capabilities import Confidence, Reading, ThermalState
from xybridd.probes.thermal import (
    THERMAL,
    Counters,
    Settled,
    Trips,
    judge_band,
    judge_headroom,
    parse_get_throttled,
    parse_temperature,
    parse_thermal_pressure,
    read_thermal,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NORMAL, WARM, HOT, CRITICAL = ThermalState
HIGH, MEDIUM, LOW, UNKNOWN = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW, Confidence.UNKNOWN
FIRMWARE = "/sys/devices/platform/soc/soc:firmware/get_throttled"


def read(folder: Path, *parts: Mapping[str, object], counters: Counters | None = None) -> dict[str, Reading]:
    readings = read_thermal(tree(folder, *parts), 7.0, Counters() if counters is None else counters)
    assert set(readings) == {quantity.name for quantity in THERMAL.quantities}
    for reading in readings.values():
        assert isinstance(reading, Reading)
        assert reading.taken_s == 7.0
        assert reading.source
        assert reading.reason or reading.confidence is HIGH
        msgspec.json.encode(reading.shown(8.0))
    assert isinstance(readings["thermal_state"].value, ThermalState | None)
    return readings


@pytest.mark.parametrize(
    ("machine", "state", "confidence", "max_c"),
    [
        ("desktop", NORMAL, HIGH, 42.0),
        # k10temp has no limits, and ACPI's zone is not the die: bands
        ("ryzen laptop", NORMAL, LOW, 51.25),
        ("core ultra laptop", NORMAL, HIGH, 59.0),
        ("old intel laptop", NORMAL, HIGH, 68.0),
        ("jetson orin", NORMAL, HIGH, 51.843),
        ("raspberry pi 5", NORMAL, HIGH, 55.1),
        ("rk3588", NORMAL, HIGH, 46.23),
        ("server", NORMAL, HIGH, 55.0),
        ("virtual machine", None, UNKNOWN, None),
        ("broken sensors", WARM, MEDIUM, 88.0),
    ],
)
def test_every_machine(
    tmp_path: Path, machine: str, state: ThermalState | None, confidence: Confidence, max_c: float | None
) -> None:
    readings = read(tmp_path, machines.MACHINES[machine])
    assert (readings["thermal_state"].value, readings["thermal_state"].confidence) == (state, confidence)
    table = readings["thermal"].value
    assert (table["max_c"] if table else None) == max_c


@pytest.mark.parametrize(
    ("machine", "types", "left_out"),
    [
        ("desktop", ["acpitz", "x86_pkg_temp", "coretemp Package id 0"], []),
        ("ryzen laptop", ["acpitz", "k10temp Tctl"], ["mt7921_phy0"]),
        ("core ultra laptop", ["TCPU", "x86_pkg_temp"], ["INT3400 Thermal", "SEN1", "iwlwifi_1"]),
        ("raspberry pi 5", ["cpu-thermal"], []),
        ("server", ["coretemp Package id 0"], []),
    ],
)
def test_only_the_chip_counts(tmp_path: Path, machine: str, types: list[str], left_out: list[str]) -> None:
    table = read(tmp_path, machines.MACHINES[machine])["thermal"].value
    assert [each["type"] for each in table["zones"]] == types
    assert [each["type"] for each in table["left_out"]] == left_out


@pytest.mark.parametrize(
    "kind",
    ["iwlwifi_1", "ath11k_hwmon", "nvme-composite", "pm8350_thermal", "pmic-die", "PMIC-Die", "battery", "BAT0",
     "charger", "wifi-thermal", "Tboard_tegra", "quiet-therm", "xo-therm", "thermal-fan-est", "pch_cannonlake"],
)  # fmt: skip
def test_what_is_not_the_chip_makes_no_state(tmp_path: Path, kind: str) -> None:
    readings = read(tmp_path, zone(0, kind, 99000, passive=50), zone(1, "cpu-thermal", 40000, passive=95))
    assert readings["thermal_state"].value is NORMAL
    assert readings["thermal"].value["max_c"] == 40.0


@pytest.mark.parametrize("kind", ["cpu-thermal", "gpu-thermal", "soc_thermal", "tj-thermal", "package-thermal",
                                  "bigcore0-thermal", "CPU-therm", "TCPU", "B0D4", "x86_pkg_temp", "cpu0-0-top-thermal",
                                  "cluster0-thermal", "mtktscpu", "npu-thermal", "acpitz"])  # fmt: skip
def test_what_is_the_chip(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path, zone(0, kind, 96000, passive=95))["thermal_state"].value is HOT


@pytest.mark.parametrize(
    ("temp_c", "trips", "state"),
    [
        (84.9, Trips(passive_c=95), NORMAL),
        (85.0, Trips(passive_c=95), WARM),
        (94.9, Trips(passive_c=95), WARM),
        (95.0, Trips(passive_c=95), HOT),
        (99.9, Trips(passive_c=95, critical_c=105), HOT),
        (100.0, Trips(passive_c=95, critical_c=105), CRITICAL),
        (97.0, Trips(passive_c=95, hot_c=97, critical_c=105), CRITICAL),
        (99.9, Trips(critical_c=105), NORMAL),
        (95.0, Trips(passive_c=100, critical_c=100), CRITICAL),
        (149.0, Trips(), NORMAL),
    ],
)
def test_headroom(temp_c: float, trips: Trips, state: ThermalState) -> None:
    assert judge_headroom(temp_c, trips) is state


@pytest.mark.parametrize(
    ("temp_c", "state"),
    [(-5, NORMAL), (59.9, NORMAL), (60, WARM), (69.9, WARM), (70, HOT), (79.9, HOT), (80, CRITICAL), (120, CRITICAL)],
)
def test_bands(tmp_path: Path, temp_c: float, state: ThermalState) -> None:
    assert judge_band(temp_c) is state
    found = read(tmp_path, zone(0, "cpu-thermal", int(temp_c * 1000)))["thermal_state"]
    assert (found.value, found.confidence) == (state, LOW)


@pytest.mark.parametrize(
    ("milli_c", "temp_c"),
    [(51843, 51.843), (-39_000, -39.0), (149_999, 149.999), (-40_000, None), (150_000, None), (-44_000, None),
     (65_261_850, None), (-256_000, None), (-273_150, None), (-274_000, None), (0, None), (45, None), (10**300, None)],
)  # fmt: skip
def test_temperature(milli_c: int, temp_c: float | None) -> None:
    found, problem = parse_temperature(milli_c)
    assert found == temp_c
    assert (problem is None) == (temp_c is not None)


def test_each_broken_sensor_says_why(tmp_path: Path) -> None:
    zones = read(tmp_path, machines.BROKEN_SENSORS)["thermal"].value["zones"]
    problems = {each["name"]: each.get("problem", "") for each in zones}
    for name, part in [
        ("thermal_zone0", "Is a directory"),
        ("thermal_zone1", "not text"),
        ("thermal_zone2", "-44 °C: impossible"),
        ("thermal_zone3", "65262 °C: impossible"),
        ("thermal_zone4", "0 m°C"),
        ("thermal_zone5", "45 m°C"),
        ("thermal_zone6", "not there any more"),
        ("thermal_zone7", "type: not text"),
    ]:
        assert part in problems[name]
    assert problems["thermal_zone8"] == ""


def test_a_block_that_is_off_is_no_problem(tmp_path: Path) -> None:
    readings = read(tmp_path, machines.JETSON_ORIN)
    assert [each.get("problem") for each in readings["thermal"].value["zones"]].count("the block is off") == 3
    assert readings["thermal"].confidence is HIGH


COOL = zone(0, "cpu-thermal", 45000, passive=95)


@pytest.mark.parametrize(
    ("device", "state"),
    [
        (cooling(0, "Processor", 3), HOT),
        (cooling(0, "intel_powerclamp", 25), HOT),
        (cooling(0, "thermal-cpufreq-0", 1), HOT),
        (cooling(0, "cpufreq-cpu4", 1), HOT),
        (cooling(0, "devfreq-fb000000.gpu", 2), HOT),
        (cooling(0, "cpu-throttle-alert", 1), HOT),
        (cooling(0, "Processor", 0), NORMAL),
        (cooling(0, "intel_powerclamp", -1), NORMAL),
        (cooling(0, "Fan", 1), NORMAL),
        (cooling(0, "pwm-fan", 4), NORMAL),
        (cooling(0, "TCC Offset", 10), NORMAL),
        (cooling(0, "amdgpu_bl1", 200), NORMAL),
        (cooling(0, "hot-surface-alert", 1), NORMAL),
        (cooling(0, "Processor", FOLDER), NORMAL),
        (cooling(0, "Processor", b"\xff\x00"), NORMAL),
    ],
)
def test_cooling_devices(tmp_path: Path, device: dict[str, object], state: ThermalState) -> None:
    readings = read(tmp_path, COOL, device)
    assert readings["thermal_state"].value is state
    assert bool(readings["thermal"].value["throttling"]) == (state is HOT)


def test_only_growth_of_a_throttle_counter_counts(tmp_path: Path) -> None:
    counters = Counters()
    states = []
    for counts in [(90211, 90211), (90211, 90211), (90212, 90211), (90212, 90211), (90212, 99999), (0, 0), (1, 0)]:
        found = read(tmp_path, COOL, throttle_counts((812, 90211), counts), counters=counters)
        states.append(found["thermal_state"].value)
    assert states == [NORMAL, NORMAL, HOT, NORMAL, HOT, NORMAL, HOT]


def test_counters_are_kept_by_tree(tmp_path: Path) -> None:
    counters = Counters()
    for name, count in [("a", 5), ("b", 9)]:
        found = read(tmp_path / name, COOL, throttle_counts((count, count)), counters=counters)
        assert found["thermal_state"].value is NORMAL


def test_a_bad_counter_costs_itself_alone(tmp_path: Path) -> None:
    counters = Counters()
    bad = {"/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": FOLDER}
    bad["/sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count"] = b"\x00\xff"
    good = "/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
    read(tmp_path, COOL, bad, {good: 4}, counters=counters)
    found = read(tmp_path, bad, {good: 5}, counters=counters)
    assert found["thermal_state"].value is HOT
    assert found["thermal"].value["throttling"] == [{"kind": "counter", "path": good, "grew_by": 1, "heat": True}]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0", ([], [], False)),
        ("0x0", ([], [], False)),
        ("throttled=0x50000", ([], ["under-voltage", "throttled"], False)),
        # a weak supply's doing, not heat's
        ("50005", (["under-voltage", "throttled"], ["under-voltage", "throttled"], False)),
        ("4", (["throttled"], [], True)),
        ("2", (["frequency capped"], [], True)),
        ("80008", (["soft temperature limit"], ["soft temperature limit"], True)),
        ("e000f", (["under-voltage", "frequency capped", "throttled", "soft temperature limit"],
                   ["frequency capped", "throttled", "soft temperature limit"], True)),
        ("", None),
        ("zz", None),
        ("123456789", None),
    ],
)  # fmt: skip
def test_get_throttled(tmp_path: Path, text: str, parsed: tuple[list[str], list[str], bool] | None) -> None:
    assert parse_get_throttled(text) == parsed
    found = read(tmp_path, zone(0, "cpu-thermal", 45000, critical=110), {FIRMWARE: text})["thermal_state"]
    assert found.value is (HOT if parsed and parsed[2] else NORMAL)
    assert found.confidence is (HIGH if parsed else MEDIUM)


@pytest.mark.parametrize(
    ("parts", "state", "confidence"),
    [
        # hwmon where the zones say nothing of the chip
        ([zone(0, "iwlwifi_1", 90000), hwmon(0, "k10temp", temp1_input=75000)], HOT, LOW),
        ([hwmon(0, "k10temp", temp1_input=66000, temp1_max=70000)], WARM, HIGH),
        ([hwmon(0, "cpu_thermal", temp1_input=81000, temp1_crit=85000)], CRITICAL, MEDIUM),
        ([hwmon(0, "nvme", temp1_input=81000), hwmon(1, "iwlwifi_1", temp1_input=90000)], None, UNKNOWN),
        # Tctl is Tdie and an offset
        (
            [hwmon(0, "k10temp", temp1_label="Tctl", temp1_input=87000, temp2_label="Tdie", temp2_input=59000)],
            NORMAL,
            LOW,
        ),
        # thermald's threshold on x86_pkg_temp is not where anything throttles
        (
            [zone(0, "x86_pkg_temp", 56000, passive=55), hwmon(0, "coretemp", temp1_input=56000, temp1_max=100000)],
            NORMAL,
            HIGH,
        ),
        # two passive trips: the lower is where the system begins to act
        ([zone(0, "soc-thermal", 76000, passive=75, passive_2=85, critical=115)], HOT, HIGH),
        # trips that are not set
        ([zone(0, "cpu-thermal", 65000, passive=0, critical=-274)], WARM, LOW),
        ([zone(0, "cpu-thermal", 65000, critical=110)], NORMAL, MEDIUM),
        # the kernel would move a cooling device at a passive trip point, and there is none
        ([zone(0, "cpu-thermal", 65000), cooling(0, "Processor", 0)], WARM, LOW),
        ([zone(0, "cpu-thermal", 65000), throttle_counts((1, 1))], NORMAL, MEDIUM),
        ([throttle_counts((1, 1))], NORMAL, LOW),
        ([cooling(0, "Processor", 2)], HOT, HIGH),
    ],
)
def test_state(
    tmp_path: Path, parts: list[dict[str, object]], state: ThermalState | None, confidence: Confidence
) -> None:
    found = read(tmp_path, *parts)["thermal_state"]
    assert (found.value, found.confidence) == (state, confidence)


@pytest.mark.parametrize(
    ("steps", "states"),
    [
        # (time, judged, judged 5 °C warmer) → told
        ([(0, NORMAL, NORMAL), (1, HOT, HOT), (2, CRITICAL, CRITICAL)], [NORMAL, HOT, CRITICAL]),
        ([(0, HOT, HOT), (10, NORMAL, WARM), (39, NORMAL, WARM), (40, NORMAL, WARM)], [HOT, HOT, HOT, WARM]),
        # cooler, yet not by 5 °C
        ([(0, HOT, HOT), (10, WARM, HOT), (100, WARM, HOT)], [HOT, HOT, HOT]),
        # cool enough, but not for 30 s on end
        ([(0, HOT, HOT), (10, WARM, WARM), (30, WARM, HOT), (50, WARM, WARM), (79, WARM, WARM), (80, WARM, WARM)],
         [HOT, HOT, HOT, HOT, HOT, WARM]),
        ([(0, WARM, WARM), (10, NORMAL, NORMAL), (20, WARM, WARM), (41, NORMAL, NORMAL), (71, NORMAL, NORMAL)],
         [WARM, WARM, WARM, WARM, NORMAL]),
        # down in steps, each of 30 s
        ([(0, CRITICAL, CRITICAL), (1, NORMAL, WARM), (31, NORMAL, WARM), (32, NORMAL, NORMAL), (62, NORMAL, NORMAL)],
         [CRITICAL, CRITICAL, WARM, WARM, NORMAL]),
    ],
)  # fmt: skip
def test_settle(steps: list[tuple[float, ThermalState, ThermalState]], states: list[ThermalState]) -> None:
    settled: Settled | None = None
    told = []
    for now_s, judged, warmer in steps:
        settled = settle(settled, judged, warmer, now_s)
        told.append(settled.state)
    assert told == states


def test_the_state_if_it_were_warmer_is_told_for_settling(tmp_path: Path) -> None:
    readings = read(tmp_path, zone(0, "cpu-thermal", 92000, passive=95))
    assert readings["thermal_state"].value is WARM
    assert readings["thermal"].value["state_if_5c_warmer"] is HOT


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", NORMAL),
        ("com.apple.system.thermalpressurelevel 1\n", WARM),
        ("com.apple.system.thermalpressurelevel 2\n", HOT),
        ("com.apple.system.thermalpressurelevel 4\n", CRITICAL),
        ("Current pressure level: Nominal", NORMAL),
        ("Current pressure level: Moderate", WARM),
        ("fair", WARM),
        ("Heavy", HOT),
        ("serious", HOT),
        ("Trapping", CRITICAL),
        ("Sleeping", CRITICAL),
        ("critical", CRITICAL),
        ("", None),
        ("com.apple.system.thermalpressurelevel 77", None),
    ],
)
def test_macos_pressure(text: str, state: ThermalState | None) -> None:
    assert parse_thermal_pressure(text) is state


def test_a_folder_that_can_not_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    readings = read(tmp_path, {"/sys/class/thermal": Link("thermal")})
    assert readings["thermal"].confidence is UNKNOWN


BAD = [FOLDER, b"\xff\xfe\x00", "", "junk", Link("loop"), Link("/etc/passwd"), "9" * 5000, "9" * 4000]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
@pytest.mark.parametrize("attribute", ["type", "temp", "trip_point_0_type", "trip_point_0_temp", "trip_point_1_type"])
def test_a_bad_attribute_costs_one_zone_alone(tmp_path: Path, attribute: str, bad: object) -> None:
    folder = "/sys/class/thermal/thermal_zone1"
    spoiled = zone(1, "gpu-thermal", 40000, passive=95) | {f"{folder}/{attribute}": bad, f"{folder}/loop": Link("loop")}
    readings = read(tmp_path, zone(0, "cpu-thermal", 96000, passive=95), spoiled)
    assert readings["thermal_state"].value is HOT
    assert readings["thermal"].value["zones"][0]["temp_c"] == 96.0


CONTENT = st.one_of(
    st.binary(max_size=40), st.integers().map(str), st.sampled_from(["passive", "critical", "Processor"])
)
PATHS = (
    *(
        f"/sys/class/thermal/thermal_zone0/{name}"
        for name in ("type", "temp", "trip_point_0_type", "trip_point_0_temp")
    ),
    *(f"/sys/class/thermal/cooling_device0/{name}" for name in ("type", "cur_state")),
    *(f"/sys/class/hwmon/hwmon0/{name}" for name in ("name", "temp1_input", "temp1_label", "temp1_max", "temp1_crit")),
    "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
    FIRMWARE,
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PATHS), CONTENT), st.dictionaries(st.sampled_from(PATHS), CONTENT), st.booleans()
)
def test_nothing_raises(first: dict[str, bytes | str], second: dict[str, bytes | str], named: bool) -> None:
    if named:
        first |= {"/sys/class/thermal/thermal_zone0/type": "cpu-thermal", "/sys/class/hwmon/hwmon0/name": "k10temp"}
    counters = Counters()
    with tempfile.TemporaryDirectory() as folder:
        read(Path(folder), first, counters=counters)
        readings = read(Path(folder), second, counters=counters)
    for each in (readings["thermal"].value or {"zones": []})["zones"]:
        assert each["temp_c"] is None or -40 < each["temp_c"] < 150
