"""Temperatures, trip points, throttling, and the thermal state they make.

The state is the worst of

1. what throttles now: cooling devices that hold the processor or the GPU back (a fan does not), throttle counters
   that grew since the last reading (where they rest says nothing), the Raspberry Pi's firmware;
2. headroom to each sensor's own trip points, by `judge_headroom`;
3. only where neither trip points nor throttling can be read: the reference's bands, with low confidence.

Sensors that are not the chip are left out, impossible values too, each with the reason. Sources: the kernel's
``Documentation/ABI/testing/sysfs-class-thermal``, ``hwmon/sysfs-interface.rst``, ``admin-guide/thermal``, and
Raspberry Pi's documentation of ``get_throttled``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.capabilities import Confidence, Reading, ThermalState
from xybridd.probes.probe import Probe, Quantity, none_there, sure, unknown

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

_ZONES = "/sys/class/thermal"
_HWMON = "/sys/class/hwmon"
_CPUS = "/sys/devices/system/cpu"
_PLATFORM = "/sys/devices/platform"

_ORDER = tuple(ThermalState)
_OFF = "the block is off"
_PACKAGE = "x86_pkg_temp"

#: What a zone's type says when it is not the chip that computes: radios, disks, supplies, cases, boards, an ACPI
#: policy's placeholder (INT3400), an estimate for the fan (Jetson).
_NOT_CHIP = re.compile(
    r"iwlwifi|^ath\d|ath1\dk|mt7\d|rtw|wi-?fi|wlan|phy\d|nvme|ssd|pmic|^pm[a-z]*\d|batt|^bat\d|bq2\d|sbs|charger|chg|usb"
    r"|modem|mdm|xo[-_]therm|quiet|skin|^tskn|^sen\d|ngff|ambient|board|dimm|^tmem|int3400|^pch_|fan-est|lcd|flash"
    r"|camera|bcl|conn",
    re.IGNORECASE,
)
_HWMON_CHIPS = re.compile(r"(coretemp|k8temp|k10temp|zenpower|(cpu|soc|package)[-_]?\w*[-_]thermal)$")
#: The kernel's names, old and new, of cooling devices that slow a processor or a GPU. `TCC Offset` is a setting,
#: its state is not zero at rest; fans, displays and chargers cost no speed.
_SLOWS = re.compile(
    r"processor$|intel_powerclamp|(thermal-)?cpufreq|(thermal-)?devfreq|cpuidle|thermal-idle|[cgs]\w*-throttle-alert",
    re.IGNORECASE,
)


class Trips(msgspec.Struct, frozen=True):
    """Where the system itself acts, in °C: the lowest trip point of each kind, None where there is none."""

    passive_c: float | None = None
    hot_c: float | None = None
    critical_c: float | None = None

    def __bool__(self) -> bool:
        return not self.passive_c is self.hot_c is self.critical_c is None

    def shown(self) -> dict[str, float]:
        every = msgspec.structs.asdict(self)
        return {name.removesuffix("_c"): trip_c for name, trip_c in every.items() if trip_c is not None}


class Sensor(msgspec.Struct, frozen=True):
    """One sensor of the chip: a temperature, or why there is none."""

    name: str
    type: str
    path: str
    temp_c: float | None = None
    problem: str | None = None
    trips: Trips = Trips()

    @property
    def is_die(self) -> bool:
        """ACPI's own zones stand anywhere on the board, many of them still; they count when there is nothing else."""
        return self.type != "acpitz"

    def shown(self) -> dict[str, Any]:
        out = {"name": self.name, "type": self.type, "temp_c": self.temp_c, "trips": self.trips.shown()}
        return out | ({"problem": self.problem} if self.problem else {})


class Throttling(msgspec.Struct, frozen=True):
    """`active`: what holds back now, and whether heat is why. `told_by`: the interfaces that would tell if it did."""

    active: tuple[dict[str, Any], ...] = ()
    told_by: tuple[str, ...] = ()


