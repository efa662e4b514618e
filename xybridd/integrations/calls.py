"""One call of a library, from its start to its one record."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Client, Stats

log = logging.getLogger(__name__)

P = ParamSpec("P")

#: The longest name of a model or a version that the daemon takes.
LONGEST_NAME = 256


def never_raises(function: Callable[P, object]) -> Callable[P, None]:
    """What goes wrong in our own reading is said to who debugs, and is no matter of the app."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            log.debug("a call could not be read in full", exc_info=True)

    return guarded


class Call:
    """Made when the library is called. It is recorded once: the first of `finish` and `fail` decides."""

    def __init__(self, client: Client, model_id: str, version: str = "", stats: Stats | None = None) -> None:
        self.model_id = model_id[:LONGEST_NAME] or "unknown"
        self.version = version[:LONGEST_NAME]
        self.stats: Stats = {**stats} if stats else {}
        self.pieces = 0
        self._client = client
        self._recorded = False
        self._started = self._latest = time.perf_counter()

    def piece(self, *, has_text: bool) -> None:
        """A piece of a stream arrived. Those with text are counted: one token each, until the library says better."""
        self._latest = time.perf_counter()
        if has_text:
            self.pieces += 1
            if self.pieces == 1:
                self.stats["time_to_first_token_ms"] = (self._latest - self._started) * 1000

    def tokens(self, given: Any = None, made: Any = None) -> None:
        """What the library says of tokens. What is no count is passed over."""
        if _is_count(given):
            self.stats["input_tokens"] = given
        if _is_count(made):
            self.stats["output_tokens"] = made

    @never_raises
    def finish(self, *, early: bool = False) -> None:
        """It went well. A stream left ``early`` took until its latest piece: what came after is the app's time."""
        if self._recorded:
            return
        self._recorded = True
        latency_s = (self._latest if early else time.perf_counter()) - self._started
        if self.pieces:
            self.stats.setdefault("output_tokens", self.pieces)
        made = self.stats.get("output_tokens", 0)
        if made and latency_s > 0:
            self.stats.setdefault("tokens_per_second", made / latency_s)
        self._client.record_inference(self.model_id, self.version, latency_s * 1000, **self.stats)

    @never_raises
    def fail(self, error: BaseException, category: str | None = None) -> None:
        """It raised. An interrupt, or a task that was cancelled, is no failure of the model."""
        if self._recorded:
            return
        self._recorded = True
        if isinstance(error, Exception):
            self._client.record_error(error, self.model_id, self.version, category)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
