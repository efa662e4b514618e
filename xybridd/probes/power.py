"""Battery, power source and power profile.

Rules, from the kernel's ``Documentation/ABI/testing/sysfs-class-power`` unless another source is named:

* A supply of type Battery counts unless its ``scope`` is Device (a mouse's, a pen's) or it is not present. A UPS
  is a type of its own and is no battery of this device.
* ``energy_*`` is in µWh, ``charge_*`` in µAh, voltages in µV, power in µW, current in µA, ``capacity`` in percent.
* Batteries weigh by what they hold when full. Where a battery's ``capacity`` lies against its energies, the energies
  win: some firmware counts the percentage against the design capacity, some never updates it.
* A device without a battery that is running has mains power, but if nothing says so that is an inference, not a fact.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.macos import ioreg_entries
from xybridd.probes.pci import parse_uevent
from xybridd.probes.probe import Probe, Quantity, none_there, sure, unknown

if TYPE_CHECKING:
    from xybridd.probes.tree import Tree

_SUPPLIES = "/sys/class/power_supply"
_PROFILE = "/sys/firmware/acpi/platform_profile"

_TYPES = re.compile(r"(Battery|UPS|Mains|Unknown)$|USB|BrickID|Wireless")
#: What a level is told by; where one cannot be read, the level is less sure.
_HELD = re.compile(r"/(energy|charge)_(now|full): ")
_STATUSES = ("Charging", "Discharging", "Not charging", "Full", "Unknown")
#: Batteries of peripherals whose driver gives no scope (before Linux 3.3, and out of tree).
_PERIPHERAL = re.compile(r"hid|wacom|sony_controller|ps-controller|nintendo|steam-controller|xpad|gip", re.IGNORECASE)
_NUMBERS = (
    *(f"{held}_{when}" for held in ("energy", "charge") for when in ("now", "full", "full_design")),
    *("capacity", "voltage_min_design", "voltage_now", "power_now", "current_now"),
)
#: Beyond any attribute in µ units: a megawatt hour. Larger numbers are not readings.
_MOST = 10**12
#: Percentage points by which ``capacity`` may differ from the energies: rounding, and a driver's own smoothing.
_CAPACITY_SLACK = 5.0


class Supply(msgspec.Struct, frozen=True):
    """One power supply as it was read; `numbers` are in the kernel's units, an attribute not there is left out."""

    name: str
    type: str
    scope: str = ""
    present: bool = True
    online: int | None = None
    status: str = "Unknown"
    numbers: dict[str, int] = {}
    problems: tuple[str, ...] = ()

    def get(self, *names: str) -> int | None:
        """The first of these attributes that is there and above zero."""
        return next((n for name in names if (n := self.numbers.get(name)) is not None and n > 0), None)

    @property
    def is_battery(self) -> bool:
        if self.type != "Battery" or not self.present or self.scope.lower() == "device":
            return False
        return bool(self.scope) or _PERIPHERAL.match(self.name) is None

    @property
    def is_adapter(self) -> bool:
        """Whether power may come in here: Mains, any kind of USB, a charging pad.

        A USB-C port that gives power to something else says scope Device (ucsi).
        """
        kind = self.type == "Mains" or self.type.startswith(("USB", "BrickID", "Wireless"))
        return kind and self.scope.lower() != "device"


class Level(msgspec.Struct, frozen=True):
    """What one battery holds. `full_wh` is None where only a percentage is known, so that it has no weight."""

    percent: float
    now_wh: float | None = None
    full_wh: float | None = None
    doubt: str | None = None


def judge_level(supply: Supply) -> Level | None:
    """The level of one battery, 0 to 100 %: by energy, else by charge × voltage, else by ``capacity``; else None."""
    told = supply.numbers.get("capacity")
    capacity = float(told) if told is not None and 0 <= told <= 100 else None
    full = supply.get("energy_full", "energy_full_design")
    now = supply.numbers.get("energy_now")
    to_wh: float | None = 1e-6
    if full is None or now is None or now < 0:
        full = supply.get("charge_full", "charge_full_design")
        now = supply.numbers.get("charge_now")
        # The design voltage, as UPower does: that of the moment sags under load and would move the weight.
        voltage_uv = supply.get("voltage_min_design", "voltage_now")
        to_wh = voltage_uv * 1e-12 if voltage_uv else None
    if full is None or now is None or now < 0:
        return None if capacity is None else Level(capacity)
    percent = min(100.0, 100.0 * now / full)
    doubt = None
    if capacity is not None and abs(capacity - percent) > _CAPACITY_SLACK:
        doubt = f"{supply.name}: capacity says {capacity:.0f} %, its energies {percent:.0f} %; the energies count"
    if now > 1.2 * full:  # a new battery may hold a little more than it says
        doubt = f"{supply.name}: holds more than it can"
    if to_wh is None:
        return Level(percent, doubt=doubt)
    return Level(percent, now * to_wh, full * to_wh, doubt)


