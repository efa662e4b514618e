"""``xybridd advice``: what an app had better do now, and why."""

from __future__ import annotations

from typing import Any

import click

from xybridd.cli.output import call, console, json_option, print_json

_PRESSURE = {"normal": "green", "warn": "yellow", "critical": "red", "unknown": "yellow"}


@click.command()
@click.option("--model-size-mb", type=click.FloatRange(min=0), help="Would a model of this size fit?")
@click.option(
    "--margin", type=click.FloatRange(min=0, min_open=True), default=1.5, show_default=True,
    help="It fits when this many times its size is left.",
)  # fmt: skip
@json_option
def advice(*, model_size_mb: float | None, margin: float, as_json: bool) -> None:
    """Whether to slow down, which hardware to prefer, and whether a model fits.

    \b
    Example:  xybridd advice --model-size-mb 400
    """
    found = call("device.advice", model_size_mb=model_size_mb, safety_margin=margin)
    if as_json:
        print_json(found)
    else:
        _show(found, model_size_mb, margin)


def _show(found: dict[str, Any], model_size_mb: float | None, margin: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    throttle = "[red]slow down[/]" if found["should_throttle"] else "[green]full speed[/]"
    left_mb, pressure = found["available_mb"], found["memory_pressure"]
    left = "unknown" if left_mb is None else f"{left_mb:,} MB left"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("speed", throttle)
    table.add_row("prefer", f"the {found['prefer'].upper()}")
    if model_size_mb is not None:
        table.add_row("model", f"{_fits(found['can_load_model'])}: {model_size_mb:g} MB × {margin:g}, {left}")
    colour = _PRESSURE.get(pressure, "yellow")
    table.add_row("memory", f"{left}, pressure [{colour}]{escape(pressure)}[/]")
    if found["cpu_cores"] is not None:
        table.add_row("processors", str(found["cpu_cores"]))
    for number, reason in enumerate(found["reasons"]):
        table.add_row("because" if number == 0 else "", escape(reason))
    console().print(table)


def _fits(can_load: bool | None) -> str:
    return {True: "[green]fits[/]", False: "[red]does not fit[/]", None: "[yellow]unknown[/]"}[can_load]
