from __future__ import annotations

import plistlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes import machines_power_thermal as machines
from tests.probes.given import FOLDER, Link, tree
from tests.probes.machines_power_thermal import ADAPTER, MOUSE, UNPLUGGED, UPS, supply
from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.power import POWER, parse_ioreg_battery, parse_pmset_batt, read_power

if TYPE_CHECKING:
    from collections.abc import Mapping

HIGH, MEDIUM, LOW, UNKNOWN = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW, Confidence.UNKNOWN


def battery(status: str = "Discharging", name: str = "BAT0", **more: object) -> dict[str, object]:
    given = {"type": "Battery", "present": 1, "status": status, "energy_now": 30_000_000, "energy_full": 40_000_000}
    return supply(name, **(given | more))


def read(folder: Path, *parts: Mapping[str, object]) -> dict[str, Reading]:
    readings = read_power(tree(folder, *parts), 7.0)
    assert set(readings) == {quantity.name for quantity in POWER.quantities}
    for reading in readings.values():
        assert isinstance(reading, Reading)
        assert reading.taken_s == 7.0
        assert reading.source
        assert reading.reason or reading.confidence is HIGH
        msgspec.json.encode(reading.shown(8.0))
    return readings


@pytest.mark.parametrize(
    ("machine", "level", "charging", "confidence", "power_source", "source_confidence"),
    [
        ("desktop", None, None, HIGH, "ac", LOW),
        ("ryzen laptop", 62.0, False, HIGH, "battery", HIGH),
        ("core ultra laptop", 80.0, False, HIGH, "ac", HIGH),
        ("old intel laptop", 63.33, True, HIGH, "ac", HIGH),
        ("jetson orin", None, None, HIGH, "ac", LOW),
        ("raspberry pi 5", None, None, HIGH, "ac", LOW),
        ("rk3588", None, None, HIGH, "ac", LOW),
        ("server", None, None, HIGH, "ac", LOW),
        ("virtual machine", None, None, HIGH, "ac", LOW),
        ("mouse and ups", 100.0, False, HIGH, "ac", HIGH),
        ("lying capacity", 30.0, False, MEDIUM, "battery", HIGH),
    ],
)
def test_every_machine(
    tmp_path: Path,
    machine: str,
    level: float | None,
    charging: bool | None,
    confidence: Confidence,
    power_source: str,
    source_confidence: Confidence,
) -> None:
    readings = read(tmp_path, machines.MACHINES[machine])
    found = readings["battery"]
    assert (found.value["level_percent"] if found.value else None) == level
    assert (found.value["charging"] if found.value else None) == charging
    assert found.confidence is confidence
    assert (readings["power_source"].value, readings["power_source"].confidence) == (power_source, source_confidence)


BY_CAPACITY: dict[str, Any] = {"energy_now": "", "energy_full": ""}


@pytest.mark.parametrize(
    ("supplies", "level", "confidence"),
    [
        ([battery()], 75.0, HIGH),
        ([battery(capacity=71)], 75.0, HIGH),
        ([battery(capacity=20)], 75.0, MEDIUM),
        ([battery(energy_now=41_000_000)], 100.0, HIGH),
        ([battery(energy_now=0)], 0.0, HIGH),
        ([battery(energy_now=-1, capacity=33)], 33.0, MEDIUM),
        ([battery(energy_full=0, capacity=33)], 33.0, HIGH),
        ([battery(energy_full=10**40, capacity=33)], 33.0, MEDIUM),
        ([battery(capacity=400)], 75.0, HIGH),
        ([supply("BAT0", type="Battery", status="Full", capacity=99)], 99.0, HIGH),
        ([supply("BAT0", type="Battery", charge_now=1, charge_full=4, voltage_now=1)], 25.0, HIGH),
        ([supply("BAT0", type="Battery", charge_now=1, charge_full=4)], 25.0, HIGH),
        # 30 of 40 Wh and 0 of 120 Wh
        ([battery(), battery(name="BAT1", energy_now=0, energy_full=120_000_000)], 18.75, HIGH),
        # one of unknown size weighs as much as the other
        ([battery(), supply("BAT1", type="Battery", capacity=25)], 50.0, MEDIUM),
        ([battery(), supply("BAT1", type="Battery", charge_now=1, charge_full=4)], 50.0, MEDIUM),
        ([battery(), supply("BAT1", type="Battery")], 75.0, MEDIUM),
        ([battery(), battery(name="BAT1", present=0, energy_now=0)], 75.0, HIGH),
        ([battery(), MOUSE, UPS], 75.0, HIGH),
        ([battery(), supply("hid-00:11-battery", type="Battery", capacity=3)], 75.0, HIGH),
    ],
)
def test_level(tmp_path: Path, supplies: list[dict[str, object]], level: float, confidence: Confidence) -> None:
    found = read(tmp_path, *supplies)["battery"]
    assert found.value["level_percent"] == level
    assert found.confidence is confidence