class Counters:
    """What this process last saw of the throttle counters, by the root of the tree. One reading at a time."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, int]] = {}

    def grown(self, root: str, counts: dict[str, int]) -> dict[str, int]:
        """By how much each grew since the last reading; a first reading, or a processor new to it, has no growth."""
        last = self._last.get(root, {})
        self._last[root] = counts
        return {path: now - last[path] for path, now in counts.items() if path in last and now > last[path]}


_COUNTERS = Counters()


def worst(states: list[ThermalState]) -> ThermalState:
    return max(states, key=_ORDER.index, default=ThermalState.NORMAL)


def parse_temperature(milli_c: int) -> tuple[float | None, str | None]:
    """°C from a raw m°C value, or why it is none. Plausible is −40 to 150 °C, without the ends.

    −256 °C is how a Jetson's BPMP says that a block has no power; −273 and −274 °C are the kernel's for "not valid";
    65261 °C is ACPI's 0xFFFF K, a sensor that is not fitted.
    """
    if milli_c == -256_000:
        return None, _OFF
    if abs(milli_c) < 200:
        return None, f"{milli_c} m°C: a sensor that is not there, or one that tells whole degrees"
    if not -40_000 < milli_c < 150_000:
        shown = f"{milli_c / 1000:.0f} °C" if abs(milli_c) < 10**9 else "a number without end"
        return None, f"{shown}: impossible"
    return milli_c / 1000, None


def judge_headroom(temp_c: float, trips: Trips) -> ThermalState:
    """Passive → hot; hot trip or critical − 5 °C → critical; passive − 10 °C → warm."""
    steps = (
        (trips.critical_c, -5, ThermalState.CRITICAL),
        (trips.hot_c, 0, ThermalState.CRITICAL),
        (trips.passive_c, 0, ThermalState.HOT),
        (trips.passive_c, -10, ThermalState.WARM),
    )
    reached = (state for trip_c, by_c, state in steps if trip_c is not None and temp_c >= trip_c + by_c)
    return next(reached, ThermalState.NORMAL)


def judge_band(temp_c: float) -> ThermalState:
    """The reference's bands: from 60 °C warm, from 70 hot, from 80 critical."""
    return _ORDER[sum(temp_c >= limit_c for limit_c in (60, 70, 80))]


def problems_of(sensors: list[Sensor]) -> list[str]:
    return [f"{each.name}: {each.problem}" for each in sensors if each.problem not in {None, _OFF}]


def judge_thermal(sensors: list[Sensor], throttling: Throttling, now_s: float, warmer_c: float = 0.0) -> Reading:
    """The state by the three rules on top of this file; as if every sensor were `warmer_c` warmer."""
    read = [(each, each.temp_c + warmer_c) for each in sensors if each.temp_c is not None]
    trusted = [(each, temp_c) for each, temp_c in read if each.is_die] or read
    hot = [each["path"] for each in throttling.active if each["heat"]]
    doubts = problems_of(sensors)
    if not trusted and not hot:
        if not throttling.told_by:
            return unknown(now_s, "; ".join(doubts) or "no sensor of the chip", _ZONES)
        doubts.insert(0, "no temperature could be read; nothing says that it throttles")
        return Reading(ThermalState.NORMAL, Confidence.LOW, throttling.told_by[0], now_s, "; ".join(doubts))
    judged = [(judge_headroom(temp_c, each.trips), each.path) for each, temp_c in read]
    judged += [(ThermalState.HOT, path) for path in hot]
    tripped = any(each.trips for each, _ in trusted)
    banded = not tripped and not throttling.told_by
    if banded:
        judged += [(judge_band(temp_c), each.path) for each, temp_c in trusted]
        doubts.insert(0, "no trip points and no sign of throttling to go by, only fixed bands")
    elif not tripped and not hot:
        doubts.insert(0, "no trip points, only what throttles")
    elif not hot and set(throttling.told_by) <= {_ZONES} and all(each.trips.passive_c is None for each, _ in trusted):
        # That tells when it is too late, not when it gets warm.
        doubts.insert(0, "the chip has a critical trip point only")
    state = worst([each for each, _ in judged])
    source = next(path for each, path in judged if each is state)
    confidence = Confidence.LOW if banded else Confidence.MEDIUM if doubts else Confidence.HIGH
    return Reading(state, confidence, source, now_s, "; ".join(doubts) or None)


