"""What a probe is: it declares what it reads before it reads it, and a test holds it to that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xybridd.core.capabilities import Confidence, Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xybridd.probes.tree import Tree


class Quantity(NamedTuple):
    """``unit`` is of the value, or of its main part; ``kind``: ``state``, ``number``, ``list`` or ``table``."""

    name: str
    unit: str
    kind: str


class Probe(NamedTuple):
    """``read`` gets a tree and the monotonic time, and returns a reading for each quantity; it may take `limit_s`."""

    name: str
    quantities: tuple[Quantity, ...]
    read: Callable[[Tree, float], dict[str, Reading]]
    limit_s: float = 1.0


def unknown(now_s: float, reason: str | None = None, source: str | None = None) -> Reading:
    """Nobody could tell."""
    return Reading(None, Confidence.UNKNOWN, source, now_s, reason)


def none_there(now_s: float, source: str) -> Reading:
    """Looked, and there is none: an answer, not a failure."""
    return Reading(None, Confidence.HIGH, source, now_s)


def sure(value: Any, now_s: float, source: str) -> Reading:
    return Reading(value, Confidence.HIGH, source, now_s)
