"""What every check may want to know: the config as it is read here, and the daemon, if one answers."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xybridd import config as configuration
from xybridd.client.connection import Connection
from xybridd.errors import ConfigError, DaemonUnreachable, WireError
from xybridd.paths import SYSTEM_SOCKET, client_sockets, data_folder
from xybridd.units.observed import observe, user_name
from xybridd.units.systemd import CONFIG_FOLDER

if TYPE_CHECKING:
    from xybridd.units.plan import Scope

#: A daemon that is well answers in milliseconds, one whose disk is slow in a second.
ANSWER_S = 3.0


class Scene(NamedTuple):
    """``status`` and ``capabilities`` are the daemon's answers, None where it gave none."""

    config: configuration.Config
    config_path: str | None
    config_error: str | None
    config_warnings: tuple[str, ...]
    #: Of the socket that could be connected to; its peer's user and process by the kernel, where it tells.
    connected: Path | None
    peer: tuple[int, int] | None
    status: dict[str, Any] | None
    capabilities: dict[str, Any] | None
    user: str
    uid: int
    #: Whose service is installed, a user's own first.
    service: Scope | None = None
    #: The config is there, and not ours to read.
    config_hidden: bool = False

    @property
    def data(self) -> Path:
        """The daemon's data folder; without a daemon, where one that is started from here would keep its data."""
        if self.status is not None:
            return Path(self.status["storage"]["path"]).parent
        if self.service == "system" and self.config.storage.path is None and "XYBRIDD_DATA_DIR" not in os.environ:
            return Path(observe("system").data)
        return data_folder(self.config.storage.path)

    @property
    def daemon_runs(self) -> bool:
        return self.status is not None


def look_around() -> Scene:
    from xybridd.cli.checks.service import installed_scope

    connected, peer, status, capabilities = _daemon()
    service = installed_scope()
    named = config_of(connected, service)
    config, path, warnings, error = configuration.Config(), named, tuple[str, ...](), None
    hidden = named is not None and not os.access(named, os.R_OK)
    if not hidden:
        try:
            loaded = configuration.load(named)
            config, path, warnings = loaded.config, loaded.path, tuple(loaded.warnings)
        except ConfigError as found:
            error = str(found)
    return Scene(
        config, path, error, warnings, connected, peer, status, capabilities, user_name(), os.getuid(), service, hidden
    )  # fmt: skip


def config_of(connected: Path | None, service: Scope | None, folder: str = CONFIG_FOLDER) -> str | None:
    """The config of the system's service, which no other command of a user looks at; None: the usual one."""
    named = Path(folder) / "config.toml"
    of_system = connected == SYSTEM_SOCKET or (connected is None and service == "system")
    return str(named) if of_system and "XYBRIDD_CONFIG" not in os.environ and named.exists() else None


def _daemon() -> tuple[Path | None, tuple[int, int] | None, dict[str, Any] | None, dict[str, Any] | None]:
    for path in client_sockets():
        try:
            connection = Connection.open((path,), ANSWER_S)
        except DaemonUnreachable:
            continue
        with closing(connection):
            answers: list[dict[str, Any] | None] = [None, None]
            with suppress(DaemonUnreachable, WireError):
                for number, method in enumerate(("daemon.status", "device.capabilities")):
                    answers[number] = connection.call(method, timeout_s=ANSWER_S)
            return path, _peer(connection), answers[0], answers[1]
    return None, None, None, None


def _peer(connection: Connection) -> tuple[int, int] | None:
    """User id and process id; only Linux tells both in one."""
    with suppress(OSError, AttributeError):
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid, pid
    return None
