"""Group commit: what arrived while the last transaction was written goes into the next one.

`barrier` hands out a future that is done once everything applied so far is on disk. All who ask before a commit
starts share one. A barrier that need not be soon waits up to ``commit_interval_s`` for company, because on flash a
commit a record would wear the card out.

A commit that fails is tried again until it succeeds, with the very same values, and nobody who waits for it is
answered meanwhile: state ``degraded``. What is asked to record in that state is refused, so that memory stays
bounded and the clients, which keep what was not acknowledged, send it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from xybridd.errors import CorruptDatabase, Overloaded, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.25
_LONGEST_RETRY_S = 5.0


class CommitWork(Protocol):
    """What the committer needs of whoever owns the changes."""

    def dirty(self) -> bool:
        """Whether anything is to be written."""

    def collect(self) -> Awaitable[None]:
        """Take everything that is to be written; the awaitable writes it, and may be asked for again by `retry`."""

    def retry(self) -> Awaitable[None]:
        """Write again what was collected last."""

    def rescue(self, reason: str) -> Awaitable[None]:
        """The database turned out to be damaged: make a new one that holds all that was kept and collected.

        Asked for again until it succeeds.
        """

    def settle(self) -> None:
        """What was collected last is on disk."""


class Committer:
    def __init__(
        self, work: CommitWork, interval_s: float, most_waiting: int = 20_000, most_each: int | None = None
    ) -> None:
        self.interval_s = interval_s
        self.failure: str | None = None
        self._work = work
        self._retry_s = _FIRST_RETRY_S
        self._flying: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._most_waiting = most_waiting
        self._most_each = most_waiting if most_each is None else most_each
        #: Who waits for the transaction under way, and who for the next one, by user id.
        self._waiting: Counter[int | None] = Counter()
        self._waiting_next: Counter[int | None] = Counter()

    def check(self, uid: int | None = None) -> None:
        """Whether more may be recorded, by a user who has a share, or by one (None) who may have it all.

        Raises StorageUnavailable while the disk refuses, Overloaded while it is slower than what comes.
        """
        if self.failure is not None:
            raise StorageUnavailable(
                f"the daemon cannot write to its disk: {self.failure}", retry_after_ms=int(self._retry_s * 1000)
            )
        if self._waiting.total() + self._waiting_next.total() >= self._most_waiting:
            raise Overloaded(
                f"{self._most_waiting} answers wait for the disk (limits.max_waiting_answers)", retry_after_ms=1000
            )
        if uid is not None and self._waiting[uid] + self._waiting_next[uid] >= self._most_each:
            raise Overloaded(
                f"{self._most_each} answers to this user wait for the disk (limits.user_percent of "
                "limits.max_waiting_answers)",
                retry_after_ms=1000,
            )

    def barrier(self, *, soon: bool, uid: int | None = None) -> asyncio.Future[None] | None:
        """Done when everything applied so far is on disk; None when it is already. ``uid``: as for `check`."""
        if not self._work.dirty():
            return self._flying
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._waiting_next[uid] += 1
        if soon:
            self._start()
        else:
            self.later()
        return self._next

    def later(self) -> None:
        """See to it that what was applied is written in time, though nobody waits for it."""
        if self._timer is None and self._work.dirty():
            self._timer = asyncio.get_running_loop().call_later(self.interval_s, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._work.dirty():
            return  # somebody's haste has taken it along
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="commit")
        else:
            self._again = True

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                self._flying = self._next or asyncio.get_running_loop().create_future()
                self._next = None
                self._waiting, self._waiting_next = self._waiting_next, Counter()
                await self._write_until_kept()
                self._work.settle()
                self._flying.set_result(None)
                self._flying, self._waiting = None, Counter()
                if not self._again:
                    return
        finally:
            self._task = None

    async def _write_until_kept(self) -> None:
        write = self._work.collect()
        damage: str | None = None
        while True:
            try:
                await write
            except CorruptDatabase as error:
                damage = str(error)
                self._degrade(f"the database is damaged: {error}")
            except Exception as error:
                if not isinstance(error, StorageError):
                    log.exception("a commit failed in a way that it should not")
                self._degrade(str(error) or type(error).__name__)
            else:
                break
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            write = self._work.retry() if damage is None else self._work.rescue(damage)
        if self.failure is not None:
            log.warning("the disk takes writes again; everything that waited is kept")
            self.failure, self._retry_s = None, _FIRST_RETRY_S

    def _degrade(self, reason: str) -> None:
        if reason != self.failure:
            log.error("cannot write to the database, new records are refused until that works: %s", reason)
        self.failure = reason

    async def drain(self) -> None:
        """Bring everything to disk now; with a disk that refuses, this does not end."""
        while (barrier := self.barrier(soon=True)) is not None:
            await asyncio.shield(barrier)
