"""Real models, real sessions: those that onnxruntime ships."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from xybridd.integrations.onnxruntime import hardware_of, name_from

if TYPE_CHECKING:
    from collections.abc import Callable

onnxruntime: Any = pytest.importorskip("onnxruntime", reason="the extra `examples` is not installed")
numpy: Any = pytest.importorskip("numpy", reason="the extra `examples` is not installed")

MODELS = Path(onnxruntime.__file__).parent / "datasets"
NUMBERS = numpy.linspace(-1, 1, 60, dtype=numpy.float32).reshape(3, 4, 5)


def session_of(model: str | bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def sigmoid() -> Any:
    return session_of(str(MODELS / "sigmoid.onnx"))


def test_runs_of_sessions_made_before_and_after_are_recorded(client: xybridd.Client, held: Callable[[], Any]) -> None:
    early = sigmoid()
    without = early.run(None, {"x": NUMBERS})
    xybridd.instrument("onnxruntime", client)
    with_it = early.run(None, {"x": NUMBERS})
    assert numpy.array_equal(without[0], with_it[0])
    sigmoid().run(["y"], {"x": NUMBERS}, run_options=None)
    found = held()
    assert found["by_model"]["test_sigmoid@"]["call_count"] == 2
    model = found["extensions"]["models"]["test_sigmoid@"]
    assert model["stats"]["hardware_used"] == {"cpu": 2}
    assert model["stats"]["execution_target"] == {"local": 2}
    assert model["latency_ms"]["max"] > 0


def test_other_ways_to_run_are_recorded_once_each(client: xybridd.Client, held: Callable[[], Any]) -> None:
    session = sigmoid()
    xybridd.instrument("onnxruntime", client)
    binding = session.io_binding()
    binding.bind_cpu_input("x", NUMBERS)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    bound = binding.copy_outputs_to_cpu()[0]
    value = onnxruntime.OrtValue.ortvalue_from_numpy(NUMBERS)
    (valued,) = session.run_with_ort_values(["y"], {"x": value})
    assert numpy.array_equal(bound, valued.numpy())
    assert held()["by_model"]["test_sigmoid@"]["call_count"] == 2


def test_an_error_is_recorded_and_is_the_one_of_the_library(client: xybridd.Client, held: Callable[[], Any]) -> None:
    session = sigmoid()

    def fail(feed: dict[str, Any]) -> BaseException:
        with pytest.raises(Exception, match=r"x|rank|type") as raised:
            session.run(None, feed)
        return raised.value

    feeds: list[dict[str, Any]] = [{"z": NUMBERS}, {"x": NUMBERS[0]}, {"x": NUMBERS.astype(numpy.float64)}]
    without = [fail(feed) for feed in feeds]
    xybridd.instrument("onnxruntime", client)
    with_it = [fail(feed) for feed in feeds]
    assert [(type(error), str(error)) for error in with_it] == [(type(error), str(error)) for error in without]
    found = held()
    assert found["total_inferences"] == 0
    assert found["by_model"]["test_sigmoid@"]["error_count"] == 3
    assert [error["category"] for error in found["errors"]] == ["Preprocessing"] * 3


def test_models_are_named_by_their_graph_their_file_or_their_folder(
    client: xybridd.Client, held: Callable[[], Any], folder: Path
) -> None:
    xybridd.instrument("onnxruntime", client)
    iris = MODELS / "logreg_iris.onnx"  # its graph is named by a digest, its version is 0
    renamed = folder / "iris-net" / "onnx" / "model_quantized.onnx"
    renamed.parent.mkdir(parents=True)
    renamed.write_bytes(iris.read_bytes())
    for model in (str(iris), str(renamed), iris.read_bytes()):
        session = session_of(model)
        feed = {one.name: numpy.zeros((3, 2), dtype=numpy.float32) for one in session.get_inputs()}
        session.run(None, feed)
    assert sorted(held()["by_model"]) == ["iris-net@", "logreg_iris@", "onnx@"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/m/whisper-tiny/onnx/encoder_model_int8.onnx", "encoder_model_int8"),
        ("/m/whisper-tiny/onnx/model.onnx", "whisper-tiny"),
        ("/m/yolo.onnx", "yolo"),
        ("/model.onnx", "model"),
    ],
)
def test_a_file_that_is_called_as_all_are_is_named_by_its_folder(path: str, name: str) -> None:
    assert name_from(Path(path)) == name


@pytest.mark.parametrize(
    ("providers", "hardware"),
    [
        ({"CUDAExecutionProvider": {}, "CPUExecutionProvider": {}}, "gpu"),
        ({"TensorrtExecutionProvider": {}}, "gpu"),
        ({"ROCMExecutionProvider": {}}, "gpu"),
        ({"DmlExecutionProvider": {}, "CPUExecutionProvider": {}}, "gpu"),
        ({"CoreMLExecutionProvider": {}, "CPUExecutionProvider": {}}, "npu"),
        ({"QNNExecutionProvider": {}}, "npu"),
        ({"VitisAIExecutionProvider": {}}, "npu"),
        ({"OpenVINOExecutionProvider": {"device_type": "NPU"}}, "npu"),
        ({"OpenVINOExecutionProvider": {"device_type": "GPU.0"}}, "gpu"),
        ({"OpenVINOExecutionProvider": {}}, "cpu"),
        ({"XnnpackExecutionProvider": {}, "CPUExecutionProvider": {}}, "cpu"),
        ({"NewExecutionProvider": {}}, None),
    ],
)
def test_each_provider_has_its_hardware(providers: dict[str, dict[str, str]], hardware: str | None) -> None:
    """The providers of other machines: only their names and options are read."""
    session = SimpleNamespace(get_providers=lambda: list(providers), get_provider_options=lambda: providers)
    assert hardware_of(session) == hardware


def test_instrumenting_twice_records_once_and_uninstrumenting_restores(
    client: xybridd.Client, held: Callable[[], Any]
) -> None:
    session = sigmoid()
    owner = next(base for base in type(session).__mro__ if "run" in vars(base))
    before = dict(vars(owner))
    xybridd.instrument("onnxruntime", client)
    assert vars(owner)["run"] is not before["run"]
    xybridd.instrument("onnxruntime", client)
    session.run(None, {"x": NUMBERS})
    xybridd.uninstrument("onnxruntime")
    assert all(vars(owner)[name] is value for name, value in before.items())
    session.run(None, {"x": NUMBERS})
    assert held()["total_inferences"] == 1
