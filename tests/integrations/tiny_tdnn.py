"""A model of sherpa-onnx as small as can be, with random weights: one layer from features to four tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = 23
TOKENS = ("<SIL>", "Y", "N", "<eps>")


def write_model(folder: Path) -> None:
    """``model.onnx`` and ``tokens.txt``."""
    onnx: Any = pytest.importorskip("onnx", reason="the package `onnx` is not installed")
    numpy: Any = pytest.importorskip("numpy")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    weights = numpy.random.default_rng(1).standard_normal((FEATURES, len(TOKENS))).astype(numpy.float32)
    nodes = [
        make.make_node("MatMul", ["x", "w"], ["y"]),
        make.make_node("LogSoftmax", ["y"], ["log_probs"], axis=2),
    ]
    graph = make.make_graph(
        nodes,
        "tdnn",
        [make.make_tensor_value_info("x", number, ["N", "T", FEATURES])],
        [make.make_tensor_value_info("log_probs", number, ["N", "T", len(TOKENS)])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    make.set_model_props(model, {"model_type": "tdnn", "vocab_size": str(len(TOKENS)), "subsampling_factor": "1"})
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokens.txt").write_text("".join(f"{token} {at}\n" for at, token in enumerate(TOKENS)))
