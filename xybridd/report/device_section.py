"""The device while something was recorded: heat, power, load, energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xybridd.report import text
from xybridd.report.axes import TimeAxis, ValueAxis
from xybridd.report.charts import Chart, Line, Row, Strip, figure
from xybridd.report.text import Clock, esc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.core.report.figures import DeviceStep, Report

#: The style of each state, and how high it stands: heat is read by height as well as by colour.
_HEAT = {
    "normal": ("heat-cool", 0.25), "warm": ("heat-warm", 0.5), "hot": ("heat-hot", 0.75),
    "critical": ("heat-critical", 1.0),
}  # fmt: skip
_POWER = {"ac": ("mains", 0.35), "battery": ("battery", 1.0)}
_HEIGHT = 110


class _History(NamedTuple):
    """A chart of the history: ``cells`` are what its table says of a step, ``unit`` an axis of a value."""

    key: str
    title: str
    says: str
    steps: Sequence[DeviceStep]
    lines: Sequence[Line]
    unit: Callable[[float], str]
    columns: Sequence[str]
    cells: Callable[[DeviceStep], tuple[str, ...]]
    strips: Sequence[Strip] = ()
    top: float | None = None


def device(report: Report) -> str:
    found = report.device
    head = "<h2>The device: heat, power, energy</h2>"
    if not found.samples:
        return f"{head}<p>There are no samples of the device; they are taken while something is recorded.</p>"
    histories = (_heat(found.history), _power(found.history), _load(found.history), _watts(found.history))
    drawn = "".join(figure(_chart(report, each)) for each in histories if each is not None)
    return f'{head}<ul>{_throttling(report)}{_energy(report)}</ul><div class="charts">{drawn}</div>'


def _throttling(report: Report) -> str:
    found = report.device
    if found.throttled_samples is None:
        return "<li>Throttling: not known on this device.</li>"
    if not found.throttled_samples:
        return f"<li>Throttling: in none of {found.samples:,} samples.</li>"
    part = text.percent(100 * found.throttled_samples / found.samples)
    return f"<li>Throttling: in {found.throttled_samples:,} of {found.samples:,} samples ({part}).</li>"


def _energy(report: Report) -> str:
    if not report.device.energy:
        return "<li>Energy: not known on this device, which has no sensor of power that can be read.</li>"
    return "".join(
        f"<li>Energy ({esc(one.what)}): {text.number(one.watt_hours)} Wh in {text.span(one.covered_s * 1000)}, "
        f"{text.number(one.mean_w)} W on average; the integral of {esc(one.how)}.</li>"
        for one in report.device.energy
    )


def _chart(report: Report, of: _History) -> Chart:
    clock = Clock(report)
    lines = [line for line in of.lines if line.points]
    values = [value for line in lines for _, value in line.points]
    axis = ValueAxis(values, top=of.top) if values else None
    return Chart(
        of.key,
        of.title,
        of.says,
        TimeAxis(report, clock),
        axis,
        axis.ticks(of.unit) if axis is not None else [],
        lines,
        of.strips,
        ("Time", *of.columns),
        [Row(step.at_ms, (clock.step(step.at_ms, report.step_ms), *of.cells(step))) for step in of.steps],
        _HEIGHT,
    )


def _full(value: float | None) -> str:
    return text.NOT_KNOWN if value is None else f"{value:.0f} %"


def _degrees(value: float | None) -> str:
    return text.NOT_KNOWN if value is None else f"{value:.0f} °C"


def _heat(history: Sequence[DeviceStep]) -> _History | None:
    steps = [step for step in history if step.thermal_state or step.temperature_c is not None]
    if not steps:
        return None
    states = [(step.at_ms, *_HEAT.get(step.thermal_state, ("ground", 1.0))) for step in steps if step.thermal_state]
    strips = []
    if states:
        legend = [(style, text.label(state)) for state, (style, _) in _HEAT.items()]
        strips.append(Strip("heat", states, legend))
    if any(step.throttled for step in steps):
        strips.append(Strip("throttled", [(step.at_ms, "throttled", 1.0) for step in steps if step.throttled]))
    degrees = [(step.at_ms, step.temperature_c) for step in steps if step.temperature_c is not None]
    hot = sum(step.thermal_state in {"hot", "critical"} for step in steps)
    says = f"At most {_degrees(max(value for _, value in degrees))}. " if degrees else ""
    return _History(
        "device-heat",
        "Temperature and heat",
        f"{says}Hot or worse in {hot:,} of {len(steps):,} steps.",
        steps,
        [Line("temperature", "warmth", degrees)],
        _degrees,
        ("Heat", "Hottest", "Throttled"),
        lambda step: (
            text.label(step.thermal_state),
            _degrees(step.temperature_c),
            text.NOT_KNOWN if step.throttled is None else f"{step.throttled} of {step.samples} samples",
        ),
        strips,
    )


def _power(history: Sequence[DeviceStep]) -> _History | None:
    """None for a machine without a battery: there is nothing to see."""
    steps = [step for step in history if step.power_source or step.battery_percent is not None]
    levels = [(step.at_ms, step.battery_percent) for step in steps if step.battery_percent is not None]
    on_battery = sum(step.power_source == "battery" for step in steps)
    if not levels and not on_battery:
        return None
    sources = [(step.at_ms, *_POWER.get(step.power_source, ("ground", 1.0))) for step in steps if step.power_source]
    legend = [(style, text.label(source)) for source, (style, _) in _POWER.items()]
    return _History(
        "device-power",
        "Battery and power source",
        f"On battery in {on_battery:,} of {len(steps):,} steps.",
        steps,
        [Line("battery", "charge", levels)],
        _full,
        ("Power", "Battery"),
        lambda step: (text.label(step.power_source), _full(step.battery_percent)),
        [Strip("power", sources, legend)],
        top=100.0,
    )


def _load(history: Sequence[DeviceStep]) -> _History | None:
    steps = [step for step in history if step.cpu_percent is not None or step.gpu_percent is not None]
    if not steps:
        return None
    return _History(
        "device-load",
        "How busy it was",
        "The share of time that CPU and GPU were busy.",
        steps,
        [
            Line("CPU", "cpu", [(step.at_ms, step.cpu_percent) for step in steps if step.cpu_percent is not None]),
            Line("GPU", "gpu", [(step.at_ms, step.gpu_percent) for step in steps if step.gpu_percent is not None]),
        ],
        _full,
        ("CPU", "GPU, the busiest"),
        lambda step: (_full(step.cpu_percent), _full(step.gpu_percent)),
        top=100.0,
    )


def _watts(history: Sequence[DeviceStep]) -> _History | None:
    steps = [step for step in history if step.power_w is not None]
    if not steps:
        return None
    return _History(
        "device-watts",
        "Power drawn",
        "The whole device's while it runs on battery, else that of its GPUs.",
        steps,
        [Line("power", "warmth", [(step.at_ms, step.power_w) for step in steps if step.power_w is not None])],
        lambda value: f"{text.short(value)} W",
        ("Power",),
        lambda step: (f"{text.number(step.power_w)} W",),
    )
