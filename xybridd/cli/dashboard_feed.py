"""The live report: read anew each time it is asked for, but for what cannot change any more.

Minutes that were closed a while ago stay as they are, so their sums are kept and copied; only what began after the
*horizon* is read each time. The horizon moves on now and then, and everything is read again when the daemon is another
one or something was deleted.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd.cli.minutes import read_minutes
from xybridd.cli.output import daemon
from xybridd.cli.report_facts import empty_sums, read_facts, read_sums, span_of
from xybridd.core.report.make import make_report
from xybridd.core.report.sums import Sums
from xybridd.report.sections import sections

if TYPE_CHECKING:
    from xybridd.cli.report_facts import Span
    from xybridd.client.connection import Connection
    from xybridd.core.report.figures import Report

#: So old is what is taken for settled, and so much older the horizon may become until it moves on.
_SETTLED_MS = 10 * 60_000

#: Several pages may be open; they are shown the same for so long, and for so many times of the processor's time that
#: making it took, up to a bound: looking at a device is not to keep it busy, nor to show what is long past.
_FRESH_S = 1.0
_RESTING = 9.0
_STALE_S = 5.0


class _Base(msgspec.Struct):
    """The sums of what began from ``since_ms`` to before ``horizon_ms``, as of a daemon in one state."""

    since_ms: int
    horizon_ms: int
    sums: Sums
    known_by: tuple[Any, ...]


class Shown(NamedTuple):
    """A report, and the sections of its page."""

    report: Report
    parts: dict[str, str]


class Feed:
    """Of the last ``since_s`` seconds, of one app or of all. For any number of threads."""

    def __init__(self, since_s: float, app: str | None) -> None:
        self._since_s = since_s
        self._app = app
        self._lock = threading.Lock()
        self._base: _Base | None = None
        self._last: Shown | None = None
        self._fresh_until_s = 0.0

    @property
    def last(self) -> Shown | None:
        """What was known last, however old."""
        return self._last

    def now(self) -> Shown:
        """As it is now. Raises XybriddError while the daemon cannot be asked."""
        with self._lock:
            if self._last is None or time.monotonic() > self._fresh_until_s:
                began_s = time.thread_time()
                made = self._make()
                self._last = Shown(made, sections(made))
                took_s = time.thread_time() - began_s
                self._fresh_until_s = time.monotonic() + min(_STALE_S, max(_FRESH_S, _RESTING * took_s))
            return self._last

    def _make(self) -> Report:
        connection = daemon()
        try:
            now = span_of(self._since_s)
            base = self._based(connection, now)
            span = msgspec.structs.replace(now, since_ms=base.since_ms)
            sums = read_sums(connection, base.sums.copy(), base.horizon_ms, span.until_ms, self._app)
            return make_report(read_facts(connection, span, self._app, sums))
        finally:
            connection.close()

    def _based(self, connection: Connection, span: Span) -> _Base:
        known_by = _state_of(connection.call("daemon.status"))
        base = self._base
        if base is not None and base.known_by == known_by and not self._is_old(base, span):
            return base
        horizon_ms = max(span.since_ms, span.now_ms - _SETTLED_MS)
        minutes = list(
            read_minutes(connection, since_ms=span.since_ms, until_ms=horizon_ms, app=self._app)
        )  # fmt: skip
        # One that still goes on (its session was idle, or the daemon restarted) may yet grow.
        horizon_ms = min([each.minute.started_at_ms for each in minutes if each.open] + [horizon_ms])
        sums = empty_sums(span)
        for each in minutes:
            if each.minute.started_at_ms < horizon_ms:
                sums.add(each)
        self._base = _Base(span.since_ms, horizon_ms, sums, known_by)
        return self._base

    def _is_old(self, base: _Base, span: Span) -> bool:
        """Its end is too far back, or its beginning for what was asked."""
        slack_ms = max(60_000.0, self._since_s * 100)
        return span.now_ms - base.horizon_ms > 2 * _SETTLED_MS or span.since_ms - base.since_ms > slack_ms


def _state_of(status: dict[str, Any]) -> tuple[Any, ...]:
    """What is another when old minutes may be others than they were."""
    return status["pid"], sorted(status["ledger"]["removed"].items()), len(status["storage"].get("salvages", ()))
