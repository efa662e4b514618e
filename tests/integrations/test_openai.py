"""The real `openai` package against a real server on loopback."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.integrations.api_server import WORDS, ApiServer
from xybridd.integrations.openai import RESOURCES, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

openai: Any = pytest.importorskip("openai", reason="the package `openai` is not installed (extra `dev`)")

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "count"}]}
TEXT = "".join(WORDS)


@pytest.fixture
def address() -> Iterator[str]:
    with ApiServer() as address:
        yield address


@pytest.fixture
def api(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as made:
        yield made


def stats_of(found: Any, model: str = "m") -> Any:
    return found["extensions"]["models"][f"{model}@"]["stats"]


def said(pieces: Any) -> str:
    return "".join(piece.choices[0].delta.content for piece in pieces if piece.choices)


def test_plain_answers_are_the_same_and_are_recorded_with_their_usage(
    api: Any, client: xybridd.Client, held: Callable[[], Any]
) -> None:
    def ask() -> list[Any]:
        return [
            api.chat.completions.create(model="m", **ASKED),
            api.completions.create(model="text", prompt="count"),
            api.embeddings.create(model="vectors", input="count", encoding_format="float"),
        ]

    without = ask()
    xybridd.instrument("openai", client)
    assert ask() == without
    found = held()
    assert found["total_inferences"] == 3
    for model in ("m", "text"):
        stats = stats_of(found, model)
        assert (stats["input_tokens"]["total"], stats["output_tokens"]["total"]) == (11, 5)
        assert stats["execution_target"] == {"local": 1}
        assert stats["tokens_per_second"]["max"] > 0
    assert stats_of(found, "vectors")["input_tokens"]["total"] == 3
    assert "output_tokens" not in stats_of(found, "vectors")


def test_an_answer_without_usage_is_recorded_without(api: Any, client: xybridd.Client, held: Callable[[], Any]) -> None:
    xybridd.instrument("openai", client)
    assert api.chat.completions.create(model="no-usage", **ASKED).usage is None
    assert "output_tokens" not in stats_of(held(), "no-usage")


@pytest.mark.parametrize(("options", "given", "made"), [({"include_usage": True}, 11, 5), (None, None, 4)])
def test_a_stream_is_counted_by_its_usage_else_by_its_pieces(
    api: Any, client: xybridd.Client, held: Callable[[], Any], options: Any, given: int | None, made: int
) -> None:
    more = {} if options is None else {"stream_options": options}
    xybridd.instrument("openai", client)
    stream = api.chat.completions.create(model="m", stream=True, **ASKED, **more)
    assert isinstance(stream, openai.Stream)
    assert said(stream) == TEXT
    stream.close()
    found = held()
    assert found["total_inferences"] == 1
    stats = stats_of(found)
    assert stats["output_tokens"]["total"] == made
    assert stats.get("input_tokens", {}).get("total") == given
    latency_ms = found["extensions"]["models"]["m@"]["latency_ms"]["max"]
    assert 0 < stats["time_to_first_token_ms"]["max"] <= latency_ms
    assert stats["tokens_per_second"]["max"] > 0


def test_a_stream_of_plain_completions_is_counted(api: Any, client: xybridd.Client, held: Callable[[], Any]) -> None:
    xybridd.instrument("openai", client)
    with api.completions.create(model="m", prompt="count", stream=True) as stream:
        assert "".join(piece.choices[0].text for piece in stream) == TEXT
    assert stats_of(held())["output_tokens"]["total"] == 4


@pytest.mark.parametrize("how", ["closed", "left", "forgotten"])
def test_a_stream_that_is_left_early_is_recorded_once_as_what_it_made(
    api: Any, client: xybridd.Client, held: Callable[[], Any], how: str
) -> None:
    xybridd.instrument("openai", client)
    stream = api.chat.completions.create(model="m", stream=True, **ASKED)
    assert said([next(stream), next(stream), next(stream)]) == "One two"
    if how == "closed":
        stream.close()
    elif how == "left":
        with stream:
            pass
    del stream
    gc.collect()
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (1, 0)
    assert stats_of(found)["output_tokens"]["total"] == 2


def test_a_stream_that_breaks_is_an_error(api: Any, client: xybridd.Client, held: Callable[[], Any]) -> None:
    xybridd.instrument("openai", client)
    stream = api.chat.completions.create(model="breaks", stream=True, **ASKED)
    with pytest.raises(openai.APIError, match="ran out of memory"):
        said(stream)
    stream.close()
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (0, 1)
    assert found["by_model"]["breaks@"]["error_count"] == 1


@pytest.mark.parametrize(
    ("status", "category"),
    [(400, "Preprocessing"), (404, "ModelLoading"), (429, "Unknown"), (500, "Inference")],
)
def test_a_refusal_is_recorded_and_is_the_one_of_the_library(
    api: Any, client: xybridd.Client, held: Callable[[], Any], status: int, category: str
) -> None:
    def fail() -> Any:
        with pytest.raises(openai.APIStatusError) as raised:
            api.chat.completions.create(model=f"fails-{status}", **ASKED)
        return raised.value

    without = fail()
    xybridd.instrument("openai", client)
    error = fail()
    assert (type(error), str(error), error.status_code) == (type(without), str(without), status)
    found = held()
    assert found["total_inferences"] == 0
    assert [error["category"] for error in found["errors"]] == [category]


def test_nobody_at_the_address_is_an_error_of_the_network(
    address: str, client: xybridd.Client, held: Callable[[], Any]
) -> None:
    xybridd.instrument("openai", client)
    nobody = address.replace(address.rsplit(":", 1)[1], "1/v1")
    with (
        openai.OpenAI(base_url=nobody, api_key="none", max_retries=0) as api,
        pytest.raises(openai.APIConnectionError),
    ):
        api.embeddings.create(model="m", input="count")
    assert [error["category"] for error in held()["errors"]] == ["Network"]


def test_the_same_in_a_loop(address: str, client: xybridd.Client, held: Callable[[], Any]) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as api:
            answers = await asyncio.gather(*(api.chat.completions.create(model="m", **ASKED) for _ in range(3)))
            assert [answer.choices[0].message.content for answer in answers] == [TEXT] * 3
            await api.embeddings.create(model="vectors", input="count", encoding_format="float")
            stream = await api.chat.completions.create(
                model="whole", stream=True, stream_options={"include_usage": True}, **ASKED
            )
            assert isinstance(stream, openai.AsyncStream)
            assert said([piece async for piece in stream]) == TEXT
            early = await api.chat.completions.create(model="early", stream=True, **ASKED)
            await anext(early)
            await anext(early)
            await early.close()
            with pytest.raises(openai.RateLimitError):
                await api.completions.create(model="fails-429", prompt="count")

    xybridd.instrument("openai", client)
    asyncio.run(ask())
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (6, 1)
    assert found["by_model"]["m@"]["call_count"] == 3
    assert stats_of(found, "whole")["output_tokens"]["total"] == 5
    assert stats_of(found, "early")["output_tokens"]["total"] == 1
    assert stats_of(found, "vectors")["input_tokens"]["total"] == 3


def test_uninstrumenting_restores_every_function(api: Any, client: xybridd.Client, held: Callable[[], Any]) -> None:
    import importlib  # noqa: PLC0415

    owners = [getattr(importlib.import_module(module), name) for module, name in RESOURCES]
    owners += [openai.Stream, openai.AsyncStream]
    before = [dict(vars(owner)) for owner in owners]
    xybridd.instrument("openai", client)
    xybridd.instrument("openai", client)
    api.chat.completions.create(model="m", **ASKED)
    assert [vars(owner) == names for owner, names in zip(owners, before, strict=True)] == [False] * 8
    xybridd.uninstrument("openai")
    for owner, names in zip(owners, before, strict=True):
        assert all(vars(owner)[name] is value for name, value in names.items())
    api.chat.completions.create(model="m", **ASKED)
    assert held()["total_inferences"] == 1


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1", "local"),
        ("localhost", "local"),
        ("::1", "local"),
        ("192.168.1.20", "local"),
        ("10.0.0.7", "local"),
        ("jetson.local", "local"),
        ("api.openai.com", "cloud"),
        ("8.8.8.8", "cloud"),
        ("", "cloud"),
    ],
)
def test_local_is_this_machine_and_its_network(host: str, target: str) -> None:
    assert target_of(host) == target