def judge_power_w(supply: Supply) -> float | None:
    """What flows in or out, in watts, without its sign: drivers differ in what minus means. ``status`` tells."""
    if (power_uw := supply.numbers.get("power_now")) is not None:
        return abs(power_uw) * 1e-6
    current_ua, voltage_uv = supply.numbers.get("current_now"), supply.get("voltage_now")
    return None if current_ua is None or voltage_uv is None else abs(current_ua) * voltage_uv * 1e-12


def judge_status(statuses: list[str]) -> str:
    """One status for several batteries: they charge and discharge in turn, so one that does speaks for all."""
    for status in ("Charging", "Discharging"):
        if status in statuses:
            return status
    if "Unknown" in statuses or not statuses:
        return "Unknown"
    return "Full" if all(status == "Full" for status in statuses) else "Not charging"


def _shown(supply: Supply, level: Level | None) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": supply.name,
        "level_percent": None if level is None else round(level.percent, 2),
        "status": supply.status,
    }
    extra = {
        "energy_wh": level.now_wh if level else None,
        "energy_full_wh": level.full_wh if level else None,
        "power_w": judge_power_w(supply),
    }
    out |= {name: round(value, 3) for name, value in extra.items() if value is not None}
    if supply.problems:
        out["problem"] = "; ".join(supply.problems)
    return out


def judge_battery(supplies: list[Supply], now_s: float, source: str = _SUPPLIES) -> Reading:
    """The table of all batteries and their level together, 0 to 100 %, weighted by energy; None: there is none."""
    batteries = [supply for supply in supplies if supply.is_battery]
    doubts = [problem for supply in supplies if not supply.type for problem in supply.problems]
    if not batteries:
        return unknown(now_s, "; ".join(doubts), source) if doubts else none_there(now_s, source)
    levels = [judge_level(supply) for supply in batteries]
    known = [level for level in levels if level is not None]
    if not known:
        reasons = [problem for supply in batteries for problem in supply.problems]
        names = ", ".join(supply.name for supply in batteries)
        return unknown(now_s, "; ".join(reasons) or f"{names}: neither energy, charge nor capacity", source)
    weights = [level.full_wh for level in known if level.full_wh is not None]
    # One that tells a percentage alone is taken for as large as the others are on average.
    average = sum(weights) / len(weights) if weights else 1.0
    heavy = [(level.full_wh or average, level.percent) for level in known]
    percent = sum(weight * each for weight, each in heavy) / sum(weight for weight, _ in heavy)
    doubts += [level.doubt for level in known if level.doubt]
    for supply, level in zip(batteries, levels, strict=True):
        doubts += [] if level is None else filter(_HELD.search, supply.problems)
        if level is None:
            doubts += supply.problems or (f"{supply.name}: neither energy, charge nor capacity",)
        elif level.full_wh is None and len(batteries) > 1:
            doubts.append(f"{supply.name}: its size is not known")
    status = judge_status([supply.status for supply in batteries])
    value = {
        "level_percent": round(min(100.0, max(0.0, percent)), 2),
        "charging": None if status == "Unknown" else status == "Charging",
        "status": status,
        "batteries": [_shown(supply, level) for supply, level in zip(batteries, levels, strict=True)],
    }
    path = f"{source}/{batteries[0].name}" if len(batteries) == 1 else source
    return Reading(value, Confidence.MEDIUM if doubts else Confidence.HIGH, path, now_s, "; ".join(doubts) or None)


def judge_power_source(supplies: list[Supply], now_s: float, source: str = _SUPPLIES) -> Reading:
    """``ac`` or ``battery``. What an adapter says comes before what the batteries' status lets one think."""
    adapters = [supply for supply in supplies if supply.is_adapter and supply.online is not None]
    plugged = [supply for supply in adapters if supply.online]
    batteries = [supply for supply in supplies if supply.is_battery]
    doubts = "; ".join(problem for supply in supplies if not supply.type for problem in supply.problems)
    status = judge_status([supply.status for supply in batteries])
    if plugged:
        doubt = "plugged in, and yet the battery is discharging" if status == "Discharging" else None
        confidence = Confidence.MEDIUM if doubt else Confidence.HIGH
        return Reading("ac", confidence, f"{source}/{plugged[0].name}/online", now_s, doubt)
    if batteries:
        path = f"{source}/{batteries[0].name}/status"
        return _source_by_battery(status, now_s, path, unplugged=bool(adapters))
    if doubts:
        return unknown(now_s, doubts, source)
    return Reading("ac", Confidence.LOW, source, now_s, "it runs, and there is no battery that it could run on")


