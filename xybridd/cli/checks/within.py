"""A time limit for what may hang: a disk that is gone, a name that nobody answers for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TooLong(Exception):
    """It did not return in time; it is left behind, and ends with the process at the latest."""


def within(limit_s: float, what: Callable[[], T]) -> T:
    """Raises TooLong, and whatever `what` raises."""
    done: list[T] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            done.append(what())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    if failed:
        raise failed[0]
    if not done:
        raise TooLong
    return done[0]
