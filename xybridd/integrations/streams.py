"""Streams of pieces, handed on as they come, with the call behind them.

Left early, by `close` or by letting it go, a stream is recorded as what it produced until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from xybridd.integrations.calls import Call, never_raises
from xybridd.integrations.wrapping import Reading, category_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self


class StreamReading(Reading, Protocol):
    def piece(self, call: Call, piece: Any) -> None:
        """Note what a piece says."""


class _Watched:
    """What both kinds of iterator share. Whatever else the library does with its iterator goes through."""

    def __init__(self, iterator: Any, call: Call, reading: StreamReading) -> None:
        self._iterator = iterator
        self._call = call
        self._reading = reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __del__(self) -> None:
        self.left()

    def left(self) -> None:
        self._call.finish(early=True)

    @never_raises
    def _note(self, piece: Any) -> None:
        self._reading.piece(self._call, piece)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._call.fail(error, category_of(self._reading, error))
        else:
            self.left()


class WatchedIterator(_Watched):
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            piece = next(self._iterator)
        except StopIteration:
            self._call.finish()
            raise
        except BaseException as error:
            self._failed(error)
            raise
        self._note(piece)
        return piece


class WatchedAsyncIterator(_Watched):
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            piece = await self._iterator.__anext__()
        except StopAsyncIteration:
            self._call.finish()
            raise
        except BaseException as error:
            self._failed(error)
            raise
        self._note(piece)
        return piece


def watched_generator(pieces: Any, call: Call, reading: StreamReading) -> Generator[Any, Any, Any]:
    """For a library that returns a generator: the app gets a generator too."""
    watched = WatchedIterator(pieces, call, reading)
    try:
        yield from watched  # closes the library's generator when this one is closed
    finally:
        watched.left()
