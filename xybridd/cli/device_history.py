"""``xybridd device history``: how the device was while something was recorded."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli.output import ago, call, clock_time, since_ms, size
from xybridd.cli.table import UNKNOWN, Column, Table, forms, number, write


@click.command()
@click.option(
    "--since",
    "ago_s",
    type=ago,
    metavar="TIME",
    default="24h",
    show_default=True,
    help="How far back, such as 7d or 30min.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=1440, show_default=True, help="At most so many.")
@forms
def history(ago_s: float, limit: int, form: str | None) -> None:
    """How hot, on what power and how busy the device was, oldest first.

    One line for each minute in which something was recorded; hours, for what is older than two days.

    \b
    Example:  xybridd device history --since 2h
    """
    found = call("device.samples", since_ms=since_ms(ago_s), limit=limit)["samples"]
    write(found, _TABLE, form, empty="nothing was recorded in that time; samples are taken while sessions record")


def _heat(sample: dict[str, Any]) -> str:
    state = sample.get("thermal_state") or UNKNOWN
    return f"{state}, throttled" if sample.get("throttled") else state


def _heat_colour(sample: dict[str, Any]) -> str:
    return {"warm": "yellow", "hot": "red", "critical": "red"}.get(sample.get("thermal_state") or "", "")


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def _power(sample: dict[str, Any]) -> str:
    return "charging" if sample.get("charging") else sample.get("power_source") or UNKNOWN


def _loads(gpus: list[dict[str, Any]]) -> str:
    """Of each GPU, in the order of ``xybridd device``."""
    return ", ".join(_number(gpu.get("utilization_percent")) for gpu in gpus) or UNKNOWN


def _free(sample: dict[str, Any]) -> str:
    return size(sample["memory_available_bytes"]) if "memory_available_bytes" in sample else UNKNOWN


def _flat(sample: dict[str, Any]) -> dict[str, Any]:
    """GPUs and NPUs as several values in one cell, in the order of ``xybridd device``."""
    return sample | {
        f"{kind}_{figure}": [each.get(figure) for each in sample.get(f"{kind}s", [])]
        for kind in ("gpu", "npu")
        for figure in _FIGURES
    }


_FIGURES = ("name", "utilization_percent", "memory_used_bytes", "temperature_c", "power_w")

_TABLE = Table(
    [
        "at_ms", "mono_ms", "boot_id", "thermal_state", "temperature_c", "throttled", "power_source",
        "battery_percent", "charging", "battery_w", "cpu_percent", "memory_available_bytes",
        *(f"{kind}_{figure}" for kind in ("gpu", "npu") for figure in _FIGURES),
    ],
    [
        Column("time", lambda row: clock_time(row["at_ms"])),
        Column("heat", _heat, style=_heat_colour),
        number("°C", lambda row: _number(row.get("temperature_c"))),
        number("CPU %", lambda row: _number(row.get("cpu_percent")), 7),
        number("GPU %", lambda row: _loads(row.get("gpus", [])), 8),
        number("free", _free, 4),
        Column("power", _power, 6),
        number("battery %", lambda row: _number(row.get("battery_percent")), 5),
    ],
    flat=_flat,
)  # fmt: skip
