"""Which batches let others by: one that cannot get through must not hold up all that come after it.

A failure that is tried again may be the receiver's, and then every batch would fail, or the batch's own: the one over
which a receiver answers 500 each time, or the sender's process dies. So a batch that failed three times in a row in
such a way is put aside, and the next one is tried when the wait is over. If that gets through, so do the others, and
the one put aside comes again when there are no more of them. If five in a row fail, it is not theirs: the first comes
again. Not more, since what was in a batch once can be superseded no more, nor be evicted.

What failed before anything was sent says nothing of the batch, nor does a receiver that is busy (429, 503).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xybridd.core.delivery import Failure, Outcome
    from xybridd.core.retry import Verdict

FAILURES = 3
MOST_ASIDE = 5

_BUSY = 503
_OF_THE_BATCH: frozenset[Failure] = frozenset({"timeout", "broken", "garbage", "sender"})


def _may_be_its_own(outcome: Outcome) -> bool:
    if outcome.failure is not None:
        return outcome.failure in _OF_THE_BATCH
    return outcome.status is not None and outcome.status >= 500 and outcome.status != _BUSY


class Stuck:
    """Of one sink; nothing of it needs to outlive a restart."""

    def __init__(self) -> None:
        self.aside: tuple[str, ...] = ()
        self._key = ""
        self._failures = 0

    def note(self, key: str, outcome: Outcome, verdict: Verdict) -> None:
        """What came of an attempt to send a batch."""
        if verdict.action != "retry" or not _may_be_its_own(outcome):
            self._key = ""
            return
        self._failures = self._failures + 1 if key == self._key else 1
        self._key = key
        # Behind one that is put aside a single attempt tells.
        if self._failures >= FAILURES or self.aside:
            self.aside = (*self.aside, key)
            if len(self.aside) > MOST_ASIDE:
                self.clear()

    def clear(self) -> None:
        """All of them come again."""
        self.aside, self._key, self._failures = (), "", 0
