"""Every command that a document shows is one that exists, with the options that it is shown with."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from xybridd.cli.main import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Up to where a comment, another command or the end of a piece of code begins.
SHOWN = re.compile(r"(?:(?<=`)|(?<=    )|(?<=\$ )|(?<=\| ))xybridd ([^`#|\n]+)")


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that they name, and the words behind its name."""
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_shown_exist(document: Path) -> None:
    for shown in SHOWN.findall(document.read_text("utf-8")):
        words = shown.split()
        command, rest = resolved(words)
        leaf = not isinstance(command, click.Group) or command.invoke_without_command
        bare = not rest or rest[0].startswith("-")
        assert leaf or bare, f"{document.name}: xybridd {shown}"
        options = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        } | {"--help"}
        for word in rest:
            assert not word.startswith("--") or word.partition("=")[0] in options, f"{document.name}: xybridd {shown}"


def test_the_search_finds_commands() -> None:
    found = [shown for path in DOCUMENTS for shown in SHOWN.findall(path.read_text("utf-8"))]
    assert any(shown.startswith("upload dead replay") for shown in found)
    assert any(shown.startswith("import -") for shown in found)
