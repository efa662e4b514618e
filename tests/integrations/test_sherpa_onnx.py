"""The real sherpa-onnx on a real (tiny, random) model, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.integrations.tiny_tdnn import write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def recognizer(folder: Path) -> Any:
    library: Any = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
    place = folder / "tiny-tdnn"
    write_model(place)
    return library.OfflineRecognizer.from_tdnn_ctc(
        model=str(place / "model.onnx"), tokens=str(place / "tokens.txt"), num_threads=1
    )


def heard(recognizer: Any, seconds: int) -> Any:
    numpy: Any = pytest.importorskip("numpy")
    stream = recognizer.create_stream()
    stream.accept_waveform(8000, numpy.random.default_rng(seconds).standard_normal(8000 * seconds) * 0.1)
    return stream


def test_what_is_decoded_is_recorded(recognizer: Any, client: xybridd.Client, held: Callable[[], Any]) -> None:
    kind = type(recognizer)
    before = kind.decode_stream, kind.decode_streams
    without = heard(recognizer, 1)
    recognizer.decode_stream(without)
    xybridd.instrument("sherpa_onnx", client)
    one, two, three = (heard(recognizer, seconds) for seconds in (1, 2, 3))
    assert recognizer.decode_stream(s=one) is None
    assert one.result.text == without.result.text != ""
    recognizer.decode_streams([two, three])
    with pytest.raises(TypeError):
        recognizer.decode_stream("no stream")
    xybridd.uninstrument("sherpa_onnx")
    assert before == (kind.decode_stream, kind.decode_streams)
    recognizer.decode_stream(heard(recognizer, 1))
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (2, 1)
    stats = found["extensions"]["models"]["tiny-tdnn@"]["stats"]
    assert stats["hardware_used"] == {"cpu": 2}
    assert stats["output_tokens"]["total"] == sum(len(stream.result.tokens) for stream in (one, two, three))
