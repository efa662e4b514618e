"""``xybridd completion``: what makes a shell complete commands and options."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

#: Where each shell looks for it.
_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/xybridd",
    "zsh": "~/.zfunc/_xybridd",
    "fish": "~/.config/fish/completions/xybridd.fish",
}

#: click's variable for a program called xybridd.
_VARIABLE = "_XYBRIDD_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(tuple(_PLACES)))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options.

    Put it where the shell looks, and open a new one:

    \b
    bash   ~/.local/share/bash-completion/completions/xybridd
    zsh    ~/.zfunc/_xybridd, with fpath+=~/.zfunc before compinit
    fish   ~/.config/fish/completions/xybridd.fish

    \b
    Example:  xybridd completion fish > ~/.config/fish/completions/xybridd.fish
    """
    from xybridd.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has the three that may be chosen
    click.echo(kind(cli, {}, "xybridd", _VARIABLE).source())
    if sys.stdout.isatty():
        click.echo(f"put this into {_PLACES[shell]}: xybridd completion {shell} > {_PLACES[shell]}", err=True)
