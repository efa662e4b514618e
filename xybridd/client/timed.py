"""One inference that is timed: a block, a function, a coroutine, a generator."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from types import TracebackType
    from typing import Self

    from xybridd.client.client import Client

P = ParamSpec("P")
R = TypeVar("R")

_perf_counter = time.perf_counter


class Inference:
    """Made by `Client.inference`. Latency is wall time on the clock that cannot jump."""

    __slots__ = ("_call", "_client", "_started", "_stats", "model_id", "version")

    def __init__(self, client: Client, model_id: str, version: str, stats: dict[str, Any]) -> None:
        self._client = client
        self._stats = stats
        self._started = 0.0
        self._call = 0
        self.model_id = model_id
        self.version = version

    def note(self, **stats: Any) -> None:
        """Add stats that are known only now: tokens, the hardware that was used."""
        self._stats = {**self._stats, **stats}

    def __enter__(self) -> Self:
        self._call = self._client.call_started(self.model_id, self.version)
        self._started = _perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        latency_ms = (_perf_counter() - self._started) * 1000
        if error is None:
            self._client.call_finished(self.model_id, self.version, latency_ms, self._stats, self._call)
        elif isinstance(error, Exception):
            self._client.call_failed(error, self.model_id, self.version, self._call)
        else:  # an interrupt, a task that was cancelled, a generator that was closed: no failure of the model
            self._client.call_cancelled(self.model_id, self.version, latency_ms, self._call)

    def _again(self) -> Inference:
        return Inference(self._client, self.model_id, self.version, self._stats)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Time each call of a function; of a coroutine until it returns, of a generator until it is exhausted."""
        import inspect  # noqa: PLC0415 - only decorators pay for it

        timed: Any
        if inspect.isasyncgenfunction(function):
            timed = self._async_generator(function)
        elif inspect.iscoroutinefunction(function):

            async def timed(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            def timed(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                with self._again():
                    return (yield from function(*args, **kwargs))

        else:

            def timed(*args: P.args, **kwargs: P.kwargs) -> R:
                with self._again():
                    return function(*args, **kwargs)

        return cast("Callable[P, R]", functools.wraps(function)(timed))

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def timed(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with self._again():
                items = function(*args, **kwargs)
                try:
                    step = items.__anext__()
                    while True:
                        try:
                            item = await step
                        except StopAsyncIteration:
                            return
                        try:
                            step = items.asend((yield item))
                        except GeneratorExit:
                            raise
                        except BaseException as error:  # noqa: BLE001 - thrown into this one, meant for that one
                            step = items.athrow(error)
                finally:
                    await items.aclose()

        return timed