class Settled(msgspec.Struct, frozen=True):
    """The state that is told, and since when (monotonic seconds) all readings would let it fall, if they would."""

    state: ThermalState
    cooler_since_s: float | None = None


def settle(previous: Settled | None, judged: ThermalState, warmer: ThermalState, now_s: float) -> Settled:
    """Up at once; down when for 30 s even 5 °C more would have been a lower state.

    `warmer` is the state judged as if every sensor were 5 °C warmer (``state_if_5c_warmer`` of ``thermal``). It falls
    to that, which is as far as the 5 °C reach; a reading that is unknown is not to be settled.
    """
    if previous is None or _ORDER.index(judged) >= _ORDER.index(previous.state):
        return Settled(judged)
    warmer = worst([judged, warmer])
    if _ORDER.index(warmer) >= _ORDER.index(previous.state):
        return Settled(previous.state)
    since_s = now_s if previous.cooler_since_s is None else previous.cooler_since_s
    return Settled(warmer) if now_s - since_s >= 30 else Settled(previous.state, since_s)


def _temperature(tree: Tree, path: str) -> tuple[float | None, str | None]:
    found = tree.number(path)
    gone = found.problem or f"{path}: not there any more"
    return (None, gone) if found.value is None else parse_temperature(found.value)


def _trip(tree: Tree, path: str) -> float | None:
    """A trip point above 0 and up to 150 °C; unset ones read 0, −274 or 2147483 °C."""
    milli_c = tree.number(path).value
    return milli_c / 1000 if milli_c is not None and 0 < milli_c <= 150_000 else None


def _trips(tree: Tree, folder: str) -> Trips:
    lowest: dict[str, float] = {}
    for name in filter(re.compile(r"trip_point_\d+_type$").match, tree.names(folder)):
        kind = tree.text(f"{folder}/{name}").value or ""
        if kind in {"passive", "hot", "critical"} and (trip_c := _trip(tree, f"{folder}/{name[:-4]}temp")) is not None:
            lowest[kind] = min(trip_c, lowest.get(kind, trip_c))
    return Trips(lowest.get("passive"), lowest.get("hot"), lowest.get("critical"))


def read_zones(tree: Tree, names: list[str]) -> tuple[list[Sensor], list[dict[str, str]]]:
    """The sensors of the chip, and the zones that are left out. A zone left out is not asked: a radio may wake."""
    sensors: list[Sensor] = []
    left_out: list[dict[str, str]] = []
    for name in filter(re.compile("thermal_zone").match, names):
        folder = f"{_ZONES}/{name}"
        found = tree.text(f"{folder}/type")
        if not found.value:
            sensors.append(Sensor(name, "", folder, problem=found.problem or f"{folder}/type: not there"))
            continue
        kind = found.value[:64]
        if _NOT_CHIP.search(kind):
            left_out.append({"name": name, "type": kind, "reason": "not the chip"})
            continue
        temp_c, problem = _temperature(tree, f"{folder}/temp")
        trips = Trips() if problem == _OFF else _trips(tree, folder)
        sensors.append(Sensor(name, kind, f"{folder}/temp", temp_c, problem, trips))
    return sensors, left_out


