"""faster_whisper: transcriptions of `WhisperModel` and of the batched pipeline, each to its last segment.

The library works while the segments are read, so the call ends with them. A model does not keep the name it was loaded
by: it is noted at the loading.
"""

from __future__ import annotations

import functools
import importlib
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xybridd.integrations.calls import Call, never_raises
from xybridd.integrations.streams import StreamReading, watched_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.client.client import Client, Stats
    from xybridd.integrations.wrapping import Watch

HARDWARE: dict[str, Literal["cpu", "gpu", "npu"]] = {"cpu": "cpu", "cuda": "gpu"}

#: What was loaded before anybody noted its name.
UNNAMED = "whisper"


def put(watch: Watch) -> None:
    library = importlib.import_module("faster_whisper")
    reading = _Transcriptions()
    watch.replace(library.WhisperModel, "__init__", reading.noting_names)
    for owner in (library.WhisperModel, library.BatchedInferencePipeline):
        watch.wrap(owner, "transcribe", reading)


class _Transcriptions(StreamReading):
    def __init__(self) -> None:
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def noting_names(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(model: Any, *args: Any, **kwargs: Any) -> None:
            original(model, *args, **kwargs)
            self._note_name(model, *args, **kwargs)

        return init

    @never_raises
    def _note_name(self, model: Any, model_size_or_path: Any, *_: Any, **__: Any) -> None:
        # A size ("tiny"), a name of the hub, or a folder: of that the last part, as for any file.
        name = str(model_size_or_path)
        self._names[model] = Path(name).resolve().name if Path(name).is_dir() else name

    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        owner = args[0]
        # A batched pipeline has its model as `model`; a model has there what CTranslate2 made of it.
        model = owner.model if hasattr(owner.model, "transcribe") else owner
        stats: Stats = {"execution_target": "local"}
        hardware = HARDWARE.get(getattr(model.model, "device", ""))
        if hardware is not None:
            stats["hardware_used"] = hardware
        return Call(client, self._names.get(model, UNNAMED), "", stats)

    def end(self, call: Call, result: Any) -> Any:
        segments, info = result
        return watched_generator(segments, call, self), info

    def piece(self, call: Call, piece: Any) -> None:
        call.piece(has_text=False)  # a segment is more than one token
        call.tokens(made=call.stats.get("output_tokens", 0) + len(piece.tokens))

    def category(self, error: Exception) -> str | None:
        if "out of memory" in str(error).lower():
            return "memory"
        return "preprocessing" if isinstance(error, (TypeError, ValueError)) else None