def test_each_battery_tells_what_it_holds(tmp_path: Path) -> None:
    first, second = read(tmp_path, machines.OLD_INTEL_LAPTOP)["battery"].value["batteries"]
    assert first == {
        "name": "BAT0",
        "level_percent": 50.0,
        "status": "Unknown",
        "energy_wh": 20.0,
        "energy_full_wh": 40.0,
        "power_w": 0.0,
    }
    assert (second["energy_wh"], second["energy_full_wh"], second["power_w"]) == (18.0, 20.0, 6.0)


def test_a_lying_capacity_is_named(tmp_path: Path) -> None:
    reason = read(tmp_path, machines.LYING_CAPACITY)["battery"].reason
    assert reason == "BAT0: capacity says 97 %, its energies 30 %; the energies count"


@pytest.mark.parametrize(
    ("supplies", "value", "confidence"),
    [
        ([ADAPTER], "ac", HIGH),
        ([UNPLUGGED], "ac", LOW),
        ([MOUSE, UPS], "ac", LOW),
        ([UNPLUGGED, battery()], "battery", HIGH),
        ([UNPLUGGED, battery("Full")], "battery", HIGH),
        ([UNPLUGGED, battery("Charging")], "ac", MEDIUM),
        ([ADAPTER, battery("Charging")], "ac", HIGH),
        ([ADAPTER, battery("Discharging")], "ac", MEDIUM),
        ([battery("Charging")], "ac", MEDIUM),
        ([battery("Not charging")], "ac", MEDIUM),
        ([battery("Discharging")], "battery", HIGH),
        ([battery("Unknown")], None, UNKNOWN),
        ([battery("no such status")], None, UNKNOWN),
        ([UNPLUGGED, supply("usb0", type="USB_PD", online=1), battery()], "ac", MEDIUM),
        # a port that gives power
        ([UNPLUGGED, supply("ucsi", type="USB", online=1, scope="Device"), battery()], "battery", HIGH),
    ],
)
def test_power_source(
    tmp_path: Path, supplies: list[dict[str, object]], value: str | None, confidence: Confidence
) -> None:
    found = read(tmp_path, *supplies)["power_source"]
    assert (found.value, found.confidence) == (value, confidence)


@pytest.mark.parametrize(
    ("statuses", "charging", "status"),
    [
        (["Charging", "Discharging"], True, "Charging"),
        (["Unknown", "Discharging"], False, "Discharging"),
        (["Full", "Full"], False, "Full"),
        (["Full", "Not charging"], False, "Not charging"),
        (["Full", "Unknown"], None, "Unknown"),
    ],
)
def test_status_of_several(tmp_path: Path, statuses: list[str], charging: bool | None, status: str) -> None:
    value = read(tmp_path, *(battery(each, f"BAT{n}") for n, each in enumerate(statuses)))["battery"].value
    assert (value["charging"], value["status"]) == (charging, status)


@pytest.mark.parametrize(
    ("content", "value", "confidence"),
    [
        (None, None, HIGH),
        ("low-power", "low-power", HIGH),
        ("<b>", None, UNKNOWN),
        ("", None, UNKNOWN),
        (b"\xff\x00", None, UNKNOWN),
        (FOLDER, None, UNKNOWN),
        (Link("platform_profile"), None, UNKNOWN),
    ],
)
def test_profile(tmp_path: Path, content: object, value: str | None, confidence: Confidence) -> None:
    files = {} if content is None else {"/sys/firmware/acpi/platform_profile": content}
    readings = read(tmp_path, files, battery())
    assert (readings["power_profile"].value, readings["power_profile"].confidence) == (value, confidence)
    assert readings["battery"].value["level_percent"] == 75.0


BAD = [FOLDER, b"\xff\xfe\x00", "", "junk", Link("loop"), Link("/etc/passwd"), "9" * 5000, "9" * 4000]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
@pytest.mark.parametrize("attribute", ["type", "status", "energy_now", "energy_full", "capacity", "power_now", "scope"])
def test_a_bad_attribute_costs_itself_alone(tmp_path: Path, attribute: str, bad: object) -> None:
    """The other battery counts, whatever this one says."""
    loop = {"/sys/class/power_supply/BAT1/loop": Link("loop")}
    readings = read(
        tmp_path, battery(capacity=75), battery(name="BAT1") | supply("BAT1", **{attribute: bad}), loop, ADAPTER
    )
    assert readings["battery"].value["level_percent"] == 75.0
    assert readings["battery"].value["batteries"][0]["level_percent"] == 75.0
    assert readings["power_source"].value == "ac"