def read_hwmon(tree: Tree, known: set[str]) -> list[Sensor]:
    """The chip's sensors by hwmon, except those that only repeat a zone of a type in `known`."""
    sensors: list[Sensor] = []
    for hwmon in tree.names(_HWMON):
        folder = f"{_HWMON}/{hwmon}"
        chip = tree.text(f"{folder}/name").value
        if not chip or not _HWMON_CHIPS.match(chip) or chip.replace("_", "-") in known:
            continue
        inputs = [name.removesuffix("_input") for name in tree.names(folder) if re.fullmatch(r"temp\d+_input", name)]
        labels = {name: tree.text(f"{folder}/{name}_label").value or "" for name in inputs}
        # A core's own sensor is read on that core and wakes it; the package's is the hottest of them. On early Ryzen
        # Tctl is Tdie plus an offset for the fan.
        whole = [name for name, label in labels.items() if label.startswith(("Package id", "Tdie"))]
        for name in whole or inputs:
            temp_c, problem = _temperature(tree, f"{folder}/{name}_input")
            high_c, critical_c = (_trip(tree, f"{folder}/{name}_{limit}") for limit in ("max", "crit"))
            trips = Trips(passive_c=high_c, critical_c=critical_c)
            kind = f"{chip} {labels[name][:32]}".strip()
            sensors.append(Sensor(f"{hwmon}/{name}", kind, f"{folder}/{name}_input", temp_c, problem, trips))
    return sensors


def read_sensors(tree: Tree, names: list[str]) -> tuple[list[Sensor], list[dict[str, str]]]:
    """Zones first; hwmon where no zone on the die has both a temperature and trip points of its own.

    The trip points of x86_pkg_temp are thresholds for programs to set (thermald does, near the present temperature),
    so what coretemp says comes before them.
    """
    sensors, left_out = read_zones(tree, names)

    def has_trips() -> bool:
        die = (each for each in sensors if each.is_die and each.type != _PACKAGE)
        return any(each.temp_c is not None and each.trips for each in die)

    if not has_trips():
        sensors += read_hwmon(tree, {each.type.replace("_", "-") for each in sensors})
    if has_trips():
        sensors = [msgspec.structs.replace(each, trips=Trips()) if each.type == _PACKAGE else each for each in sensors]
    return sensors, left_out


def parse_get_throttled(text: str) -> tuple[list[str], list[str], bool] | None:
    """What the firmware of a Raspberry Pi holds back now, and did since boot; and whether heat is why it does now.

    Hexadecimal, with or without 0x. A cap or a throttle beside under-voltage is the supply's doing, not heat's.
    """
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text)
    if found is None:
        return None
    bits = int(found[1], 16)
    names = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
    now, since_boot = ([name for bit, name in enumerate(names) if bits >> (by + bit) & 1] for by in (0, 16))
    return now, since_boot, bool(bits & 0b1000) or bool(bits & 0b0110 and not bits & 0b0001)


def _firmware(tree: Tree) -> Throttling:
    for soc in tree.names(_PLATFORM):
        if not re.match(r"(soc|axi)\b", soc):  # soc on a Pi 4, soc@107c000000 on a Pi 5
            continue
        for path in (f"{_PLATFORM}/{soc}/{soc}:firmware/get_throttled", f"{_PLATFORM}/{soc}:firmware/get_throttled"):
            if (parsed := parse_get_throttled(tree.text(path).value or "")) is not None:
                now, since_boot, heat = parsed
                entry = {"kind": "firmware", "path": path, "what": now, "since_boot": since_boot, "heat": heat}
                return Throttling((entry,) if now else (), (path,))
    return Throttling()


def _counters(tree: Tree, counters: Counters) -> Throttling:
    cpus = [name for name in tree.names(_CPUS) if re.fullmatch(r"cpu\d+", name)]
    if not any(tree.exists(f"{_CPUS}/{cpu}/thermal_throttle") for cpu in cpus[:2]):
        return Throttling()  # Intel's alone; spares a file a core elsewhere
    counts: dict[str, int] = {}
    for cpu in cpus:
        for kind in ("core_throttle_count", "package_throttle_count"):
            path = f"{_CPUS}/{cpu}/thermal_throttle/{kind}"
            count = tree.number(path).value
            if count is not None and 0 <= count < 2**53:
                counts[path] = count
    grown = counters.grown(tree.root, counts)
    most = max(grown, key=lambda path: grown[path], default=None)
    entry = {"kind": "counter", "path": most, "grew_by": grown[most], "heat": True} if most else None
    return Throttling((entry,) if entry else (), (_CPUS,) if counts else ())


