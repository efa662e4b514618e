"""llama_cpp: completions and chats of `Llama`, streams included. A chat that makes a completion is one record."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xybridd.integrations.calls import Call
from xybridd.integrations.streams import StreamReading, watched_generator

if TYPE_CHECKING:
    from xybridd.client.client import Client
    from xybridd.integrations.wrapping import Watch


def put(watch: Watch) -> None:
    llama = importlib.import_module("llama_cpp").Llama
    for name in ("__call__", "create_completion", "create_chat_completion"):
        watch.wrap(llama, name, _Completions())


class _Completions(StreamReading):
    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        llama = args[0]
        metadata = getattr(llama, "metadata", None) or {}
        name = str(metadata.get("general.name") or Path(llama.model_path).stem)
        return Call(client, name, str(metadata.get("general.version") or ""), {"execution_target": "local"})

    def end(self, call: Call, result: Any) -> Any:
        if inspect.isgenerator(result):
            return watched_generator(result, call, self)
        usage = result.get("usage") or {} if isinstance(result, dict) else {}
        call.tokens(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        call.finish()
        return result

    def piece(self, call: Call, piece: Any) -> None:
        choices = piece.get("choices") or ()
        call.piece(has_text=any(one.get("text") or (one.get("delta") or {}).get("content") for one in choices))

    def category(self, error: Exception) -> str | None:
        return "preprocessing" if isinstance(error, (TypeError, ValueError)) else None
