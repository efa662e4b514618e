"""``xybridd paths``: where everything is, for a backup, a look, a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xybridd.cli.output import console, json_option, plain, print_json


@click.command()
@json_option
def paths(*, as_json: bool) -> None:
    """Say where socket, data, config, rings and spool are, and whether they are there.

    Of the daemon that runs; where none does, of one that would be started from here.

    \b
    Example:  xybridd paths --json
    """
    found = _gather()
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for each in found:
        table.add_row(each["what"], plain(each["path"]) + ("" if each["exists"] else "  [dim](not there)[/]"))
    console().print(table)


def _gather() -> list[dict[str, Any]]:
    from xybridd.cli.checks.scene import look_around
    from xybridd.paths import client_sockets, config_files, ring_folder, spool_folder

    scene = look_around()
    sockets = (scene.connected,) if scene.connected else client_sockets()
    config = Path(scene.config_path) if scene.config_path else config_files()[0]
    found = [*(("socket", path) for path in sockets), ("data", scene.data), ("config", config)]
    found += [("rings", ring_folder()), ("spool", spool_folder())]
    return [{"what": what, "path": str(path), "exists": _there(path)} for what, path in found]


def _there(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
