"""A plan: what is to be done, as values in order; and the rule for a file that somebody changed.

Every file that is written ends with a line that says by which version, and has the hash of what stands above it. So a
file can be told that is as we wrote it, by whatever version: it may be replaced. One that is not is its owner's: it is
kept, and the difference is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from difflib import unified_diff
from typing import Literal

import msgspec

Scope = Literal["user", "system"]

_MARK = "written by xybridd "
_HASH_CHARACTERS = 16


class Write(msgspec.Struct, frozen=True, tag="write"):
    """A file with all that stands in it, 0644; its folders are made."""

    path: str
    text: str


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """A file or a socket, if it is there."""

    path: str


class RemoveFolder(msgspec.Struct, frozen=True, tag="remove_folder"):
    """A folder, if it is there and empty."""

    path: str


class Run(msgspec.Struct, frozen=True, tag="run"):
    """A command. One that ``may_fail`` is for what may be gone already; its complaint is not shown."""

    command: tuple[str, ...]
    may_fail: bool = False


Step = Write | Remove | RemoveFolder | Run


class Kept(msgspec.Struct, frozen=True):
    """A file that was changed by hand: ``difference`` leads from what we would write to what stands there."""

    path: str
    difference: str


class Plan(msgspec.Struct, frozen=True):
    """``notes`` are sentences for whoever asked: what stays, what to do next."""

    steps: tuple[Step, ...] = ()
    kept: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan depends on, as it was found."""

    scope: Scope
    uid: int
    user: str
    home: str
    #: How the command that was called is called again: a path, or Python with `-m xybridd`.
    command: tuple[str, ...]
    version: str
    #: What stands now at the paths that we write; a path without a file is not in it.
    files: Mapping[str, str]
    #: Where the data is, and whether it is there.
    data: str
    data_there: bool
    #: Whether the user xybridd is there as our sysusers.d file makes it.
    account: bool = False
    #: Members of the group xybrid.
    members: tuple[str, ...] = ()
    #: Of a user: whether that user's services go on without a login. None: not known.
    lingers: bool | None = None
    #: What stands beside our files and is not ours: drop-ins, a config, a key.
    others: tuple[str, ...] = ()
    #: The number of the group xybrid; where there is none yet, on a Mac, one that is free for a user and a group.
    group_id: int = 0
    #: Whether others may read the key that is there for the system's service.
    key_is_open: bool = False


def stamped(text: str, version: str, *, xml: bool = False) -> str:
    line = f"{_MARK}{version}, {_hash_of(text)}; it replaces no file that was changed"
    return f"{text}<!-- {line} -->\n" if xml else f"{text}# {line}\n"


def unstamped(text: str) -> tuple[str, bool]:
    """What stands above the last line, and whether that is as it was written."""
    body, newline, last = text.rstrip("\n").rpartition("\n")
    body += newline
    return (body, True) if _MARK in last and _hash_of(body) in last else (text, False)


def reconcile(wanted: Mapping[str, str], facts: Facts, *, force: bool) -> tuple[list[Write], list[Kept]]:
    """What to write of the files that are wanted (path → text), and what stays since it was changed by hand."""
    writes, kept = list[Write](), list[Kept]()
    for path, text in wanted.items():
        write = Write(path, stamped(text, facts.version, xml=path.endswith(".plist")))
        there = facts.files.get(path)
        if there == write.text:
            continue
        if there is None or force or unstamped(there)[1]:
            writes.append(write)
        elif there != text:  # put there by a package or by hand, and just as we would have it
            kept.append(_kept(path, text, there))
    return writes, kept


def removable(wanted: Mapping[str, str], facts: Facts, *, force: bool) -> tuple[list[Remove], list[Kept]]:
    """What to remove of the files that are there, and what stays since it was changed by hand."""
    removals, kept = list[Remove](), list[Kept]()
    for path, text in wanted.items():
        there = facts.files.get(path)
        if there is None:
            continue
        if force or unstamped(there)[1]:
            removals.append(Remove(path))
        else:
            kept.append(_kept(path, text, there))
    return removals, kept


def _kept(path: str, text: str, there: str) -> Kept:
    lines = unified_diff(
        text.splitlines(keepends=True), _without_mark(there).splitlines(keepends=True), "as shipped", path
    )
    return Kept(path, "".join(line if line.endswith("\n") else f"{line}\n" for line in lines))


def _without_mark(there: str) -> str:
    """Without our last line, also where what stands above it was changed."""
    body, newline, last = there.rstrip("\n").rpartition("\n")
    return body + newline if _MARK in last else there


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]
