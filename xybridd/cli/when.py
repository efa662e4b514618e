"""Moments and stretches of time as people write them in options, and as tables show them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xybridd.cli.output import ago

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def moment(text: str) -> int:
    """UTC milliseconds of ``7d`` (so long ago), ``2026-11-25`` or ``2026-11-25T13:00`` (by the clock here)."""
    try:
        return max(0, int((time.time() - ago(text)) * 1000))
    except click.BadParameter:
        pass
    try:
        return max(0, int(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is no time; expected something like 7d, 24h, 30min, 2026-11-25 or 2026-11-25T13:00"
        ) from None


def since(default: str) -> Callable[[F], F]:
    return click.option(
        "--since", "since_ms", type=moment, metavar="TIME", default=default, show_default=True,
        help="From when on, such as 7d, 30min or 2026-11-25.",
    )  # fmt: skip


def until(command: F) -> F:
    return click.option("--until", "until_ms", type=moment, metavar="TIME", help="Up to when; until now without it.")(
        command
    )


def midnight(at_ms: int) -> int:
    """The beginning of the day here that a time lies in."""
    when = datetime.fromtimestamp(at_ms / 1000).astimezone()
    return int(datetime(when.year, when.month, when.day).astimezone().timestamp() * 1000)


def step_time(at_ms: int) -> str:
    """The beginning of a minute, an hour or a day as ISO 8601, by the clock here, with its distance from UTC."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(timespec="minutes")
