"""How numbers, times and what apps wrote stand in a report."""

from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xybridd.core.report.figures import Report

NOT_KNOWN = "–"


def plain(text: object) -> str:
    """On one line and without what moves a cursor or turns the direction of writing."""
    return "".join(each if each.isprintable() else "·" for each in str(text))


def esc(text: object) -> str:
    """For HTML, between tags and within quotes."""
    return html.escape(plain(text))


def ms(value: float | None) -> str:
    """A latency with its unit, three digits that matter."""
    if value is None:
        return NOT_KNOWN
    if value >= 999.5:
        seconds = value / 1000
        return f"{seconds:,.{2 if seconds < 10 else 1 if seconds < 100 else 0}f} s"
    if value >= 100:
        return f"{value:,.0f} ms"
    if value >= 10:
        return f"{value:.1f} ms"
    return f"{value:.2f} ms" if value >= 0.01 or value == 0 else f"{value * 1000:.2g} µs"


def count(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:,.0f}"


def short(value: float) -> str:
    """The numbers of an axis: 1,500 and 0.5."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def number(value: float | None, digits: int = 1) -> str:
    return NOT_KNOWN if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """``99.97 %``; never rounded to 0 or to 100 where it is neither."""
    if value is None:
        return NOT_KNOWN
    if value in {0, 100}:
        return f"{value:.0f} %"
    shown = f"{value:.2f}" if value < 1 or value > 99 else f"{value:.1f}"
    return {"0.00": "< 0.01 %", "100.00": "> 99.99 %"}.get(shown, f"{shown} %")


def size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return NOT_KNOWN
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def span(length_ms: float) -> str:
    """A length of time in its two largest units."""
    left = int(max(0, length_ms) // 1000)
    parts = []
    for name, size_s in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size_s)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2]) or "0 s"


def running(length_ms: float) -> str:
    """How long a call had been running; milliseconds below one second."""
    return ms(length_ms) if length_ms < 1000 else span(length_ms)


class Clock:
    """The reader's: UTC and an offset, which stands on the page."""

    def __init__(self, report: Report) -> None:
        self.zone = timezone(timedelta(milliseconds=report.utc_offset_ms))
        self.offset_ms = report.utc_offset_ms
        self._year = self._at(report.made_at_ms).year

    def _at(self, at_ms: int) -> datetime:
        try:
            return datetime.fromtimestamp(at_ms / 1000, self.zone)
        except (ValueError, OverflowError, OSError):
            return datetime(1970, 1, 1, tzinfo=UTC)

    @property
    def name(self) -> str:
        shift = f"{self._at(0):%z}"
        return f"UTC{shift[:3]}:{shift[3:5]}" if self.offset_ms else "UTC"

    def full(self, at_ms: int) -> str:
        return f"{self._at(at_ms):%Y-%m-%d %H:%M}"

    def step(self, at_ms: int, step_ms: int) -> str:
        """The beginning of a step, as a row of a table names it."""
        when = self._at(at_ms)
        day = f"{when:%a} {when.day} {when:%b}" + ("" if when.year == self._year else f" {when.year}")
        return day if step_ms >= 86_400_000 else f"{day} {when:%H:%M}"

    def clock(self, at_ms: int) -> str:
        return f"{self._at(at_ms):%H:%M}"

    def second(self, at_ms: int) -> str:
        return f"{self._at(at_ms):%H:%M:%S}"

    def day(self, at_ms: int) -> str:
        when = self._at(at_ms)
        return f"{when:%a} {when.day}"

    def iso(self, at_ms: int) -> str:
        return self._at(at_ms).isoformat(timespec="seconds")


#: Thermal states and the like, as people read them.
LABELS = {
    "normal": "cool", "warm": "warm", "hot": "hot", "critical": "critical", "unknown": "not known",
    "ac": "mains", "battery": "battery", "cpu": "CPU", "gpu": "GPU", "npu": "NPU",
    "thermal_state": "Heat", "power_source": "Power source", "hardware_used": "Hardware used",
}  # fmt: skip


def label(value: str | None) -> str:
    return NOT_KNOWN if value is None else LABELS.get(value, plain(value))


def model_name(model_id: str, version: str) -> str:
    return plain(f"{model_id} {version}".rstrip())
