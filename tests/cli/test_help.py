"""Every command's help: it fits a screen, and shows how the command is called."""

from __future__ import annotations

import click
import pytest

from xybridd.cli import help as help_pages
from xybridd.cli.main import _COMMANDS, cli

EVERY = help_pages.every_command(cli)

SCREEN_ROWS, SCREEN_COLUMNS = 24, 80


def told(command: click.Command, ctx: click.Context) -> list[str]:
    return command.get_help(ctx).splitlines()


@pytest.mark.parametrize(("path", "command", "ctx"), EVERY, ids=[path for path, *_ in EVERY])
def test_help_fits_a_screen_with_an_example(path: str, command: click.Command, ctx: click.Context) -> None:
    lines = told(command, ctx)
    assert len(lines) <= SCREEN_ROWS, f"xybridd {path} has {len(lines)} rows of help"
    assert max(len(line) for line in lines) <= SCREEN_COLUMNS
    examples = help_pages.examples_of(command)
    assert examples, "no Example: in its help"
    # A group may show one of its commands.
    assert any(path in example for example in examples), examples


def test_the_first_page_names_every_command() -> None:
    text = "\n".join(told(cli, EVERY[0][2]))
    words = text.split()
    assert [name for name in _COMMANDS if name not in words] == []


def test_the_first_page_would_fit_with_everything_that_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = {name: says for _group, briefs in help_pages.GROUPS for name, says in briefs.items()}
    lines = help_pages.root_help(cli, EVERY[0][2], planned).splitlines()
    assert len(lines) <= SCREEN_ROWS
    assert max(len(line) for line in lines) <= SCREEN_COLUMNS
    monkeypatch.setattr(help_pages, "GROUPS", ())
    unplaced = help_pages.root_help(
        cli, EVERY[0][2], {"new-one": "What nobody has found a place for yet, in a long line."}
    )
    assert "more" in unplaced
    assert "new-one" in unplaced
    assert max(len(line) for line in unplaced.splitlines()) <= SCREEN_COLUMNS


def test_a_narrow_terminal_gets_one_column() -> None:
    ctx = click.Context(cli, info_name="xybridd", terminal_width=40)
    text = help_pages.root_help(cli, ctx, _COMMANDS)
    assert "daemon:\n  run  " in text
    assert max(len(line) for line in text.partition("daemon:")[2].splitlines() if line.startswith("  ")) <= 40
