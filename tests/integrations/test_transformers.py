"""A real pipeline of a real (tiny, random) model, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import xybridd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def pipeline(folder: Path) -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("tqdm").tqdm.monitor_interval = 0  # its bars, seen or not, leave a thread behind
    words = folder / "vocab.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad")
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    place = folder / "tiny-bert"
    transformers.BertForSequenceClassification(config).save_pretrained(place)
    model = transformers.BertForSequenceClassification.from_pretrained(place)
    return transformers.pipeline("text-classification", model=model, tokenizer=transformers.BertTokenizer(str(words)))


def test_calls_of_a_pipeline_are_recorded(
    pipeline: Any, client: xybridd.Client, held: Callable[[], Any], folder: Path
) -> None:
    owner = next(base for base in type(pipeline).__mro__[1:] if base.__name__ == "Pipeline")
    before = vars(owner)["__call__"]
    without = pipeline(["good", "bad"])
    xybridd.instrument("transformers", client)
    xybridd.instrument("transformers", client)
    assert pipeline(["good", "bad"]) == without
    with pytest.raises((TypeError, ValueError)):
        pipeline(17)
    xybridd.uninstrument("transformers")
    assert vars(owner)["__call__"] is before
    pipeline("good")
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (1, 1)
    model = found["extensions"]["models"][f"{folder / 'tiny-bert'}@"]
    assert model["stats"]["hardware_used"] == {"cpu": 1}
