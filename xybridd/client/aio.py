"""The client's calls that wait, for an event loop.

Recording never waits, so it is the same call everywhere. Here no thread waits: the client's thread wakes the loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from xybridd.client.client import EXIT_DRAIN_S

if TYPE_CHECKING:
    from concurrent.futures import Future

    from xybridd.client.client import Client


class AsyncClient:
    """Made by `Client.aio`. Works on asyncio's loop and on uvloop's."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def advice(
        self, model_size_mb: float | None = None, safety_margin: float = 1.5, timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """As `Client.advice`."""
        return cast(
            "dict[str, Any] | None", await _result(self._client.advice_soon(model_size_mb, safety_margin), timeout_s)
        )

    async def flush(self, timeout_s: float = 2.0) -> bool:
        """As `Client.flush`."""
        return bool(await _result(self._client.flush_soon(), timeout_s))

    async def end_session(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """As `Client.end_session`."""
        return cast("dict[str, Any] | None", await _result(self._client.end_session_soon(), timeout_s))

    async def close(self, timeout_s: float = EXIT_DRAIN_S) -> bool:
        """As `Client.close`."""
        await self.flush(timeout_s)
        return await asyncio.to_thread(self._client.close, timeout_s)


async def _result(future: Future[Any] | None, timeout_s: float) -> Any:
    """What it came to; None when it did not within `timeout_s`."""
    if future is None:
        return None
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
    except TimeoutError:
        return None
