"""What every check may want to know: the config as it is read here, and the daemon, if one answers."""

from __future__ import annotations

import getpass
import os
import pwd
import socket
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from xybridd import config as configuration
from xybridd.client.connection import Connection
from xybridd.errors import ConfigError, DaemonUnreachable, WireError
from xybridd.paths import client_sockets, data_folder

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

    @property
    def data(self) -> Path:
        """The daemon's data folder; without a daemon, where one that is started from here would keep its data."""
        if self.status is not None:
            return Path(self.status["storage"]["path"]).parent
        return data_folder(self.config.storage.path)

    @property
    def daemon_runs(self) -> bool:
        return self.status is not None


def look_around() -> Scene:
    config, path, warnings, error = configuration.Config(), None, tuple[str, ...](), None
    try:
        loaded = configuration.load()
        config, path, warnings = loaded.config, loaded.path, tuple(loaded.warnings)
    except ConfigError as found:
        error = str(found)
    connected, peer, status, capabilities = _daemon()
    return Scene(
        config, path, error, warnings, connected, peer, status, capabilities, user_name(os.getuid()), os.getuid()
    )  # fmt: skip


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


def user_name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return getpass.getuser() if uid == os.getuid() else f"uid {uid}"
