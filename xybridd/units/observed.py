"""A look at the machine: the facts that plans are made of, and what is in the way of carrying one out."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from xybridd import __version__
from xybridd.paths import data_folder
from xybridd.units import launchd, systemd
from xybridd.units.plan import Facts, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As in systemd/xybridd.sysusers.conf: a user of that name with another one was made by somebody else.
_REAL_NAME = "xybridd telemetry"

#: What the system's unit does not see: ProtectHome and PrivateTmp hide it.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108


def on_mac() -> bool:
    return sys.platform == "darwin"


class Surroundings(msgspec.Struct, frozen=True):
    """``booted``: systemd is the init here. ``runtime_folder`` is the user's, where that user's systemd listens."""

    uid: int
    user: str
    booted: bool
    runtime_folder: str | None
    #: Where our code and its Python are.
    homes_of_code: tuple[str, ...]


def user_name(uid: int | None = None) -> str:
    """By default ours; a container may run us under a number that has no name."""
    uid = os.getuid() if uid is None else uid
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def surroundings() -> Surroundings:
    uid = os.getuid()
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    return Surroundings(
        uid=uid,
        user=user_name(),
        booted=Path("/run/systemd/system").is_dir(),
        runtime_folder=str(folder) if (folder / "systemd" / "private").exists() else None,
        homes_of_code=tuple({command()[0], os.path.realpath(sys.executable), sys.base_prefix}),
    )


def obstacle(scope: Scope, around: Surroundings) -> str | None:
    """Why systemd cannot be asked for anything here, and what to do instead."""
    if not around.booted:
        return "systemd does not run here (a container?); run the daemon in the foreground instead: xybridd run"
    if scope == "system" or around.runtime_folder is not None:
        return None
    if around.uid == 0:
        return "root has no services of its own here; for the service of the whole system add --system"
    return (
        f"the services of {around.user} are not running: log in as {around.user} (su and sudo are no login), or have "
        f"them run from boot on: sudo loginctl enable-linger {around.user}"
    )


def obstacle_to_install(scope: Scope, around: Surroundings) -> str | None:
    """The system's service must see the code that it runs."""
    hidden = [path for path in around.homes_of_code if f"{path}/".startswith(tuple(f"{root}/" for root in _HIDDEN))]
    if scope == "user" or not hidden:
        return None
    return (
        f"the system's service does not see {hidden[0]}: homes and /tmp are hidden from it; install xybridd elsewhere, "
        "for example: python3 -m venv /opt/xybridd && /opt/xybridd/bin/pip install xybridd"
    )


def environment(scope: Scope, around: Surroundings) -> dict[str, str]:
    """For commands: after `su`, the way to the user's systemd is not in the environment."""
    env = dict(os.environ)
    if scope == "user" and around.runtime_folder is not None:
        env["XDG_RUNTIME_DIR"] = around.runtime_folder
    return env


def command() -> tuple[str, ...]:
    script = Path(sys.executable).with_name("xybridd")
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-P", "-m", "xybridd")


def observe(scope: Scope) -> Facts:
    data = Path(_system_data()) if scope == "system" else data_folder(None)
    mac = on_mac()
    user = user_name()
    facts = Facts(
        scope=scope,
        uid=os.getuid(),
        user=user,
        home=str(Path.home()),
        command=command(),
        version=__version__,
        files={},
        data=str(data),
        data_there=_exists(data),
        account=_account_there(launchd.ACCOUNT if mac else systemd.ACCOUNT),
        members=_members(),
        lingers=None if mac else Path("/var/lib/systemd/linger", user).exists(),
        others=() if mac else tuple(_others(scope)),
        group_id=_group_id(),
        key_is_open=scope == "system" and _open_to_others(Path(systemd.KEY_FILE)),
    )
    names = launchd.wanted(facts) if mac else systemd.wanted(facts)
    return msgspec.structs.replace(facts, files={name: text for name in names if (text := _text(name)) is not None})


def _system_data() -> str:
    return "/Library/Application Support/xybridd" if on_mac() else "/var/lib/xybridd"


def _text(name: str) -> str | None:
    try:
        return Path(name).read_text("utf-8", "replace")
    except FileNotFoundError:
        return None


def _exists(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False


def _account_there(name: str) -> bool:
    with suppress(KeyError):
        return pwd.getpwnam(name).pw_gecos == _REAL_NAME or on_mac()
    return False


def _members() -> tuple[str, ...]:
    with suppress(KeyError):
        return tuple(grp.getgrnam(systemd.GROUP).gr_mem)
    return ()


def _group_id() -> int:
    with suppress(KeyError):
        return grp.getgrnam(systemd.GROUP).gr_gid
    taken = {user.pw_uid for user in pwd.getpwall()} | {group.gr_gid for group in grp.getgrall()}
    # macOS keeps what is below 500 for services, and hands out few above 300 itself.
    return next(number for number in range(399, 300, -1) if number not in taken)


def _others(scope: Scope) -> Iterator[str]:
    """Drop-ins, and what an operator put into the folder of the config."""
    units = Path("/etc/systemd/system") if scope == "system" else Path.home() / ".config/systemd/user"
    folders = [units / f"{name}.d" for name in (systemd.SERVICE, systemd.SOCKET)]
    if scope == "system":
        folders.append(Path(systemd.CONFIG_FOLDER))
    for folder in folders:
        with suppress(OSError):
            yield from sorted(str(path) for path in folder.iterdir())


def _open_to_others(path: Path) -> bool:
    with suppress(OSError):
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return False
