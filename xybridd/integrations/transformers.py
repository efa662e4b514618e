"""transformers: every call of a pipeline, whichever its task, one record a call."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal

from xybridd.integrations.calls import Call

if TYPE_CHECKING:
    from xybridd.client.client import Client, Stats
    from xybridd.integrations.wrapping import Watch

#: The kinds of `torch.device`.
HARDWARE: dict[str, Literal["cpu", "gpu", "npu"]] = {
    "cpu": "cpu",
    "cuda": "gpu",
    "hpu": "npu",
    "mps": "gpu",
    "npu": "npu",
    "xpu": "gpu",
}


def put(watch: Watch) -> None:
    pipeline = importlib.import_module("transformers.pipelines.base").Pipeline
    watch.wrap(pipeline, "__call__", _Pipelines())


class _Pipelines:
    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        pipeline = args[0]
        stats: Stats = {"execution_target": "local"}
        hardware = HARDWARE.get(getattr(pipeline.device, "type", ""))
        if hardware is not None:
            stats["hardware_used"] = hardware
        config = pipeline.model.config
        name = str(getattr(pipeline.model, "name_or_path", "") or getattr(config, "model_type", ""))
        return Call(client, name.rstrip("/").removeprefix("./"), str(getattr(config, "_commit_hash", "") or ""), stats)

    def end(self, call: Call, result: Any) -> Any:
        call.finish()
        return result

    def category(self, error: Exception) -> str | None:
        if type(error).__name__ == "OutOfMemoryError":
            return "memory"
        return "preprocessing" if isinstance(error, (TypeError, ValueError)) else None
