"""The real llama.cpp on a real (tiny, random) model, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import xybridd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WIDTH, CONTEXT = 32, 64


def write_model(path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="the package `gguf` is not installed")
    numpy: Any = pytest.importorskip("numpy", reason="numpy is not installed")
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), b"\xe2\x96\x81", b"a"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    draw = numpy.random.default_rng(1)
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in square}
    shapes |= {"token_embd.weight": (len(tokens), WIDTH), "output.weight": (len(tokens), WIDTH)}
    shapes |= dict.fromkeys(("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"), (WIDTH,))
    for name, shape in shapes.items():
        writer.add_tensor(name, draw.standard_normal(shape).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def llama(folder: Path) -> Iterator[Any]:
    library: Any = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    write_model(folder / "tiny.gguf")
    made = library.Llama(str(folder / "tiny.gguf"), n_ctx=CONTEXT, n_threads=1, verbose=False, seed=1)
    yield made
    made.close()


def test_completions_chats_and_streams_are_recorded_once_each(
    llama: Any, client: xybridd.Client, held: Callable[[], Any]
) -> None:
    before = dict(vars(type(llama)))
    asked: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "logit_bias": {2: -100.0}}
    without = llama("a", **asked)["choices"]
    xybridd.instrument("llama_cpp", client)
    answer = llama("a", **asked)
    assert answer["choices"] == without
    chat = llama.create_chat_completion([{"role": "user", "content": "a"}], **asked)
    stream = llama.create_completion("a", stream=True, **asked)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="exceed context window"):
        llama("a" * 2000, **asked)
    xybridd.uninstrument("llama_cpp")
    assert all(vars(type(llama))[name] is value for name, value in before.items())
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (3, 1)
    stats = found["extensions"]["models"]["tiny@"]["stats"]
    whole = sum(one["usage"]["completion_tokens"] for one in (answer, chat))
    assert whole <= stats["output_tokens"]["total"] <= whole + 1
    assert stats["tokens_per_second"]["max"] > 0
