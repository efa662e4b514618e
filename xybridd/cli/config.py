"""``xybridd config``: what is set, where it comes from, whether a file is sound."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from xybridd import config as configuration
from xybridd.cli.output import console, json_option, print_json
from xybridd.core.address import shown_url
from xybridd.errors import XybriddError
from xybridd.paths import config_files

_file_option = click.option("--config", "name", metavar="FILE", help="This file instead of the usual ones.")


@click.group()
def config() -> None:
    """Look at the configuration. No file is needed: everything has a default.

    \b
    Example:  xybridd config show
    """


@config.command()
@_file_option
@json_option
def show(name: str | None, *, as_json: bool) -> None:
    """Every key with its value, what it means and its default.

    \b
    Example:  xybridd config show --json
    """
    loaded = configuration.load(name)
    _warn(loaded)
    keys = [_without_secrets(key) for key in configuration.keys(loaded.config)]
    if as_json:
        print_json({key.name: key.value for key in keys})
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("key", "value", "meaning"):
        table.add_column(title, overflow="fold")
    for key in keys:
        changed = key.value != key.default
        value = _shown(key.value)
        meaning = f"{key.meaning} [dim](default {_shown(key.default)})[/]" if changed else key.meaning
        table.add_row(key.name, f"[bold]{value}[/]" if changed else value, meaning)
    out = console()
    out.print(table)
    out.print(f"[dim]from {loaded.path or 'the defaults: there is no config file'}[/]")


@config.command()
@_file_option
@json_option
def path(name: str | None, *, as_json: bool) -> None:
    """Where a config file is looked for; the first that exists counts.

    \b
    Example:  xybridd config path
    """
    files = [{"path": str(file), "exists": file.exists()} for file in config_files(name)]
    if as_json:
        print_json(files)
        return
    for file in files:
        click.echo(f"{file['path']}{'' if file['exists'] else '  (not there)'}")


@config.command()
@_file_option
@json_option
def check(name: str | None, *, as_json: bool) -> None:
    """Say whether the config file can be used: exit code 0, or 5 and what is wrong with it.

    \b
    Example:  xybridd config check --config ./config.toml
    """
    loaded = configuration.load(name)
    if as_json:
        print_json({"path": loaded.path, "warnings": loaded.warnings})
        return
    _warn(loaded)
    click.echo(f"{loaded.path} is sound" if loaded.path else "there is no config file; the defaults hold")


@config.command()
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--stdout", is_flag=True, help="Print it instead of writing it.")
@_file_option
def init(name: str | None, *, force: bool, stdout: bool) -> None:
    """Write a config file with every key, its meaning and its default, all commented out.

    \b
    Example:  xybridd config init --stdout
    """
    text = configuration.as_toml(configuration.keys(configuration.Config()))
    if stdout:
        click.echo(text, nl=False)
        return
    file = config_files(name)[0]
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise XybriddError(f"{file} is there already; look at it, or replace it with --force") from error
    except OSError as error:
        raise XybriddError(f"{file} cannot be written: {error.strerror or error}") from error
    click.echo(f"{file} is written; uncomment what you want to change, then: xybridd config check")


def _warn(loaded: configuration.Loaded) -> None:
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)


def _without_secrets(key: configuration.Key) -> configuration.Key:
    """What is shown ends in issues and chats: a URL is shown without the password in it."""
    if isinstance(key.value, str) and "://" in key.value:
        return msgspec.structs.replace(key, value=shown_url(key.value))
    return key


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,g}" if isinstance(value, float) else str(value)
