"""Whatever lies at a path, reading it raises nothing, and absent is not the same as broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.probes.given import FOLDER, Link, tree

if TYPE_CHECKING:
    from pathlib import Path

    from xybridd.probes.tree import Tree


@pytest.fixture
def odd(tmp_path: Path) -> Tree:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    return tree(
        root,
        {
            "/sys/number": "42",
            "/sys/hex": "0x1F",
            "/sys/words": " two words ",
            "/sys/junk": b"\xff\xfe\x00",
            "/sys/nul": b"a\0b",
            "/sys/folder": FOLDER,
            "/sys/loop": Link("loop"),
            "/sys/out": Link("../../outside"),
            "/sys/driver": Link("../../bus/pci/drivers/amdgpu"),
            "/sys/c10": "x",
            "/sys/c9": "x",
        },
    )


@pytest.mark.parametrize(("path", "value"), [("/sys/number", 42), ("/sys/hex", 31)])
def test_numbers(odd: Tree, path: str, value: int) -> None:
    assert odd.number(path).value == value


def test_text_is_without_the_space_around_it(odd: Tree) -> None:
    assert odd.text("/sys/words").value == "two words"


@pytest.mark.parametrize("path", ["/sys/junk", "/sys/nul", "/sys/folder", "/sys/loop", "/sys/number/below/loop"])
def test_what_cannot_be_read_is_a_problem_or_absent_and_never_raises(odd: Tree, path: str) -> None:
    found = odd.text(path)
    assert found.value is None
    assert (found.problem is None) == path.startswith("/sys/number")


def test_absent_is_no_problem(odd: Tree) -> None:
    found = odd.text("/sys/nothing")
    assert (found.value, found.problem) == (None, None)


def test_a_word_is_no_number(odd: Tree) -> None:
    found = odd.number("/sys/words")
    assert found.value is None
    assert found.problem is not None
    assert "two words" in found.problem


def test_a_link_out_of_a_recorded_tree_leads_nowhere(odd: Tree) -> None:
    assert odd.text("/sys/out").value is None


def test_of_a_link_its_last_part(odd: Tree) -> None:
    assert odd.link("/sys/driver") == "amdgpu"
    assert odd.link("/sys/number") is None


def test_names_are_sorted_as_people_count(odd: Tree) -> None:
    names = odd.names("/sys")
    assert names.index("c9") < names.index("c10")
    assert odd.names("/sys/number") == []
    assert odd.names("/nowhere") == []


def test_everything_looked_at_is_noted(odd: Tree) -> None:
    odd.text("/sys/number")
    odd.text("/sys/nothing")
    assert [(each.path, each.said) for each in odd.looked] == [("/sys/number", "42"), ("/sys/nothing", "not there")]
