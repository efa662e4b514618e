"""Functions of a library, wrapped in place, and put back as they were.

A wrapped function that somebody still holds after it was put back passes everything through and records nothing.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from xybridd.integrations.calls import Call, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Client


class Reading(Protocol):
    """How calls of one function are read. What these raise is kept from the app."""

    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The call, from what the function was given; ``args`` begins with the object it is a method of."""

    def end(self, call: Call, result: Any) -> Any:
        """What the app gets: the very result, or the same stream with the call behind it. Finishes the call."""

    def category(self, error: Exception) -> str | None:
        """The category of an error, where it is clear; else the words of its text decide."""


class Watch:
    """Everything wrapped for one library."""

    def __init__(self, name: str, client: Callable[[], Client]) -> None:
        self._client = client
        self._active = True
        self._inside = contextvars.ContextVar(f"xybridd.inside.{name}", default=False)
        self._put: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` where the class has ``name``; where it only inherits it, at the class that has it."""
        owner = next(base for base in owner.__mro__ if name in vars(base))
        original = vars(owner)[name]
        ours = make(original)
        setattr(owner, name, ours)
        self._put.append((owner, name, original, ours))

    def wrap(self, owner: Any, name: str, reading: Reading) -> None:
        """Record the calls of a method, plain or a coroutine."""

        def make(original: Any) -> Any:
            asynchronous = inspect.iscoroutinefunction(original)
            return self._coroutine(original, reading) if asynchronous else self._function(original, reading)

        self.replace(owner, name, make)

    def undo(self) -> None:
        """Put everything back. What somebody else wrapped since then stays theirs, and passes through ours."""
        self._active = False
        for owner, name, original, ours in reversed(self._put):
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        self._put.clear()

    def _function(self, original: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            call = self._begin(reading, args, kwargs)
            if call is None:
                return original(*args, **kwargs)
            inside = self._inside.set(True)
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                _failed(call, reading, error)
                raise
            finally:
                self._inside.reset(inside)
            if inspect.iscoroutine(result):  # a plain function around an async one, as decorators make them
                return self._awaited(call, reading, result)
            return _ended(call, reading, result)

        return watched

    def _coroutine(self, original: Callable[..., Any], reading: Reading) -> Callable[..., Any]:
        @functools.wraps(original)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            call = self._begin(reading, args, kwargs)
            coroutine = original(*args, **kwargs)
            return await (coroutine if call is None else self._awaited(call, reading, coroutine))

        return watched

    async def _awaited(self, call: Call, reading: Reading, coroutine: Any) -> Any:
        inside = self._inside.set(True)
        try:
            result = await coroutine
        except BaseException as error:
            _failed(call, reading, error)
            raise
        finally:
            self._inside.reset(inside)
        return _ended(call, reading, result)

    def _begin(self, reading: Reading, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """None for a call that another one makes for itself, which is recorded already."""
        if not self._active or self._inside.get():
            return None
        try:
            return reading.begin(self._client(), args, kwargs)
        except Exception:  # noqa: BLE001 - whatever it is, the app goes on
            log.debug("a call could not be read", exc_info=True)
            return None


def _ended(call: Call, reading: Reading, result: Any) -> Any:
    try:
        return reading.end(call, result)
    except Exception:  # noqa: BLE001 - whatever it is, the app goes on
        log.debug("a result could not be read", exc_info=True)
        call.finish()
        return result


def _failed(call: Call, reading: Reading, error: BaseException) -> None:
    call.fail(error, category_of(reading, error))


def category_of(reading: Reading, error: BaseException) -> str | None:
    try:
        return reading.category(error) if isinstance(error, Exception) else None
    except Exception:  # noqa: BLE001 - whatever it is, the app goes on
        log.debug("an error could not be read", exc_info=True)
        return None
