"""The socket: where it is, who may connect, and whether we may."""

from __future__ import annotations

from typing import Literal

import msgspec

from xybridd.core.health.finding import Finding, Topic

SOCKET = Topic("socket", "an app that cannot connect records nothing here, and does not say so")
OPEN = Topic("socket permissions", "whoever may connect may record, and push what others recorded out of the quota")
FOLDER = Topic("socket folder", "who may write there can put another socket in its place, and is told what apps record")

#: What came of connecting. refused: a socket that nobody listens at.
Reached = Literal["connected", "refused", "denied", "missing", "silent", "no socket", "too long"]


class SocketFacts(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    reached: Reached
    #: The file's permissions, and whose it is; None where it is not there.
    mode: int | None = None
    owner: str = ""
    group: str = ""
    #: Of the folder it is in: whether others may write there and may remove what is not theirs.
    folder_open: bool = False
    #: Who asks; its group is written down for it; its process has it.
    user: str = ""
    is_member: bool = False
    has_group: bool = False
    most_bytes: int = 107


def judge(sockets: list[SocketFacts]) -> list[Finding]:
    """`sockets`: in the order in which clients try them."""
    found = [_folder(each) for each in sockets if each.folder_open and each.mode is not None]
    best = next((each for each in sockets if each.reached == "connected"), None)
    if best is not None:
        return [_connected(best), *found]
    bad = [each for each in sockets if each.reached in {"denied", "too long", "no socket", "silent"}]
    if bad:
        return [*(_bad(each) for each in bad), *found]
    left = [each for each in sockets if each.reached == "refused"]
    if left:
        return [SOCKET.unknown(f"nobody listens at {left[0].path}; a daemon that starts there takes it over"), *found]
    places = " or ".join(each.path for each in sockets)
    return [SOCKET.unknown(f"there is none at {places}; the daemon makes it"), *found]


def _connected(facts: SocketFacts) -> Finding:
    mode = facts.mode or 0
    if mode & 0o002:
        return OPEN.warning(
            f"anybody on this machine may record through {facts.path} (mode {mode:04o})",
            'set [socket] mode = "0660" in the config and start the daemon again',
        )
    who = f"members of {facts.group}" if mode & 0o020 else facts.owner
    return SOCKET.ok(f"{facts.path}, for {who}")


def _bad(facts: SocketFacts) -> Finding:
    match facts.reached:
        case "too long":
            says = f"the path has more than {facts.most_bytes} bytes, which no socket's address holds: {facts.path}"
            return SOCKET.problem(says, "export XYBRIDD_SOCKET=/run/user/$(id -u)/xybridd.sock")
        case "no socket":
            return SOCKET.problem(f"{facts.path} is there and is no socket", f"ls -l {facts.path}")
        case "silent":
            return SOCKET.problem(f"{facts.path} takes no connection: its queue is full", "xybridd service restart")
        case _:
            return _denied(facts)


def _denied(facts: SocketFacts) -> Finding:
    mode = facts.mode
    if mode is None or not mode & 0o020:
        whose = f"{facts.owner} alone" if facts.owner else "somebody else"
        return SOCKET.problem(f"{facts.path} is for {whose}, and you are {facts.user}", "sudo xybridd status")
    if facts.is_member and not facts.has_group:
        return SOCKET.problem(
            f"you are in the group {facts.group}, but not since this login", f"newgrp {facts.group}   (or log in again)"
        )
    return SOCKET.problem(
        f"{facts.path} is for members of {facts.group}, and {facts.user} is none",
        f"sudo usermod -aG {facts.group} {facts.user}   (and log in again)",
    )


def _folder(facts: SocketFacts) -> Finding:
    folder = facts.path.rpartition("/")[0] or "/"
    return FOLDER.problem(f"everybody may write in {folder}", f"chmod o-w {folder}")