@pytest.mark.parametrize("bad", [FOLDER, b"\xff\xfe\x00", Link("type")], ids=["a folder", "no text", "a loop"])
def test_a_supply_that_does_not_say_what_it_is_may_be_a_battery(tmp_path: Path, bad: object) -> None:
    readings = read(tmp_path, supply("BAT0", type=bad, capacity=50))
    assert readings["battery"].confidence is UNKNOWN
    assert "BAT0/type" in (readings["battery"].reason or "")
    assert readings["power_source"].confidence is UNKNOWN


def test_a_folder_that_can_not_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    readings = read(tmp_path, {"/sys/class/power_supply": Link("power_supply")})
    assert readings["battery"].confidence is UNKNOWN
    assert readings["power_source"].confidence is UNKNOWN
    assert readings["power_profile"].confidence is HIGH


CONTENT = st.one_of(st.binary(max_size=40), st.integers().map(str), st.sampled_from(["Battery", "Mains", "Charging"]))
ATTRIBUTES = ("type", "scope", "present", "online", "status", "capacity", "energy_now", "energy_full", "charge_now",
              "charge_full", "voltage_now", "power_now", "current_now")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(ATTRIBUTES), CONTENT), st.booleans())
def test_nothing_raises(contents: dict[str, bytes | str], keep_type: bool) -> None:
    if keep_type:
        contents["type"] = "Battery"
    with tempfile.TemporaryDirectory() as folder:
        value = read(Path(folder), supply("BAT0", **contents), supply("BAT1", **contents))["battery"].value
    assert value is None or 0 <= value["level_percent"] <= 100


PMSET = """Now drawing from '{drawing}'
 -InternalBattery-0 (id=19267683)\t{percent}%; {status}; {left} present: true
"""


@pytest.mark.parametrize(
    ("text", "source", "batteries"),
    [
        ("", None, []),
        ("Now drawing from 'AC Power'\n", "ac", []),
        (
            PMSET.format(drawing="Battery Power", percent=57, status="discharging", left="4:02 remaining"),
            "battery",
            [(57, "Discharging")],
        ),
        (
            PMSET.format(drawing="AC Power", percent=95, status="charging", left="0:45 remaining"),
            "ac",
            [(95, "Charging")],
        ),
        (PMSET.format(drawing="AC Power", percent=100, status="charged", left="0:00 remaining"), "ac", [(100, "Full")]),
        (
            PMSET.format(drawing="AC Power", percent=80, status="AC attached", left="not charging"),
            "ac",
            [(80, "Not charging")],
        ),
        (
            "Now drawing from 'UPS Power'\n -Back-UPS ES 700 (id=3)\t88%; discharging; 0:22 remaining present: true\n",
            "battery",
            [],
        ),
    ],
)
def test_pmset(text: str, source: str | None, batteries: list[tuple[int, str]]) -> None:
    found_source, found = parse_pmset_batt(text)
    assert found_source == source
    assert [(each.numbers["capacity"], each.status) for each in found] == batteries
    assert all(each.is_battery for each in found)


@pytest.mark.parametrize(
    ("entry", "capacity", "status", "current_ua"),
    [
        # Apple silicon: percent
        ({"CurrentCapacity": 81, "MaxCapacity": 100, "AppleRawMaxCapacity": 4563, "IsCharging": True,
          "ExternalConnected": True, "FullyCharged": False, "Voltage": 12400, "Amperage": 1500}, 81, "Charging", 1_500_000),
        # Intel: mAh, and an amperage below zero printed unsigned
        ({"CurrentCapacity": 2762, "MaxCapacity": 5524, "IsCharging": False, "ExternalConnected": False,
          "Voltage": 12000, "Amperage": 2**64 - 721}, 50, "Discharging", -721_000),
        ({"CurrentCapacity": 100, "MaxCapacity": 100, "FullyCharged": True, "ExternalConnected": True}, 100, "Full", None),
        ({"CurrentCapacity": 80, "MaxCapacity": 100, "ExternalConnected": True, "IsCharging": False}, 80, "Not charging", None),
        ({"CurrentCapacity": "x", "MaxCapacity": 0, "Voltage": 1.5}, None, "Unknown", None),
    ],
)  # fmt: skip
def test_ioreg(entry: dict[str, Any], capacity: int | None, status: str, current_ua: int | None) -> None:
    (found,) = parse_ioreg_battery(plistlib.dumps([entry]))
    assert found.numbers.get("capacity") == capacity
    assert found.status == status
    assert found.numbers.get("current_now") == current_ua


@given(
    st.one_of(st.binary(), st.text().map(str.encode), st.just(b"<?xml version='1.0'?><plist><dict></array></plist>"))
)
def test_no_output_of_macos_raises(raw: bytes) -> None:
    parse_ioreg_battery(raw)
    parse_pmset_batt(raw.decode(errors="replace"))
