"""What goes into a bug report, part by part; each gatherer gives text or a JSON value, nothing is concealed yet."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import stat
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xybridd import __version__
from xybridd import config as configuration
from xybridd.core.address import shown_url
from xybridd.paths import client_sockets, config_files, data_folder, ring_folder, spool_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xybridd.cli.checks.scene import Scene

_LOG_LINES = 300
_CHECK_S = 30.0


class Part(NamedTuple):
    """``what``: for the manifest, so that who sends it knows what it says."""

    name: str
    what: str
    gather: Callable[[Scene], Any]


def _versions(_scene: Scene) -> dict[str, Any]:
    packages = {}
    for requirement in importlib.metadata.requires("xybridd") or []:
        name = requirement.partition(";")[0].split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip()
        if "extra ==" not in requirement:
            with suppress(importlib.metadata.PackageNotFoundError):
                packages[name] = importlib.metadata.version(name)
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    return {
        "xybridd": __version__,
        "python": sys.version,
        "system": release.get("PRETTY_NAME", platform.platform()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "systemd": _first_line("systemctl", "--version"),
        "packages": packages,
        "environment": sorted(name for name in os.environ if name.startswith(("XYBRID", "DO_NOT_TRACK"))),
    }


def _first_line(*command: str) -> str | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        return told.stdout.partition("\n")[0] or None
    return None


def _doctor(_scene: Scene) -> Any:
    from xybridd.cli.checks.register import examine
    from xybridd.core.health.finding import by_weight

    return msgspec.to_builtins(by_weight(examine()))


def _status(scene: Scene) -> Any:
    return scene.status if scene.status is not None else "no daemon answers"


def _device(scene: Scene) -> Any:
    from xybridd.cli.checks.device import own_details

    return scene.capabilities if scene.capabilities is not None else {"details": own_details()}


def _config(scene: Scene) -> Any:
    if scene.config_error is not None:
        return {"error": scene.config_error}
    return {
        "path": scene.config_path,
        "warnings": list(scene.config_warnings),
        "changed": {
            key.name: shown_url(key.value) if key.name.endswith(".endpoint") else key.value
            for key in configuration.keys(scene.config)
            if key.value != key.default
        },
    }


def _paths(scene: Scene) -> Any:
    folders = (
        scene.data,
        data_folder(None),
        ring_folder(),
        spool_folder(),
        *(path.parent for path in client_sockets()),
    )
    return {
        "sockets": [str(path) for path in client_sockets()],
        "config": [str(path) for path in config_files()],
        "folders": {str(folder): list(_listed(folder)) for folder in dict.fromkeys(folders)},
    }


def _listed(folder: Path) -> Iterator[str]:
    """As `ls -l` would say it; of a folder that is not ours alone, only what is."""
    try:
        for path in [folder, *sorted(folder.iterdir())]:
            found = path.lstat()
            if path == folder or "xybrid" in str(path):
                whose = f"uid {found.st_uid} gid {found.st_gid}"
                yield f"{stat.filemode(found.st_mode)} {whose} {found.st_size} {path.name}"
    except OSError as error:
        yield error.strerror or str(error)


def _database(scene: Scene) -> Any:
    if scene.status is not None:
        from xybridd.client.connection import Connection

        with closing(Connection.open((scene.connected,) if scene.connected else None)) as connection:
            return connection.call("daemon.check", timeout_s=_CHECK_S)
    from xybridd.cli.checks.storage import looked_at

    return looked_at(scene.data)


def _log(_scene: Scene) -> str:
    from xybridd.cli.checks.service import installed_scope
    from xybridd.units import launchd, systemd
    from xybridd.units.carry_out import run
    from xybridd.units.observed import environment, observe, on_mac, surroundings

    scope = installed_scope()
    if scope is None:
        return "no service is installed; a daemon that was started by hand logs to where it was started"
    facts = observe(scope)
    command = (launchd if on_mac() else systemd).logs(facts, _LOG_LINES, follow=False)
    ended = run(command, environment(scope, surroundings()))
    return ended.stdout or ended.stderr or "nothing was logged"


def _units(_scene: Scene) -> str:
    from xybridd.units.observed import observe

    parts = []
    for scope in ("user", "system"):
        facts = observe(scope)
        texts = dict(facts.files)
        for name in facts.others:
            with suppress(OSError):
                for path in sorted(Path(name).rglob("*.conf")) if Path(name).is_dir() else [Path(name)]:
                    if path.suffix == ".conf":
                        texts[str(path)] = path.read_text("utf-8", "replace")
        parts += [f"# {name}\n{text}" for name, text in sorted(texts.items())]
    return "\n".join(parts) or "no service is installed"


PARTS: tuple[Part, ...] = (
    Part("versions.json", "versions of xybridd, Python, the system; names (not values) of our variables", _versions),
    Part("doctor.json", "what `xybridd doctor` found", _doctor),
    Part("status.json", "what `xybridd status` says: counts, sizes, where uploads go", _status),
    Part("device.json", "what `xybridd device` says: processors, memory, GPU, NPU, battery, heat", _device),
    Part("config.json", "the settings that differ from the defaults; no key, no user in a URL", _config),
    Part(
        "paths.json",
        "where socket, config, data and rings are, and the files there by name, size, permission",
        _paths,
    ),
    Part(
        "database.json", "is the database sound, and how many rows each table has; nothing of what they say", _database
    ),
    Part("log.txt", f"the last {_LOG_LINES} lines that the service logged", _log),
    Part("units.txt", "the service's files", _units),
)


def gather(part: Part, scene: Scene) -> Any:
    """What a part says; one that fails says why."""
    from xybridd.cli.checks.within import TooLong, within

    try:
        return within(60.0, lambda: part.gather(scene))
    except TooLong:
        return "this could not be gathered within 60 s"
    except Exception as error:  # noqa: BLE001 - one part that fails must not keep the others from being sent
        return f"this could not be gathered: {type(error).__name__}: {error}"
