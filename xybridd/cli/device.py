"""``xybridd device``: what the machine is, how sure that is, and where it comes from."""

from __future__ import annotations

import io
import re
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from xybridd.cli.device_history import history
from xybridd.cli.output import call, console, daemon, json_option, on_terminal, print_json, size
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from rich.console import Group

    from xybridd.core.capabilities import DeviceState, Reading
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
            console().print(_page(shown, advice))
        return
    with _unpacked(root) as folder:
        state, tree = _probe(folder)
    shown = _shown(state)
    if as_json:
        looked = [{"path": each.path, "said": each.said} for each in tree.looked]
        print_json(shown | ({"looked": looked} if explain else {}))
        return
    console().print(_page(shown, None))
    if explain:
        for each in tree.looked:
            click.echo(f"{each.path}: {each.said}")


def _probe(root: Path | None) -> tuple[DeviceState, Tree]:
    """Run the probes in this process, without a daemon."""
    from xybridd.core.capabilities import DeviceState, capabilities_from
    from xybridd.probes.register import PROBES
    from xybridd.probes.tree import Tree

    tree = Tree() if root is None else Tree(root)
    readings: dict[str, Reading] = {}
    for probe in PROBES:
        readings |= probe.read(tree, time.monotonic())
    return DeviceState(capabilities_from(readings), readings), tree


def _shown(state: DeviceState) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(state.capabilities)
    shown["details"] = state.details(time.monotonic())
    return shown


class _unpacked:  # noqa: N801 - used like a function
    """A recorded tree as a folder; a .tar is unpacked for as long as it is needed."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._made: Any = None

    def __enter__(self) -> Path | None:
        if self._root is None or self._root.is_dir():
            return self._root
        import tempfile

        self._made = tempfile.TemporaryDirectory()
        try:
            with tarfile.open(self._root) as tar:
                tar.extractall(self._made.name, filter="data")
        except (tarfile.TarError, OSError) as error:
            self._made.cleanup()
            raise XybriddError(f"{self._root} is no recorded tree: {error}") from error
        return Path(self._made.name)

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


def _watch(*, as_json: bool) -> None:
    connection = daemon()
    try:
        now = connection.call("device.watch")
        _tell(now, as_json=as_json)
        while True:
            for answer in connection.receive(3600):
                if answer.method == "device.changed":
                    _tell(msgspec.json.decode(answer.params), as_json=as_json)
    finally:
        connection.close()


def _tell(now: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(now).decode())
        return
    if on_terminal():
        click.clear()
    console().print(_page(now["capabilities"], now["advice"]))


device.add_command(history)


@device.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def record(out: Path) -> None:
    """Write the files that the probes read into OUT (a .tar), as a tree to replay elsewhere.

    Serial numbers, host names and hardware addresses are taken out. Read it before you send it.

    \b
    Example:  xybridd device record my-board.tar
    """
    _, tree = _probe(None)
    looked = {each.path for each in tree.looked if each.said != "not there"}
    paths = sorted(path for path in looked if not any(other.startswith(f"{path}/") for other in looked))
    with tarfile.open(out, "w") as tar:
        for path in paths:
            _add(tar, Path(path))
    click.echo(f"{out}: {len(paths)} files; replay it with: xybridd device --root {out}")


#: Lines of a file that tell one machine from another of its kind.
_TELLING = re.compile(rb"(?im)^(.*(?:serial|uuid|mac|address|hostname)[^=:\n]*[=:]).*$")


#: Addresses in the tables of routes, by the file: all but the one that means "anywhere".
_ROUTES = {
    "proc/net/route": (re.compile(rb"\b(?!0{8}\b)[0-9A-Fa-f]{8}\b"), b"04030201"),
    "proc/net/ipv6_route": (re.compile(rb"\b(?!0{32}\b)[0-9A-Fa-f]{32}\b"), b"20010db8" + b"0" * 23 + b"1"),
}


def _anonymous(name: str, content: bytes) -> bytes:
    if name in _ROUTES:
        pattern, instead = _ROUTES[name]
        return pattern.sub(instead, content)
    return _TELLING.sub(rb"\1 redacted", content)


def _add(tar: tarfile.TarFile, path: Path) -> None:
    name = str(path).lstrip("/")
    try:
        if path.is_symlink():
            info = tarfile.TarInfo(name)
            # Of a link only its last part is read, such as the name of a driver; the rest leads out of the tree.
            info.type, info.linkname = tarfile.SYMTYPE, path.readlink().name
            tar.addfile(info)
        elif path.is_dir():
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        elif not path.is_file():
            tar.addfile(tarfile.TarInfo(name))  # a device node: that it is there is all that is looked at
        else:
            content = _anonymous(name, path.read_bytes())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    except OSError as error:
        click.echo(f"left out: {path}: {error.strerror}", err=True)


# How it looks


def _page(shown: dict[str, Any], advice: dict[str, Any] | None) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "what was found", "sure", "from"):
        table.add_column(title, overflow="fold")
    for name, reading in shown["details"].items():
        for number, line in enumerate(_lines(name, reading)):
            first = number == 0
            table.add_row(
                name.replace("_", " ") if first else "",
                escape(line),
                reading["confidence"] if first else "",
                f"[dim]{escape(reading['source'] or '')}[/]" if first else "",
            )
    parts: list[Any] = [table]
    if advice is not None:
        throttle = "[red]slow down[/]" if advice["should_throttle"] else "[green]no need to slow down[/]"
        reasons = f" [dim]({escape('; '.join(advice['reasons']))})[/]" if advice["reasons"] else ""
        parts += ["", f"advice: {throttle}, prefer the {advice['prefer']}{reasons}"]
    return Group(*parts)


def _lines(name: str, reading: dict[str, Any]) -> list[str]:
    value, reason = reading["value"], reading.get("reason")
    if value is None:
        text = "unknown" if reading["confidence"] == "unknown" else "none"
        return [f"{text}: {reason}" if reason else text]
    if isinstance(value, list):
        return [line for each in value for line in _entry(each)]
    if isinstance(value, dict):
        return _entry(value) or ["none"]
    if name == "cpu_usage_percent":
        return [f"{value:.0f} %"]
    return [str(value) if value != "" else "none"]


#: A list within an entry, such as the sensors of the chip, is shown up to here; ``--json`` has all of it.
_MOST_SHOWN = 8


def _entry(entry: dict[str, Any]) -> list[str]:
    """What is known of one thing: a line, and one for each of what it is made of."""
    parts = [str(entry[key]) for key in ("name", "vendor") if entry.get(key)]
    below = []
    for key, value in entry.items():
        label = key.removesuffix("_bytes").removesuffix("_percent").replace("_", " ")
        if key in {"name", "vendor"} or value is None or value is False or value in ("", [], {}):
            continue
        if isinstance(value, list):
            if all(isinstance(each, dict) for each in value):
                below += [f"  {line}" for each in value[:_MOST_SHOWN] for line in _entry(each)]
            else:
                parts.append(f"{label}: {', '.join(map(str, value))}")
        elif isinstance(value, dict):
            inner = ", ".join(_entry(value))
            parts += [f"{label}: {inner}"] if inner else []
        elif key.endswith("_bytes"):
            parts.append(f"{label} {size(value)}")
        elif key.endswith("_percent"):
            parts.append(f"{label} {value:.0f} %")
        elif key.endswith("_c"):
            parts.append(f"{label.removesuffix(' c')} {value:g} °C")
        else:
            parts.append(label if value is True else f"{label} {value}")
    return ([", ".join(parts)] if parts else []) + below
