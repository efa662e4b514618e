"""A thread that runs functions one after the other and hands their results to an event loop.

A daemon thread: a disk or a sensor that hangs must not keep the process from ending.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

T = TypeVar("T")


class Worker:
    """``translate`` turns what a function raised into what its caller gets to see."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        name: str,
        translate: Callable[[BaseException], BaseException] = lambda error: error,
    ) -> None:
        self._loop = loop
        self._translate = translate
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self, job: Callable[[], T]) -> Future[T]:
        answer: Future[T] = self._loop.create_future()
        self._jobs.put((job, answer))
        return answer

    def stop(self) -> None:
        """After what was asked for so far."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, answer = item
            result: Any
            error: BaseException | None
            try:
                result, error = job(), None
            except BaseException as caught:  # noqa: BLE001 - it is handed to whoever waits
                result, error = None, self._translate(caught)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_answer, answer, result, error)


def _answer(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