def _source_by_battery(status: str, now_s: float, path: str, *, unplugged: bool) -> Reading:
    """`unplugged`: there are adapters, and each says that it is offline."""
    if status == "Discharging" or (unplugged and status != "Charging"):
        return sure("battery", now_s, path)
    if status == "Unknown":
        return unknown(now_s, "no adapter is listed, and the battery's status is not known", path)
    reason = f"no adapter says that it is online; the battery's status is {status}"
    return Reading("ac", Confidence.MEDIUM, path, now_s, reason)


def _can_be(attribute: str, value: int) -> bool:
    return abs(value) <= _MOST and (value >= 0 or not attribute.startswith(("energy", "charge")))


class _SupplyFiles:
    """The attributes of one supply. One that cannot be read costs itself alone, and is a problem."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.folder = f"{_SUPPLIES}/{name}"
        self.problems: list[str] = []
        self._tree = tree
        # Some recordings have that alone. Of this machine it is not read: it asks the battery for all it can tell.
        self._uevent = {} if tree.live else parse_uevent(tree.text(f"{self.folder}/uevent").value or "")

    def _told(self, attribute: str) -> str:
        return self._uevent.get(f"POWER_SUPPLY_{attribute.upper()}", "")

    def text(self, attribute: str) -> str:
        found = self._tree.text(f"{self.folder}/{attribute}")
        if found.problem:
            self.problems.append(found.problem)
        return found.value or self._told(attribute)

    def number(self, attribute: str) -> int | None:
        found = self._tree.number(f"{self.folder}/{attribute}")
        value, problem = found.value, found.problem
        if value is None and problem is None and re.fullmatch(r"-?\d{1,20}", self._told(attribute)):
            value = int(self._told(attribute))
        if value is not None and not _can_be(attribute, value):
            problem = f"{found.path}: cannot be"
        if problem:
            self.problems.append(problem)
            return None
        return value


def read_supply(tree: Tree, name: str) -> Supply:
    """All that matters of one supply."""
    files = _SupplyFiles(tree, name)
    kind = files.text("type")
    if not kind and not files.problems and tree.names(files.folder):
        files.problems.append(f"{files.folder}/type: not there")
    if not _TYPES.match(kind):
        files.problems += [f"{files.folder}/type: no type of supply: {kind[:40]!r}"] if kind else []
        return Supply(name, "", problems=tuple(files.problems))
    status, scope = files.text("status"), files.text("scope")
    numbers: dict[str, int] = {}
    if kind == "Battery":
        numbers = {each: value for each in _NUMBERS if (value := files.number(each)) is not None}
    present, online = files.number("present"), files.number("online")
    return Supply(
        name,
        kind[:32],
        scope=scope[:32],
        present=present != 0,
        online=online,
        status=status if status in _STATUSES else "Unknown",
        numbers=numbers,
        problems=tuple(files.problems),
    )


def parse_profile(text: str) -> str | None:
    """A profile's name as the kernel spells them (``low-power``, ``balanced``, ``performance`` …), else None."""
    return text if re.fullmatch(r"[a-z][a-z0-9-]{0,31}", text) else None


def _read_profile(tree: Tree, now_s: float) -> Reading:
    found = tree.text(_PROFILE)
    if found.problem:
        return unknown(now_s, found.problem, _PROFILE)
    if found.value is None:
        return none_there(now_s, _PROFILE)
    profile = parse_profile(found.value)
    if profile is None:
        return unknown(now_s, f"{_PROFILE}: no profile: {found.value[:40]!r}", _PROFILE)
    return sure(profile, now_s, _PROFILE)


