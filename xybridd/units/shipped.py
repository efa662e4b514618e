"""The files of ``systemd/`` and ``launchd/``: in a wheel they lie in `files/`, in a checkout at its root.

They name a command as a packager would install it; here its real path is put in.
"""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

from xybridd.errors import ServiceError

_COMMAND_IN_UNITS = "ExecStart=/usr/bin/xybridd run\n"
_BESIDE = Path(__file__).with_name("files")
_CHECKOUT = Path(__file__).parents[2]


def shipped(name: str) -> str:
    """A file by its path, such as ``systemd/user/xybridd.socket``. Raises ServiceError."""
    for root in (_BESIDE, _CHECKOUT):
        try:
            return (root / name).read_text("utf-8")
        except FileNotFoundError:
            continue
    raise ServiceError(f"this installation lacks {name}; install xybridd again")


def unit_for(text: str, command: tuple[str, ...]) -> str:
    program, *rest = (_systemd_word(word) for word in (*command, "run"))
    # Variables are put into all words but the first.
    words = [program, *(word.replace("$", "$$") for word in rest)]
    return text.replace(_COMMAND_IN_UNITS, f"ExecStart={' '.join(words)}\n")


def plist_for(text: str, command: tuple[str, ...], home: str, group_id: int | None) -> str:
    """``group_id``: whose members may connect; None in an agent, whose socket is its user's alone."""
    facts: dict[str, Any] = plistlib.loads(text.encode())
    facts["ProgramArguments"] = [*command, "run"]
    listener = facts["Sockets"]["Listener"]
    listener["SockPathName"] = _home_put_in(listener["SockPathName"], home)
    facts["StandardErrorPath"] = _home_put_in(facts["StandardErrorPath"], home)
    if group_id is not None:
        listener["SockPathGroup"] = group_id
    return plistlib.dumps(facts, sort_keys=False).decode()


def _home_put_in(path: str, home: str) -> str:
    return home + path[1:] if path.startswith("~/") else path


def _systemd_word(word: str) -> str:
    """One word of a command line as systemd reads it (systemd.service(5), systemd.syntax(7))."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if any(character.isspace() or character in "\"';" for character in word) else word
