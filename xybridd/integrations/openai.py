"""openai: what its clients ask of a server that speaks this API, near (ollama, llama.cpp, vLLM) or far.

Streams stay the library's own objects: only the iterator inside is one that counts.
"""

from __future__ import annotations

import functools
import importlib
import ipaddress
from typing import TYPE_CHECKING, Any, Literal

from xybridd.integrations.calls import Call, never_raises
from xybridd.integrations.streams import StreamReading, WatchedAsyncIterator, WatchedIterator

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Client
    from xybridd.integrations.wrapping import Watch

#: The classes whose ``create`` is watched.
RESOURCES = (
    ("openai.resources.chat.completions", "Completions"),
    ("openai.resources.chat.completions", "AsyncCompletions"),
    ("openai.resources.completions", "Completions"),
    ("openai.resources.completions", "AsyncCompletions"),
    ("openai.resources.embeddings", "Embeddings"),
    ("openai.resources.embeddings", "AsyncEmbeddings"),
)

#: What the server's word says of the failure, where it is clear. Of 429 and the refusals it is not.
_CATEGORIES = {400: "preprocessing", 404: "model_loading", 413: "preprocessing", 422: "preprocessing"}


def put(watch: Watch) -> None:
    library = importlib.import_module("openai")
    answers = _Answers(library)
    for module, name in RESOURCES:
        watch.wrap(getattr(importlib.import_module(module), name), "create", answers)
    watch.replace(library.Stream, "close", _closing)
    watch.replace(library.AsyncStream, "close", _closing_async)


class _Answers(StreamReading):
    def __init__(self, library: Any) -> None:
        self._library = library

    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        target = target_of(args[0]._client.base_url.host)  # noqa: SLF001 - a resource has no other way to its client
        return Call(client, str(kwargs.get("model", "")), stats={"execution_target": target})

    def end(self, call: Call, result: Any) -> Any:
        if isinstance(result, self._library.Stream):
            result._iterator = WatchedIterator(result._iterator, call, self)  # noqa: SLF001 - see above
        elif isinstance(result, self._library.AsyncStream):
            result._iterator = WatchedAsyncIterator(result._iterator, call, self)  # noqa: SLF001
        else:
            _usage(call, result)
            call.finish()
        return result

    def piece(self, call: Call, piece: Any) -> None:
        call.piece(has_text=any(_has_text(choice) for choice in getattr(piece, "choices", None) or ()))
        _usage(call, piece)

    def category(self, error: Exception) -> str | None:
        if isinstance(error, self._library.APIConnectionError):  # a time-out is one
            return "network"
        status = getattr(error, "status_code", None)
        if isinstance(status, int) and status >= 500:
            return "inference"
        return _CATEGORIES.get(status) if isinstance(status, int) else None


def _usage(call: Call, answer: Any) -> None:
    """A server that says nothing of it, or nothing yet, leaves it out."""
    usage = getattr(answer, "usage", None)
    if usage is not None:
        call.tokens(getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))


def _has_text(choice: Any) -> bool:
    """Whether the model made something: an answer, a thought (as local servers call it), a call of a tool."""
    delta = getattr(choice, "delta", None)
    if delta is None:
        return bool(getattr(choice, "text", None))
    return any(getattr(delta, name, None) for name in ("content", "reasoning_content", "reasoning", "tool_calls"))


def target_of(host: str) -> Literal["local", "cloud"]:
    """Local: this machine, or an address of a private network."""
    if host == "localhost" or host.endswith((".localhost", ".local")):
        return "local"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "cloud"
    return "local" if address.is_loopback or address.is_private or address.is_link_local else "cloud"


@never_raises
def _left(stream: Any) -> None:
    iterator = vars(stream).get("_iterator")
    if isinstance(iterator, (WatchedIterator, WatchedAsyncIterator)):
        iterator.left()


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def close(self: Any) -> Any:
        _left(self)
        return original(self)

    return close


def _closing_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def close(self: Any) -> Any:
        _left(self)
        return await original(self)

    return close