def read_power(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``battery`` (percent), ``power_source`` and ``power_profile``."""
    if tree.platform == "darwin":
        return read_power_macos(tree, now_s)
    listed = tree.listing(_SUPPLIES)
    profile = _read_profile(tree, now_s)
    problem = listed.problem or (None if listed.value or tree.exists("/sys/class") else "there is no /sys/class")
    if problem:
        lost = unknown(now_s, problem, _SUPPLIES)
        return {"battery": lost, "power_source": lost, "power_profile": profile}
    supplies = [read_supply(tree, name) for name in listed.value or []]
    return {
        "battery": judge_battery(supplies, now_s),
        "power_source": judge_power_source(supplies, now_s),
        "power_profile": profile,
    }


# macOS

_PMSET = ("/usr/bin/pmset", "-g", "batt")
_IOREG = ("/usr/sbin/ioreg", "-a", "-rc", "AppleSmartBattery")

_PMSET_BATTERY = re.compile(
    r"^ *-(?P<name>InternalBattery\S*).*?\s(?P<percent>\d{1,3})%; *(?P<status>[^;\n]+)(?P<rest>.*)$", re.MULTILINE
)
_PMSET_STATUS = {
    "charging": "Charging",
    "finishing charge": "Charging",
    "discharging": "Discharging",
    "charged": "Full",
    "AC attached": "Not charging",
    "not charging": "Not charging",
}


def parse_pmset_batt(text: str) -> tuple[str | None, list[Supply]]:
    """``pmset -g batt``: what it draws from (``ac``, ``battery``, or None), and the internal batteries.

    A UPS is listed in the same form; only what is named InternalBattery is this device's.
    """
    drawing = re.search(r"drawing from '(AC|Battery|UPS) Power'", text)
    source = None if drawing is None else "ac" if drawing[1] == "AC" else "battery"
    return source, [
        Supply(
            found["name"],
            "Battery",
            scope="System",
            present="present: false" not in found["rest"],
            status=_PMSET_STATUS.get(found["status"].strip(), "Unknown"),
            numbers={"capacity": int(found["percent"])},
        )
        for found in _PMSET_BATTERY.finditer(text)
    ]


def _whole(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 else None


def parse_ioreg_battery(plist: bytes) -> list[Supply]:
    """``ioreg -a -rc AppleSmartBattery``: the batteries; none where it prints nothing, or no property list.

    ``CurrentCapacity`` of ``MaxCapacity`` is what the menu bar shows (mAh on Intel, percent on Apple silicon).
    ``Amperage`` is mA, two's complement in 64 bits where a system prints it unsigned; ``Voltage`` is mV.
    """
    supplies: list[Supply] = []
    for entry in ioreg_entries(plist) or []:
        now, full = _whole(entry, "CurrentCapacity"), _whole(entry, "MaxCapacity")
        amperage_ma, voltage_mv = _whole(entry, "Amperage"), _whole(entry, "Voltage")
        numbers: dict[str, int] = {}
        if now is not None and full is not None and full > 0 and now >= 0:
            numbers["capacity"] = min(100, round(100 * now / full))
        if amperage_ma is not None and voltage_mv is not None:
            signed_ma = amperage_ma - 2**64 if amperage_ma >= 2**63 else amperage_ma
            numbers |= {"current_now": signed_ma * 1000, "voltage_now": voltage_mv * 1000}
        connected = entry.get("ExternalConnected")
        status = "Not charging" if connected is True else "Discharging" if connected is False else "Unknown"
        if connected is True and entry.get("FullyCharged") is True:
            status = "Full"
        elif connected is True and entry.get("IsCharging") is True:
            status = "Charging"
        present = entry.get("BatteryInstalled") is not False
        name = f"InternalBattery-{len(supplies)}"
        supplies.append(Supply(name, "Battery", scope="System", present=present, status=status, numbers=numbers))
    return supplies


def read_power_macos(tree: Tree, now_s: float) -> dict[str, Reading]:
    """`read_power` of a Mac; it has no profile of this kind."""
    pmset = tree.output(*_PMSET)
    source, batteries = parse_pmset_batt((pmset.value or b"").decode(errors="replace"))
    batteries = parse_ioreg_battery(tree.output(*_IOREG).value or b"") or batteries
    lost = unknown(now_s, pmset.problem or "pmset -g batt: it does not say", "pmset")
    return {
        "battery": lost if pmset.value is None and not batteries else judge_battery(batteries, now_s, "ioreg"),
        "power_source": sure(source, now_s, "pmset") if source else lost,
        "power_profile": none_there(now_s, "macOS"),
    }


_QUANTITIES = (
    Quantity("battery", "percent", "table"),
    *(Quantity(name, "", "state") for name in ("power_source", "power_profile")),
)
#: A battery behind an embedded controller answers slowly.
POWER = Probe("power", _QUANTITIES, read_power, limit_s=2.0)
