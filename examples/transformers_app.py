"""Every call of a pipeline of transformers, recorded with one line.

    pip install torch transformers
    python examples/transformers_app.py

The model is a tiny one with random weights, made here; nothing is downloaded, and what it says means nothing.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import xybridd

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very")


def tiny_pipeline(transformers: Any, folder: Path) -> Any:
    """A classifier of eight words, saved and loaded as a real one is."""
    words = folder / "vocab.txt"
    words.write_text("\n".join(WORDS))
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    place = folder / "tiny-bert"
    transformers.BertForSequenceClassification(config).save_pretrained(place)
    transformers.BertTokenizer(str(words)).save_pretrained(place)
    return transformers.pipeline("text-classification", model=str(place), device="cpu")


def main() -> None:
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        sys.exit(f"{missing[0]} is not installed here: pip install torch transformers")
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = importlib.import_module("transformers")
    telemetry = xybridd.connect(app="transformers-app")
    xybridd.instrument("transformers", telemetry)
    with tempfile.TemporaryDirectory() as made:
        classify = tiny_pipeline(transformers, Path(made))
        for _ in range(10):
            (answer,) = classify("very good")
        print(f"10 calls, the last says {answer['label']} ({answer['score']:.2f})")
        try:
            classify(17)
        except (TypeError, ValueError) as error:
            print(f"and one that fails: {str(error).splitlines()[0]}")
    if not telemetry.close(timeout_s=2):
        print("the telemetry daemon did not answer in time", file=sys.stderr)


if __name__ == "__main__":
    main()
