"""``xybridd device``: what the machine is, how sure that is, and where it comes from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xybridd.cli.device_history import history
from xybridd.cli.output import call, console, daemon, json_option, on_terminal, print_json

if TYPE_CHECKING:
    from xybridd.core.capabilities import DeviceState
    from xybridd.probes.tree import Tree


@click.group(invoke_without_command=True)
@click.option("--watch", is_flag=True, help="Live, as it changes, until Ctrl-C.")
@click.option("--explain", is_flag=True, help="Every path that was looked at, and what it said.")
@click.option(
    "--root",
    type=click.Path(exists=True, path_type=Path),
    help="Read a recorded tree (a folder or a .tar) instead of this machine.",
)
@json_option
@click.pass_context
def device(ctx: click.Context, *, watch: bool, explain: bool, root: Path | None, as_json: bool) -> None:
    """What this device is, how sure that is, and from where.

    \b
    Example:  xybridd device --explain
    """
    if ctx.invoked_subcommand is not None:
        return
    if watch:
        _watch(as_json=as_json)
        return
    if root is None and not explain:
        shown = call("device.capabilities")
        advice = call("device.advice")
        if as_json:
            print_json(shown)
        else:
            _print(shown, advice)
        return
    from xybridd.cli.recording import unpacked

    with unpacked(root) as folder:
        state, tree = _probe(folder)
    shown = _shown(state)
    if as_json:
        looked = [{"path": each.path, "said": each.said} for each in tree.looked]
        print_json(shown | ({"looked": looked} if explain else {}))
        return
    _print(shown, None)
    if explain:
        for each in tree.looked:
            click.echo(f"{each.path}: {each.said}")


def _probe(root: Path | None) -> tuple[DeviceState, Tree]:
    """Run the probes in this process, without a daemon."""
    from xybridd.probes.recorded import open_tree
    from xybridd.probes.register import read_all

    tree = open_tree(root)
    return read_all(tree, time.monotonic()), tree


def _shown(state: DeviceState) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(state.capabilities)
    shown["details"] = state.details(time.monotonic())
    return shown


def _watch(*, as_json: bool) -> None:
    connection = daemon()
    try:
        now = connection.call("device.watch")
        _tell(now, as_json=as_json)
        while True:
            for answer in connection.receive(3600):
                if answer.method == "device.changed":
                    _tell(answer.params, as_json=as_json)
    finally:
        connection.close()


def _tell(now: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(now))
        return
    if on_terminal():
        click.clear()
    _print(now["capabilities"], now["advice"])


device.add_command(history)


@device.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--root", type=click.Path(exists=True, path_type=Path), help="Record a recorded tree again, such as a plain copy."
)
def record(out: Path, root: Path | None) -> None:
    """Write the files that the probes read into OUT (a .tar), as a tree to replay elsewhere.

    Serial numbers, host names and hardware addresses are taken out. Read it before you send it.

    \b
    Example:  xybridd device record my-board.tar
    """
    from xybridd.cli.recording import unpacked, write

    with unpacked(root) as folder:
        _, tree = _probe(folder)
        if tree.platform == "darwin":
            from xybridd.probes.macos import FOR_RECORDINGS

            for command in FOR_RECORDINGS:
                tree.output(*command)
        count, unread = write(tree, out)
    for problem in unread:
        click.echo(f"recorded as unreadable: {problem}", err=True)
    click.echo(f"{out}: {count} files; replay it with: xybridd device --root {out}")


def _print(shown: dict[str, Any], advice: dict[str, Any] | None) -> None:
    from xybridd.cli.device_page import advice_line, page

    out = console()
    out.print(page(shown["details"], out.width))
    if advice is not None:
        out.print("", advice_line(advice), sep="\n")
