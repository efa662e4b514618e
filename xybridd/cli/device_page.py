"""How ``xybridd device`` looks: a row for each quantity, and for each GPU and NPU what is missing and how to mend it.

The lines of a quantity are markup; what comes from the machine is escaped where it is put in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from xybridd.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable

    Entry = dict[str, Any]

_COLOURS = {"high": "green", "medium": "yellow", "low": "yellow", "unknown": "red"}

#: Narrower than this, where a value came from stands below it.
_WIDE = 110

_STAGES = ("present", "driver", "permitted", "usable")

#: Of the sensors of a chip with many, so many are shown; ``--json`` has all of them.
_MOST_SHOWN = 8


def page(details: Entry, width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", style="dim")
    table.add_column("what was found", overflow="fold", ratio=1)
    table.add_column("sure")
    if wide:
        table.add_column("from", style="dim", overflow="fold", max_width=width // 3)
    for name, reading in details.items():
        sure = reading["confidence"]
        source = escape(reading["source"] or "")
        lines = lines_of(name, reading)
        if not wide and source:
            lines.append(f"[dim]{source}[/]")
        cells = [name.replace("_", " "), "\n".join(lines), f"[{_COLOURS.get(sure, 'yellow')}]{escape(sure)}[/]"]
        table.add_row(*cells, *([source] if wide else []))
    return table


def advice_line(advice: Entry) -> str:
    speed = "[red]slow down[/]" if advice["should_throttle"] else "[green]full speed[/]"
    reasons = "".join(f"\n[dim]  {escape(reason)}[/]" for reason in advice["reasons"])
    return f"advice: {speed}, prefer the {escape(advice['prefer'])}{reasons}"


def lines_of(name: str, reading: Entry) -> list[str]:
    """A quantity's value; why it is unknown, or less than sure."""
    value, reason = reading["value"], reading.get("reason")
    because = [f"[yellow]{escape(reason)}[/]"] if reason else []
    if value is None:
        return ["[red]unknown[/]" if reading["confidence"] == "unknown" else "none", *because]
    if isinstance(value, list):
        return [line for each in value for line in _ACCELERATORS.get(name, _any)(each)] + because
    if isinstance(value, dict):
        return (_TABLES.get(name, _any)(value) or ["none"]) + because
    if isinstance(value, bool):
        return ["yes" if value else "no", *because]
    if name.endswith("_percent"):
        return [f"{value:.0f} %", *because]
    return [escape(str(value)) or "none", *because]


def _joined(*parts: str | None) -> list[str]:
    """One line of what is known, or none."""
    known = [part for part in parts if part]
    return [f"  {', '.join(known)}"] if known else []


def _gpu(gpu: Entry) -> list[str]:
    total, used, busy = gpu["memory_total_bytes"], gpu["memory_used_bytes"], gpu["utilization_percent"]
    memory = None
    if total is not None:
        memory = f"{size(used)} of {size(total)}" if used is not None else size(total)
    elif used is not None:
        memory = f"{size(used)} used"
    lines = [f"[bold]{escape(gpu['name'])}[/]"]
    lines += _joined(*(escape(gpu[key]) for key in ("driver", "device") if gpu[key]), _bus(gpu))
    lines += _joined(
        memory,
        "shared memory" if gpu["unified"] else None,
        None if busy is None else f"{busy:.0f} % busy",
        None if gpu["temperature_c"] is None else f"{gpu['temperature_c']:.0f} °C",
        None if gpu["power_w"] is None else f"{gpu['power_w']:.1f} W",
    )
    if gpu["throttled"]:
        lines.append(f"  [red]held back[/]: {escape(', '.join(gpu['throttle_reasons']) or 'no reason is given')}")
    if gpu["asleep"]:
        lines.append("  asleep, and not woken to be asked")
    return lines + _stage(gpu)


def _bus(gpu: Entry) -> str | None:
    return escape(gpu["bus"]) if gpu["bus"] and gpu["bus"] != gpu["device"] else None


def _npu(npu: Entry) -> list[str]:
    where = _joined(*(escape(npu[key]) for key in ("driver", "device") if npu[key]))
    return [f"[bold]{escape(npu['name'])}[/]", *where, *_stage(npu)]


def _stage(entry: Entry) -> list[str]:
    """How far it got, and what would take it further."""
    stage = str(entry["stage"]).removesuffix("_bound")
    if stage == _STAGES[-1]:
        return ["  [green]usable[/]"]
    reached = _STAGES.index(stage) + 1 if stage in _STAGES else 1
    way = " → ".join([*(f"[green]{each} ✓[/]" for each in _STAGES[:reached]), *_STAGES[reached:]])
    return [f"  {way}", *([f"  [yellow]{escape(entry['hint'])}[/]"] if entry["hint"] else [])]


def _memory(table: Entry) -> list[str]:
    return [f"{size(table['available_bytes'])} of {size(table['total_bytes'])} available"]


def _battery(table: Entry) -> list[str]:
    lines = [f"{table['level_percent']:.0f} %, {escape(table['status'])}"]
    for each in table["batteries"]:
        held = f"{each['energy_wh']:.1f} of {each['energy_full_wh']:.1f} Wh" if "energy_full_wh" in each else None
        power = f"{each['power_w']:.1f} W" if each.get("power_w") else None
        level = None if each["level_percent"] is None else f"{each['level_percent']:.0f} %"
        lines += _joined(escape(each["name"]), level if len(table["batteries"]) > 1 else None, held, power)
    return lines


def _thermal(table: Entry) -> list[str]:
    lines = [] if table["max_c"] is None else [f"{table['max_c']:.0f} °C at the hottest"]
    for each in table["zones"][:_MOST_SHOWN]:
        trips = ", ".join(f"{escape(kind)} {at:.0f}" for kind, at in each["trips"].items())
        told = "no answer" if each["temp_c"] is None else f"{each['temp_c']:.0f} °C"
        lines += _joined(f"{escape(each['type'] or each['name'])} {told}", f"[dim]{trips}[/]" if trips else None)
    if len(table["zones"]) > _MOST_SHOWN:
        lines.append(f"  … and {len(table['zones']) - _MOST_SHOWN} more")
    for each in table["throttling"]:
        what = each.get("type") or each["kind"]
        lines.append(f"  [red]held back[/] by {escape(str(what))}: {escape(str(each.get('path') or ''))}")
    if table["left_out"]:
        names = ", ".join(escape(each["type"]) for each in table["left_out"])
        lines.append(f"  [dim]left out, not the chip: {names}[/]")
    return lines


def _apis(table: Entry) -> list[str]:
    return [f"{escape(api)}: {escape(', '.join(names))}" for api, names in table.items() if names]


def _any(entry: Entry) -> list[str]:
    return [escape(", ".join(f"{key} {value}" for key, value in entry.items() if value is not None))]


_ACCELERATORS: dict[str, Callable[[Entry], list[str]]] = {"gpu": _gpu, "npu": _npu}
_TABLES: dict[str, Callable[[Entry], list[str]]] = {
    "memory": _memory,
    "battery": _battery,
    "thermal": _thermal,
    "graphics_api": _apis,
}
