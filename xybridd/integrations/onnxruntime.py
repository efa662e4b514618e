"""onnxruntime: every run of every `InferenceSession`, whenever it was made."""

from __future__ import annotations

import importlib
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xybridd.integrations.calls import Call

if TYPE_CHECKING:
    from xybridd.client.client import Client, Stats
    from xybridd.integrations.wrapping import Watch

Hardware = Literal["cpu", "gpu", "npu"]

#: What each execution provider runs on; of several, the first that is known.
HARDWARE: dict[str, Hardware] = {
    "CUDAExecutionProvider": "gpu",
    "TensorrtExecutionProvider": "gpu",
    "NvTensorRTRTXExecutionProvider": "gpu",
    "ROCMExecutionProvider": "gpu",
    "MIGraphXExecutionProvider": "gpu",
    "DmlExecutionProvider": "gpu",
    "WebGpuExecutionProvider": "gpu",
    "CoreMLExecutionProvider": "npu",
    "QNNExecutionProvider": "npu",
    "VitisAIExecutionProvider": "npu",
    "CPUExecutionProvider": "cpu",
}

#: What converters call a graph that nobody named.
_NO_NAMES = {"", "main", "main_graph", "graph", "model", "onnx", "tf2onnx", "torch_jit", "torch-jit-export", "unnamed"}
_DIGEST = re.compile(r"[0-9a-fA-F-]{16,}")

#: Folders and files that are called the same for every model.
_COMMON = re.compile(
    r"(model|onnx|weights|decoder|encoder)?([._-]?(quantized|optimized|fp16|fp32|int8|q4|uint8))*", re.IGNORECASE
)

#: What stands in a file that has no version.
_NO_VERSION = (0, 2**63 - 1, -1)


def put(watch: Watch) -> None:
    session = importlib.import_module("onnxruntime").InferenceSession
    for name in ("run", "run_with_iobinding", "run_with_ort_values"):
        watch.wrap(session, name, _Runs())


class _Runs:
    """A model is read once for each session."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, tuple[str, str]] = weakref.WeakKeyDictionary()

    def begin(self, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        session = args[0]
        model = self._known.get(session)
        if model is None:
            model = self._known[session] = model_of(session)
        stats: Stats = {"execution_target": "local"}
        hardware = hardware_of(session)
        if hardware is not None:
            stats["hardware_used"] = hardware
        return Call(client, *model, stats)

    def end(self, call: Call, result: Any) -> Any:
        call.finish()
        return result

    def category(self, error: Exception) -> str | None:
        kind, text = type(error).__name__, str(error).lower()
        if "allocate" in text or "out of memory" in text:
            return "memory"
        if kind in {"InvalidArgument", "ValueError", "TypeError"}:
            return "preprocessing"
        if kind == "EPFail":
            return "hardware"
        return "inference" if kind in {"Fail", "RuntimeException", "NotImplemented"} else None


def model_of(session: Any) -> tuple[str, str]:
    """The id and the version of a session's model."""
    meta = session.get_modelmeta()
    version = "" if meta.version in _NO_VERSION else str(meta.version)
    name = str(meta.graph_name).strip()
    if name.lower() in _NO_NAMES or name == meta.producer_name or _DIGEST.fullmatch(name):
        path = getattr(session, "_model_path", None)
        name = name_from(Path(path)) if path else "onnx"
    return name, version


def name_from(path: Path) -> str:
    """The stem of the file, or the nearest folder with a name of its own: ``whisper/onnx/model.onnx`` is whisper."""
    names = (path.stem, *(folder.name for folder in path.absolute().parents))
    return next((name for name in names if not _COMMON.fullmatch(name)), path.stem)


def hardware_of(session: Any) -> Hardware | None:
    """What the session's providers run on, in the order in which onnxruntime asks them."""
    for provider in session.get_providers():
        if provider == "OpenVINOExecutionProvider":
            device = str(session.get_provider_options().get(provider, {}).get("device_type", "")).upper()
            return "npu" if "NPU" in device else "gpu" if "GPU" in device else "cpu"
        if provider in HARDWARE:
            return HARDWARE[provider]
    return None
