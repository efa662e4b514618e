"""The two calls of the user, for whichever library."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from xybridd.integrations import register
from xybridd.integrations.calls import Call
from xybridd.integrations.wrapping import Watch

if TYPE_CHECKING:
    from collections.abc import Callable


class Model:
    def run(self, number: int, *, fail: bool = False) -> int:
        """Twice the number."""
        if fail:
            raise LookupError("no such number")
        return self.deeper(number)

    def deeper(self, number: int) -> int:
        return 2 * number


class Plain:
    def begin(self, client: xybridd.Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        return Call(client, "plain", "1")

    def end(self, call: Call, result: Any) -> Any:
        call.finish()
        return result

    def category(self, error: Exception) -> str | None:  # noqa: ARG002
        return "preprocessing"


class Broken(Plain):
    """A reading of ours that fails wherever it can."""

    def end(self, call: Call, result: Any) -> Any:  # noqa: ARG002
        raise ZeroDivisionError

    def category(self, error: Exception) -> str | None:  # noqa: ARG002
        raise ZeroDivisionError


class BrokenAtOnce(Plain):
    def begin(self, client: xybridd.Client, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:  # noqa: ARG002
        raise ZeroDivisionError


@pytest.mark.parametrize("call", [xybridd.instrument, xybridd.uninstrument])
def test_an_unknown_name_is_answered_with_the_known_ones(call: Callable[[str], None]) -> None:
    with pytest.raises(
        ValueError,
        match=r"'tensorfloat' is nothing .*: faster_whisper, llama_cpp, onnxruntime, openai, sherpa_onnx, transformers",
    ):
        call("tensorfloat")


def test_a_library_that_is_not_installed_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "INTEGRATIONS", (("no_such_library", "no-such-library"),))
    with pytest.raises(ImportError, match=r"not installed here \(pip install no-such-library\)"):
        xybridd.instrument("no_such_library")


def test_what_was_never_instrumented_is_uninstrumented_without_a_word() -> None:
    xybridd.uninstrument("onnxruntime")


def test_a_wrapped_method_is_recorded_and_looks_and_acts_as_before(
    client: xybridd.Client, held: Callable[[], Any]
) -> None:
    original = Model.run
    watch = Watch("test", lambda: client)
    watch.wrap(Model, "run", Plain())
    watch.wrap(Model, "deeper", Plain())
    ours = Model.run
    assert inspect.signature(ours) == inspect.signature(original)
    assert (ours.__name__, ours.__doc__) == (original.__name__, original.__doc__)
    assert Model().run(4) == 8
    with pytest.raises(LookupError, match="no such number"):
        Model().run(4, fail=True)
    watch.undo()
    assert Model.run is original
    assert ours(Model(), 4) == 8  # somebody may still hold it
    found = held()
    assert found["total_inferences"] == 1
    assert [(error["category"], error["message"]) for error in found["errors"]] == [
        ("Preprocessing", "LookupError: no such number")
    ]


def test_a_reading_of_ours_that_fails_is_no_matter_of_the_app(client: xybridd.Client, held: Callable[[], Any]) -> None:
    for reading in (Broken(), BrokenAtOnce()):
        watch = Watch("test", lambda: client)
        watch.wrap(Model, "run", reading)
        assert Model().run(4) == 8
        with pytest.raises(LookupError):
            Model().run(4, fail=True)
        watch.undo()
    found = held()
    assert (found["total_inferences"], found["error_count"]) == (1, 1)


def test_what_others_wrapped_since_then_is_left_to_them(client: xybridd.Client, held: Callable[[], Any]) -> None:
    original = Model.run
    watch = Watch("test", lambda: client)
    watch.wrap(Model, "run", Plain())
    ours = Model.run

    def theirs(self: Model, number: int) -> int:
        return 1 + ours(self, number)

    Model.run = theirs  # type: ignore[method-assign,assignment]
    try:
        watch.undo()
        assert Model.run is theirs
        assert Model().run(4) == 9
        assert held()["total_inferences"] == 0
    finally:
        Model.run = original  # type: ignore[method-assign]
