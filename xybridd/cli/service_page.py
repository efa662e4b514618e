"""What ``xybridd service status`` gathers and shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xybridd.cli.output import console, size
from xybridd.errors import ServiceError
from xybridd.units import launchd, systemd
from xybridd.units.carry_out import run
from xybridd.units.observed import environment, observe, obstacle, surroundings
from xybridd.units.plan import unstamped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xybridd.units.observed import Surroundings
    from xybridd.units.plan import Facts, Scope


def gather(scope: Scope) -> dict[str, Any]:
    """Raises ServiceError where systemd cannot be asked."""
    around = surroundings()
    if found := obstacle(scope, around):
        raise ServiceError(found)
    facts = observe(scope)
    env = environment(scope, around)
    service, socket = (_unit(facts, name, env) for name in (systemd.SERVICE, systemd.SOCKET))
    return {
        "scope": scope,
        "installed": service["LoadState"] == "loaded",
        "running": service["ActiveState"] in {"active", "reloading"},
        "at_boot": service["UnitFileState"] == "enabled",
        "listening": socket["ActiveState"] == "active",
        "pid": int(service["MainPID"] or 0) or None,
        "since": service["ActiveEnterTimestamp"] or None,
        "restarts": int(service["NRestarts"] or 0),
        "memory_bytes": int(service["MemoryCurrent"]) if service["MemoryCurrent"].isdigit() else None,
        "result": service["Result"],
        "says": service["StatusText"] or None,
        "unit": service["FragmentPath"] or None,
        "files": _files(systemd.wanted(facts), facts.files),
        "others": list(facts.others),
        "lingers": facts.lingers if scope == "user" else None,
        "data": facts.data,
        "key_is_open": facts.key_is_open,
    }


def gather_on_mac(scope: Scope) -> dict[str, Any]:
    facts = observe(scope)
    ended = run(launchd.question(facts), environment(scope, surroundings()))
    return {
        "scope": scope,
        "installed": bool(facts.files),
        "running": ended.returncode == 0 and "state = running" in ended.stdout,
        "files": _files(launchd.wanted(facts), facts.files),
        "data": facts.data,
    }


def _unit(facts: Facts, name: str, env: Mapping[str, str]) -> dict[str, str]:
    ended = run(systemd.question(facts, name), env)
    if ended.returncode != 0:
        raise ServiceError(f"systemd does not answer: {ended.stderr.strip()}")
    return {**dict.fromkeys(systemd.PROPERTIES, ""), **systemd.answer(ended.stdout)}


def _files(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"path": path, "state": _state(text, there.get(path))} for path, text in wanted.items()]


def _state(wanted: str, there: str | None) -> str:
    if there is None:
        return "missing"
    body, intact = unstamped(there)
    if not intact and there != wanted:
        return "changed by hand"
    return "as written" if body == wanted else "of another version"


def show(found: dict[str, Any], around: Surroundings) -> None:
    from rich.table import Table

    out = console()
    running = found["running"]
    colour = "green" if running else "red"
    word = "runs" if running else "does not run" if found["installed"] else "is not installed"
    whose = "the system's" if found["scope"] == "system" else f"{around.user}'s"
    out.print(f"[{colour}]●[/] xybridd as {whose} service [{colour}]{word}[/]")
    if not found["installed"]:
        click.echo(f"install it with: xybridd service install{' --system' if found['scope'] == 'system' else ''}")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, value)
    out.print(table)


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "pid" not in found:
        return [(entry["path"], entry["state"]) for entry in found["files"]]
    memory = found["memory_bytes"]
    rows = [
        ("says", found["says"] or "–"),
        ("since", found["since"] or "–"),
        ("process", "–" if found["pid"] is None else str(found["pid"])),
        ("memory", "unknown" if memory is None else size(memory)),
        ("restarts", str(found["restarts"])),
        ("socket", "listens" if found["listening"] else "does not listen"),
        ("at boot", _at_boot(found)),
        *(("file", f"{entry['path']}: {entry['state']}") for entry in found["files"]),
        *(("yours", path) for path in found["others"]),
        ("data", found["data"]),
    ]
    if found["result"] not in {"success", ""}:
        rows.insert(0, ("ended", f"{found['result']}; see: xybridd service logs"))
    if found["key_is_open"]:
        rows.append(("key", f"others may read it; run: chmod 600 {systemd.KEY_FILE}"))
    return rows


def _at_boot(found: dict[str, Any]) -> str:
    if not found["at_boot"]:
        return "not started"
    if found["lingers"] is False:
        return "started at login (from boot on with: loginctl enable-linger)"
    return "started"
