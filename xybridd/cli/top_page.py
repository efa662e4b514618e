"""How the live screen looks: the device in a few lines, the table beneath; text alone, for any width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from xybridd.cli.figures import HARDWARE, TARGETS, count, decimal, errors_red, split
from xybridd.cli.output import clock_time, ms, size
from xybridd.cli.table import UNKNOWN, Column, number, printable
from xybridd.cli.top_state import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from xybridd.cli.top_state import TopState

    Row = dict[str, Any]

_BLOCKS = "▁▂▃▄▅▆▇█"

#: Of the device's lines: cells of a line drawn over time.
_DRAWN = 8

_HEAT = {"warm": "yellow", "hot": "red", "critical": "bold red"}


def sparkline(values: Sequence[float], cells: int, low: float = 0.0, high: float | None = None) -> str:
    """The latest values, a block each, from `low` to `high` (their own largest, without it)."""
    shown = list(values)[-cells:]
    top = max([*shown, low]) if high is None else high
    if top <= low:
        return _BLOCKS[0] * len(shown)
    scale = (len(_BLOCKS) - 1) / (top - low)
    return "".join(_BLOCKS[max(0, min(len(_BLOCKS) - 1, round((each - low) * scale)))] for each in shown)


# The device


def device_lines(state: TopState, width: int) -> list[Text]:
    """What is known of the device, as many parts a line as fit."""
    device = state.device
    if device is None:
        return []
    return _flowed([part for part in _parts(state, device) if part.plain], width)


def _parts(state: TopState, device: dict[str, Any]) -> Iterable[Text]:
    def drawn(name: str, low: float = 0.0, high: float = 100.0) -> str:
        values = state.history.get(name, ())
        return sparkline(list(values), _DRAWN, low, high) + " " if len(values) > 1 else ""

    if (cpu := value(device, "cpu_usage_percent")) is not None:
        yield _part("CPU", f"{drawn('cpu')}{cpu:.0f} %")
    if memory := value(device, "memory"):
        used = memory["total_bytes"] - memory["available_bytes"]
        yield _part("memory", f"{drawn('memory')}{size(used)} of {size(memory['total_bytes'])}")
    yield _heat(device, drawn)
    yield _power(device, drawn)
    for kind in ("gpu", "npu"):
        for at, each in enumerate(value(device, kind) or []):
            yield _accelerator(kind.upper(), each, drawn(f"{kind} {at}"))


def _part(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((name, "dim"), " ", (text, style))


def _heat(device: dict[str, Any], drawn: Callable[[str, float, float], str]) -> Text:
    state, heat = value(device, "thermal_state"), value(device, "thermal") or {}
    words = [] if heat.get("max_c") is None else [f"{heat['max_c']:.0f} °C"]
    words += [str(state).lower()] if state is not None else []
    words += ["throttled"] if heat.get("throttling") else []
    if not words:
        return Text()
    colour = "red" if heat.get("throttling") else _HEAT.get(str(state).lower(), "")
    return _part("heat", drawn("heat", 20.0, 100.0) + ", ".join(words), colour)


def _power(device: dict[str, Any], drawn: Callable[[str], str]) -> Text:
    source, battery = value(device, "power_source"), value(device, "battery")
    words = [] if source is None else [{"ac": "mains"}.get(source, str(source))]
    if battery and battery.get("level_percent") is not None:
        charging = " charging" if battery.get("charging") else ""
        words.append(f"{drawn('battery')}{battery['level_percent']:.0f} %{charging}")
    return _part("power", ", ".join(words)) if words else Text()


def _accelerator(kind: str, each: dict[str, Any], drawn: str) -> Text:
    words = []
    if (busy := each.get("utilization_percent")) is not None:
        words.append(f"{drawn}{busy:.0f} %")
    if each.get("memory_used_bytes") is not None and each.get("memory_total_bytes"):
        words.append(f"{size(each['memory_used_bytes'])} of {size(each['memory_total_bytes'])}")
    if each.get("temperature_c") is not None:
        words.append(f"{each['temperature_c']:.0f} °C")
    if each.get("asleep"):
        words.append("asleep")
    elif each.get("stage") not in {None, "usable"}:
        words.append(f"{str(each['stage']).replace('_', ' ')}, not usable")
    shown = _part(kind, " ".join([printable(each["name"]), *([", ".join(words)] if words else [])]))
    if each.get("throttled"):
        reasons = ", ".join(each.get("throttle_reasons") or [])
        shown.append(f", held back{': ' + printable(reasons) if reasons else ''}", style="red")
    return shown


def _flowed(parts: Iterable[Text], width: int) -> list[Text]:
    lines: list[Text] = []
    for part in parts:
        if cell_len(part.plain) > width:
            part.truncate(width, overflow="ellipsis")
        if lines and cell_len(lines[-1].plain) + 3 + cell_len(part.plain) <= width:
            lines[-1] = Text.assemble(lines[-1], "   ", part)
        else:
            lines.append(part)
    return lines


# What is recorded


def title(state: TopState, window_s: int, width: int, more: Sequence[str] = ()) -> Text:
    """The head line: whose screen it is, and what it shows."""
    parts = [
        "xybridd top",
        clock_time(state.at_ms)[-8:] if state.at_ms else "",
        f"{state.sessions:,} session{'' if state.sessions == 1 else 's'}",
        f"last {window_s // 60} min",
        *more,
    ]
    shown = Text("  ".join(part for part in parts if part), style="bold")
    shown.truncate(width, overflow="ellipsis")
    return shown


def columns(state: TopState | None = None) -> list[Column]:
    """With a state, the rate is drawn over time too."""
    trend = []
    if state is not None:
        trend = [Column("last min", lambda row: sparkline(state.trend(row["app"], row["model"]), 20), 1)]
    return [
        Column("app", lambda row: row["app"], 8),
        Column("model", lambda row: row["model"], style=lambda _: "bold"),
        number("calls/s", lambda row: decimal(row["calls_per_second"])),
        *trend,
        number("calls", lambda row: count(row["calls"]), 4),
        number("errors", lambda row: count(row["errors"]), 8, style=errors_red),
        number("p50 ms", lambda row: ms(row["p50_ms"])),
        number("p90", lambda row: ms(row["p90_ms"]), 6),
        number("p99", lambda row: ms(row["p99_ms"]), 7),
        number("tok/s", lambda row: decimal(row["tokens_per_second"]), 5),
        Column("hardware", lambda row: split(row, "hardware", HARDWARE), 3),
        Column("target", lambda row: split(row, "target", TARGETS), 2),
    ]


NOTHING = "nothing was recorded in that time; from a shell: xybridd record inference whisper-tiny 1.0 212"

#: The keys in a line, as many words as fit.
KEYS = (
    "q quit  s sort  r reverse  / filter  w window  p pause  ? help",
    "q quit  s sort  / filter  w window  ? help",
    "q quit  ? help",
)

HELP = f"""\
q  quit                       w  window: the last 1, 5 or 15 minutes
s  sort by the next column    r  turn the order around
/  filter by app and model    Esc  take the filter, or this, away
p  pause, go on (or space)    ?  this
↑ ↓ PgUp PgDn  scroll

calls/s is that of the last ten seconds. Everything else is of the window,
which takes in the whole minutes that it touches. {UNKNOWN} is: nobody said so.
"""
