"""A Whisper model as small as can be, with random weights, in the form that CTranslate2 takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 8

#: Text first, as in the real ones: whatever is at or behind the end of the text is none.
SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>"),
    *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
TIMES = tuple(f"<|{step * 0.02:.2f}|>" for step in range(1501))


def write_model(folder: Path) -> None:
    specs: Any = pytest.importorskip("ctranslate2.specs", reason="faster-whisper is not installed")
    numpy: Any = pytest.importorskip("numpy")
    tokenizers: Any = pytest.importorskip("tokenizers")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *SPECIAL, *TIMES]
    spec = specs.WhisperSpec(1, 1, 1, 1)
    draw = numpy.random.default_rng(1)

    def of(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(numpy.float32)

    def linear(layer: Any, rows: int, columns: int) -> None:
        layer.weight, layer.bias = of(rows, columns), of(rows)

    def attention(layer: Any, *rows: int) -> None:
        for one, count in zip(layer.linear, rows, strict=True):
            linear(one, count, WIDTH)
        norm(layer.layer_norm)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = of(WIDTH), of(WIDTH)

    for side, positions in ((spec.encoder, 1500), (spec.decoder, 448)):
        side.position_encodings.encodings = of(positions, WIDTH)
        norm(side.layer_norm)
        attention(side.layer[0].self_attention, 3 * WIDTH, WIDTH)
        linear(side.layer[0].ffn.linear_0, WIDTH, WIDTH)
        linear(side.layer[0].ffn.linear_1, WIDTH, WIDTH)
        norm(side.layer[0].ffn.layer_norm)
    attention(spec.decoder.layer[0].attention, WIDTH, 2 * WIDTH, WIDTH)
    for conv, channels in ((spec.encoder.conv1, 80), (spec.encoder.conv2, WIDTH)):
        conv.weight, conv.bias = of(WIDTH, channels, 3), of(WIDTH)
    spec.decoder.embeddings.weight = of(len(words), WIDTH)
    spec.decoder.projection.weight = of(len(words), WIDTH)
    spec.register_vocabulary(words)
    spec.config.suppress_ids = spec.config.suppress_ids_begin = spec.config.lang_ids = []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    folder.mkdir()
    spec.save(str(folder))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *TIMES])
    tokenizer.save(str(folder / "tokenizer.json"))
