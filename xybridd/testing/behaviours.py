"""How a receiver misbehaves: a list of behaviours, of which each request gets the first that wants it.

A behaviour holds for its next ``times`` requests, so a list is a sequence; with ``times`` None it holds for ever, and
with a ``share`` it takes only so many of the requests, at random but the same ones each time for a seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Kind = Literal[
    "status",  # answers with this status
    "reset_before",  # resets the connection before it reads the body
    "reset_during",  # … after it has read half of it
    "reset_after",  # … after it has read it all
    "silent",  # reads it all and answers nothing
    "drip",  # answers a byte a second
    "truncated",  # ends the connection in the middle of the answer
    "garbage",  # answers what is not HTTP
    "portal",  # answers 200 with a page for people, as a captive portal does
    "redirect",  # redirects to `location`
    "too_large",  # answers 413 to more than `limit` events
    "poisoned",  # answers `status` to a batch that holds `session_id`
    "partial",  # OTLP: answers 200 and says that `limit` points were rejected
]

#: Whether it has the events all the same, unless `Behaviour.takes` says otherwise: the answer is what is lost.
_TAKES: frozenset[Kind] = frozenset({"reset_after", "drip", "truncated", "partial"})


#: Those that are decided before anything is known of the body; and those that concern some bodies only.
_EARLY: frozenset[Kind] = frozenset({"reset_before", "reset_during"})
_CONDITIONAL: frozenset[Kind] = frozenset({"too_large", "poisoned"})

_STATUS: dict[Kind, int] = {"too_large": 413, "portal": 200, "partial": 200}


class Behaviour(msgspec.Struct, frozen=True):
    """``location`` may be relative to the receiver; ``pause_s`` is the time between two bytes that drip."""

    kind: Kind
    times: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 503
    retry_after: str | None = None
    location: str = "/moved/v1/events/batch"
    limit: int = 1
    session_id: str = ""
    takes: bool | None = None
    pause_s: float = 1.0

    @property
    def has_it(self) -> bool:
        """Whether the events of the request count as received."""
        return self.kind in _TAKES if self.takes is None else self.takes

    @property
    def answers(self) -> int | None:
        """The status that it answers; None where no answer comes, or none that is whole."""
        if self.kind == "redirect":
            return self.status if 300 <= self.status < 400 else 307
        return self.status if self.kind in {"status", "poisoned"} else _STATUS.get(self.kind)

    def concerns(self, session_ids: Collection[str]) -> bool:
        if self.kind == "too_large":
            return len(session_ids) > self.limit
        return self.kind != "poisoned" or self.session_id in session_ids


class Control(msgspec.Struct, frozen=True):
    """What is posted to ``/control``: all that holds from then on."""

    behaviours: list[Behaviour] = []
    seed: int = 0


@dataclass(eq=False)
class _Row:
    behaviour: Behaviour
    left: int | None


class Plan:
    """Which behaviour the next request gets. Not safe for threads."""

    def __init__(self, behaviours: Iterable[Behaviour] = (), seed: int = 0) -> None:
        self._rows = [_Row(behaviour, behaviour.times) for behaviour in behaviours]
        self._random = random.Random(seed)  # noqa: S311

    def before_reading(self) -> Behaviour | None:
        """What is to be done before the body is read; asked first, once for each request."""
        for row in self._rows:
            if row.behaviour.kind in _CONDITIONAL:
                continue
            if row.behaviour.kind not in _EARLY:
                break
            if self._hits(row):
                return self._used(row)
        return None

    def next(self, session_ids: Collection[str]) -> Behaviour | None:
        """``session_ids`` are those of the request's events, one for each; None is good behaviour."""
        for row in self._rows:
            behaviour = row.behaviour
            if behaviour.kind not in _EARLY and behaviour.concerns(session_ids) and self._hits(row):
                return self._used(row)
        return None

    def _hits(self, row: _Row) -> bool:
        return row.behaviour.share >= 1 or self._random.random() < row.behaviour.share

    def _used(self, row: _Row) -> Behaviour:
        if row.left is not None:
            row.left -= 1
            if row.left == 0:
                self._rows.remove(row)
        return row.behaviour
