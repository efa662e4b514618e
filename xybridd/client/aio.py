"""The client's calls that wait, for an event loop.

Recording never waits, so it is the same call everywhere. Here no thread waits: the flusher wakes the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

from xybridd.client.client import EXIT_DRAIN_S

if TYPE_CHECKING:
    from xybridd.client.client import Client
    from xybridd.client.flusher import Mark


class AsyncClient:
    """Made by `Client.aio`. Works on asyncio's loop and on uvloop's."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def advice(
        self, model_size_mb: float | None = None, safety_margin: float = 1.5, timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """As `Client.advice`."""
        mark = self._client._ask_advice(model_size_mb, safety_margin)  # noqa: SLF001 - the other half of one class
        return cast("dict[str, Any] | None", await _result(mark, timeout_s))

    async def flush(self, timeout_s: float = 2.0) -> bool:
        """As `Client.flush`."""
        mark = self._client._ask("flush")  # noqa: SLF001
        return mark is None or bool(await _result(mark, timeout_s))

    async def end_session(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """As `Client.end_session`."""
        return cast("dict[str, Any] | None", await _result(self._client._ask("end_session"), timeout_s))  # noqa: SLF001

    async def close(self, timeout_s: float = EXIT_DRAIN_S) -> bool:
        """As `Client.close`."""
        await self.flush(timeout_s)
        return await asyncio.to_thread(self._client.close, timeout_s)


async def _result(mark: Mark | None, timeout_s: float) -> Any:
    """What it came to; None when it did not within `timeout_s`."""
    if mark is None:
        return None
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    mark.then(tell)
    try:
        await asyncio.wait_for(done.wait(), timeout_s)
    except TimeoutError:
        return None
    return mark.result
