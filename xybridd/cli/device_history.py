"""``xybridd device history``: how the device was while something was recorded."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli.output import ago, call, clock_time, console, json_option, plain, print_json, since_ms, size


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
@json_option
def history(ago_s: float, limit: int, *, as_json: bool) -> None:
    """How hot, on what power and how busy the device was, oldest first.

    One line for each minute in which something was recorded; hours, for what is older than two days.

    \b
    Example:  xybridd device history --since 2h
    """
    found = call("device.samples", since_ms=since_ms(ago_s), limit=limit)["samples"]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("nothing was recorded in that time; samples are taken while sessions record")
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("time", no_wrap=True)
    table.add_column("heat", no_wrap=True)
    for title in ("°C", "CPU %", "GPU %", "free"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("power", no_wrap=True)
    table.add_column("battery %", justify="right", no_wrap=True)
    for sample in found:
        table.add_row(
            clock_time(sample["at_ms"]),
            _heat(sample),
            _number(sample.get("temperature_c")),
            _number(sample.get("cpu_percent")),
            _loads(sample.get("gpus", [])),
            size(sample["memory_available_bytes"]) if "memory_available_bytes" in sample else "–",
            _power(sample),
            _number(sample.get("battery_percent")),
        )
    console().print(table)


def _heat(sample: dict[str, Any]) -> str:
    state = plain(sample.get("thermal_state") or "–")
    colour = {"warm": "yellow", "hot": "red", "critical": "red"}.get(state)
    text = f"{state}, throttled" if sample.get("throttled") else state
    return f"[{colour}]{text}[/]" if colour else text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _power(sample: dict[str, Any]) -> str:
    return "charging" if sample.get("charging") else plain(sample.get("power_source") or "–")


def _loads(gpus: list[dict[str, Any]]) -> str:
    """Of each GPU, in the order of ``xybridd device``."""
    return ", ".join(_number(gpu.get("utilization_percent")) for gpu in gpus) or "–"
