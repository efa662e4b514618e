"""Where the socket, the data and the config are, for daemon and clients alike.

Nothing is made here; only names are found. platformdirs is imported when it is needed, so that an app whose
environment names the socket does not pay for it.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

APP = "xybridd"
SOCKET_NAME = "xybridd.sock"
CONFIG_NAME = "config.toml"
#: macOS has no /run, and launchd makes no folders.
SYSTEM_SOCKET = Path("/var/run/xybridd.sock" if os.uname().sysname == "Darwin" else "/run/xybridd/xybridd.sock")

#: The bytes that a Unix socket's address holds, its closing NUL counted: 108 on Linux, 104 on macOS and the BSDs.
SUN_PATH_BYTES = 108 if os.uname().sysname == "Linux" else 104


def boot_id() -> str:
    """The kernel's id of this boot; "" where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def user_socket() -> Path:
    import platformdirs  # noqa: PLC0415

    with warnings.catch_warnings():
        # Without a login there is no XDG_RUNTIME_DIR; platformdirs then warns, and names a folder in /tmp.
        warnings.simplefilter("ignore")
        return Path(platformdirs.user_runtime_dir(APP)) / SOCKET_NAME


def client_sockets() -> tuple[Path, ...]:
    """Where a client looks for the daemon, in order."""
    named = os.environ.get("XYBRIDD_SOCKET")
    return (Path(named),) if named else (user_socket(), SYSTEM_SOCKET)


def named_socket(configured: str | None) -> Path | None:
    """Where the daemon is told to listen; None when it is not told."""
    named = os.environ.get("XYBRIDD_SOCKET") or configured
    return Path(named).expanduser() if named else None


def data_folder(configured: str | None) -> Path:
    # systemd gives a list when several StateDirectory= are declared; the first is ours.
    named = os.environ.get("XYBRIDD_DATA_DIR") or configured or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_data_dir(APP))


def spool_folder() -> Path:
    """Where this user's processes leave the rings that no daemon has read: on disk.

    Not where a service that records is told to keep its own state: the user's next process must find it.
    """
    named = os.environ.get("XYBRIDD_DATA_DIR")
    if named:
        return Path(named).expanduser().absolute() / "spool"
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_data_dir(APP)) / "spool"


def ring_folder() -> Path:
    """Where this user's clients make their rings: in memory where there is a runtime folder, else in the spool.

    An installation apart (`XYBRIDD_DATA_DIR`) keeps its rings apart.
    """
    if os.environ.get("XYBRIDD_DATA_DIR"):
        return spool_folder()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Path(runtime) / APP / "rings" if os.access(runtime, os.W_OK) else spool_folder()


def config_files(named: str | None = None) -> tuple[Path, ...]:
    """The files to look for, in order; the one named by option or environment stands alone, and must be there."""
    named = named or os.environ.get("XYBRIDD_CONFIG")
    if named:
        return (Path(named).expanduser(),)
    import platformdirs  # noqa: PLC0415

    return (
        Path(platformdirs.user_config_dir(APP)) / CONFIG_NAME,
        Path(platformdirs.site_config_dir(APP)) / CONFIG_NAME,
    )