def _cooling(tree: Tree, names: list[str], *, tripped: bool) -> Throttling:
    """Without a passive trip point the kernel never moves a cooling device, so that its rest tells nothing."""
    active: list[dict[str, Any]] = []
    there = False
    for name in names:
        kind = (tree.text(f"{_ZONES}/{name}/type").value or "") if name.startswith("cooling_device") else ""
        if not _SLOWS.match(kind):
            continue
        path = f"{_ZONES}/{name}/cur_state"
        state = tree.number(path).value
        there = there or state is not None
        if state is not None and state > 0:
            active.append(
                {"kind": "cooling", "path": path, "type": kind[:64], "level": min(state, 2**31), "heat": True}
            )
    return Throttling(tuple(active), (_ZONES,) if there and (tripped or active) else ())


def read_thermal(tree: Tree, now_s: float, counters: Counters = _COUNTERS) -> dict[str, Reading]:
    """``thermal_state``, not yet settled (`settle`), and ``thermal``: the sensors in °C, trips, what throttles."""
    if tree.platform == "darwin":
        return read_thermal_macos(tree, now_s)
    listed = tree.listing(_ZONES)
    names = listed.value or []
    sensors, left_out = read_sensors(tree, names)
    tripped = any(each.trips.passive_c is not None for each in sensors if each.type != _PACKAGE)
    parts = (_cooling(tree, names, tripped=tripped), _counters(tree, counters), _firmware(tree))
    throttling = Throttling(sum((part.active for part in parts), ()), sum((part.told_by for part in parts), ()))
    state = judge_thermal(sensors, throttling, now_s)
    if not sensors and not throttling.told_by:
        problem = listed.problem or (None if tree.exists("/sys/class") else "there is no /sys/class")
        if problem:
            lost = unknown(now_s, problem, _ZONES)
            return {"thermal_state": lost, "thermal": lost}
        return {"thermal_state": state, "thermal": none_there(now_s, _ZONES)}
    value = {
        "max_c": max((each.temp_c for each in sensors if each.temp_c is not None), default=None),
        "state_if_5c_warmer": judge_thermal(sensors, throttling, now_s, warmer_c=5.0).value,
        "zones": [each.shown() for each in sensors],
        "left_out": left_out,
        "throttling": list(throttling.active),
    }
    reason = "; ".join(problems_of(sensors)) or None
    table = Reading(value, Confidence.MEDIUM if reason else Confidence.HIGH, _ZONES, now_s, reason)
    return {"thermal_state": state, "thermal": table}


#: By state, in their order.
_PRESSURE = ("0 nominal", "1 light moderate fair", "2 heavy serious", "3 4 trapping sleeping critical")


def parse_thermal_pressure(text: str) -> ThermalState | None:
    """A level of macOS's ``OSThermalNotification.h`` or of ``NSProcessInfo``, the last word of what was printed.

    ``notifyutil -g com.apple.system.thermalpressurelevel`` ends in a number, ``powermetrics`` in a name.
    """
    last = (text.lower().split() or [""])[-1]
    return next((state for state, names in zip(_ORDER, _PRESSURE, strict=True) if last in names.split()), None)


def read_thermal_macos(tree: Tree, now_s: float) -> dict[str, Reading]:
    """`read_thermal` of a Mac: the pressure level; temperatures are not to be had without root."""
    source = "com.apple.system.thermalpressurelevel"
    answer = tree.output("/usr/bin/notifyutil", "-g", source)
    state = parse_thermal_pressure((answer.value or b"").decode(errors="replace"))
    lost = unknown(now_s, answer.problem or "notifyutil -g: no level that is known", source)
    table = unknown(now_s, "macOS tells temperatures to root alone", source)
    return {"thermal_state": sure(state, now_s, source) if state else lost, "thermal": table}


THERMAL = Probe("thermal", (Quantity("thermal_state", "", "state"), Quantity("thermal", "°C", "table")), read_thermal)
