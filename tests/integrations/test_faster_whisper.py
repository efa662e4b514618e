"""The real faster_whisper on a real (tiny, random) model, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.integrations.tiny_whisper import write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED: dict[str, Any] = {"beam_size": 1, "temperature": 0, "max_new_tokens": 8, "without_timestamps": True}


@pytest.fixture
def library(folder: Path) -> Any:
    library: Any = pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    pytest.importorskip("tqdm").tqdm.monitor_interval = 0  # its bars, seen or not, leave a thread behind
    write_model(folder / "tiny-whisper")
    return library


@pytest.fixture
def audio() -> Any:
    """So long that it takes two windows of thirty seconds, of which each is at least one segment."""
    numpy: Any = pytest.importorskip("numpy")
    return numpy.random.default_rng(1).standard_normal(16_000 * 50).astype(numpy.float32) * 0.1


def load(library: Any, folder: Path) -> Any:
    return library.WhisperModel(str(folder / "tiny-whisper"), device="cpu", cpu_threads=1)


def test_transcriptions_are_recorded_with_their_last_segment(
    library: Any, audio: Any, client: xybridd.Client, held: Callable[[], Any], folder: Path
) -> None:
    model = library.WhisperModel
    before = model.__init__, model.transcribe, library.BatchedInferencePipeline.transcribe
    without = [segment.text for segment in load(library, folder).transcribe(audio, **ASKED)[0]]
    xybridd.instrument("faster_whisper", client)
    whisper = load(library, folder)
    segments, info = whisper.transcribe(audio, **ASKED)
    assert info.duration == 50
    assert held()["total_inferences"] == 0
    whole = list(segments)
    assert [segment.text for segment in whole] == without
    clips = [{"start": 0, "end": 20}, {"start": 20, "end": 40}]
    batched = library.BatchedInferencePipeline(whisper)
    whole += batched.transcribe(audio, vad_filter=False, clip_timestamps=clips, **ASKED)[0]
    with pytest.raises(ValueError, match="read"):
        whisper.transcribe(17, **ASKED)
    xybridd.uninstrument("faster_whisper")
    assert before == (model.__init__, model.transcribe, library.BatchedInferencePipeline.transcribe)
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (2, 1)
    stats = found["extensions"]["models"]["tiny-whisper@"]["stats"]
    assert stats["hardware_used"] == {"cpu": 2}
    assert stats["output_tokens"]["total"] == sum(len(segment.tokens) for segment in whole) > 0


def test_one_that_is_left_early_is_recorded_and_one_loaded_before_has_no_name(
    library: Any, audio: Any, client: xybridd.Client, held: Callable[[], Any], folder: Path
) -> None:
    whisper = load(library, folder)
    xybridd.instrument("faster_whisper", client)
    segments, _ = whisper.transcribe(audio, **ASKED)
    first = next(segments)
    segments.close()
    found = held()
    assert found["total_inferences"] == 1
    stats = found["extensions"]["models"]["whisper@"]["stats"]
    assert stats["output_tokens"]["total"] == len(first.tokens)
