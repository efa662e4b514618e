"""sherpa_onnx: what `OfflineRecognizer` decodes; several streams decoded at once are one record.

A streaming recognizer decodes in steps of milliseconds for as long as somebody speaks: what of that is an inference
is for the app to say (`Client.inference`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xybridd.integrations.calls import Call, never_raises

if TYPE_CHECKING:
    from xybridd.client.client import Client, Stats
    from xybridd.integrations.wrapping import Watch

HARDWARE: dict[str, Literal["cpu", "gpu", "npu"]] = {"cpu": "cpu", "cuda": "gpu", "coreml": "npu"}


def put(watch: Watch) -> None:
    recognizer = importlib.import_module("sherpa_onnx").OfflineRecognizer
    for name in ("decode_stream", "decode_streams"):
        watch.wrap(recognizer, name, _Decodings())


class _Decoding(Call):
    """The results are in the streams themselves."""

    streams: tuple[Any, ...] = ()

    @never_raises
    def count(self) -> None:
        self.tokens(made=sum(len(stream.result.tokens) for stream in self.streams))


class _Decodings:
    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        recognizer, *rest = args
        stats: Stats = {"execution_target": "local"}
        config = recognizer.config.model_config
        hardware = HARDWARE.get(config.provider)
        if hardware is not None:
            stats["hardware_used"] = hardware
        call = _Decoding(client, _name_of(config), "", stats)
        (given,) = rest or kwargs.values()
        call.streams = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        return call

    def end(self, call: Call, result: Any) -> Any:
        if isinstance(call, _Decoding):
            call.count()
        call.finish()
        return result

    def category(self, error: Exception) -> str | None:
        return "preprocessing" if isinstance(error, (TypeError, ValueError)) else None


def _name_of(config: Any) -> str:
    """The folder that the model came in, where its tokens lie too; the files have the same names in each."""
    return Path(config.tokens).resolve().parent.name if config.tokens else str(config.model_type)
