"""What the fuzzer kept, and what is known to hurt, is fed to every target; hypothesis makes up some more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")

DEEP = 100_000
#: Shapes that are hard on parsers, whatever they parse.
HARD = [
    b"", b"\x00", b"\xff" * 64, b"[" * DEEP, b'{"a":' * DEEP, b"\x91" * DEEP, b"\x81\xa1a" * DEEP, b"a=" + b"[" * DEEP,
    b'{"method":' + b"[" * DEEP, b"x" + b"[" * DEEP, b"1" * 5000, b'{"a":' + b"9" * 5000 + b"}", b"\xed\xa0\x80",
    b'"\\ud800"', b"1e999999", b"\n" * 5000, b"\x0a" + b"\x80" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_is_borne(name: str) -> None:
    found = sorted((CORPUS / name).iterdir())
    assert found, "the corpus of this target is empty"
    for each in found:
        try:
            TARGETS[name](each.read_bytes())
        except BaseException as error:
            error.add_note(each.name)
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_hard_shapes_are_borne(name: str) -> None:
    for data in HARD:
        TARGETS[name](data)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "trees"])
@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))))
def test_made_up_bytes_are_borne(name: str, data: bytes) -> None:
    TARGETS[name](data)
