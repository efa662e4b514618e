"""Reading the kernel's files, so that nothing they do can raise, and a recorded tree reads like the machine itself.

A file that is not there is *absent*; one that cannot be read, or holds no text or no number, is a *problem* with
a sentence that says why. Everything that was looked at is noted, for ``xybridd device --explain`` and for a recording.

A `Tree` is the machine itself; `probes.recorded` has the one that replays a recording, and `open_tree` chooses. What a
probe may ask beside files (the platform, the output of a command) it asks of the tree too, so that a Mac replays.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

#: No attribute of sysfs is longer than a page; a few files of proc are.
_MOST_BYTES = 2**16

#: Without O_NONBLOCK a pipe where a file should be would hang for ever.
OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

#: As many links as the kernel follows in one path.
_MOST_LINKS = 40

#: The file that tells a Mac.
MAC = "/System/Library/CoreServices/SystemVersion.plist"

#: Outputs of this machine's commands that do not change while it runs.
_CONSTANT: dict[str, bytes] = {}

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})


class Found(msgspec.Struct, Generic[T], frozen=True):
    """What was found at a path: a value, or nothing (absent), or nothing and the problem."""

    path: str
    value: T | None = None
    problem: str | None = None


class Looked(msgspec.Struct, frozen=True):
    path: str
    said: str


class Tree:
    """The file system of this machine. Paths are absolute: ``/sys/class/thermal``."""

    #: Whether it is this machine, so that what is no file of it (psutil, NVML, D-Bus) may be asked as well.
    live = True
    root = "/"

    def __init__(self) -> None:
        self.looked: list[Looked] = []
        #: The names in each folder that was listed, and the outputs of commands: with `looked` what a recording needs.
        self.listings: dict[str, list[str]] = {}
        self.outputs: dict[str, bytes] = {}

    @property
    def platform(self) -> str:
        """As `sys.platform` names it."""
        return sys.platform

    def real(self, path: str) -> str:
        """Where a path lies in the file system of this process. Raises OSError."""
        return path

    def target(self, path: str) -> str:
        """What a link points to. Raises OSError."""
        return os.readlink(path)  # noqa: PTH115

    def link_at(self, here: str) -> str | None:
        """The target of the link at a place whose folder has no links in it; None when it is none. Raises OSError."""
        try:
            return os.readlink(here)  # noqa: PTH115
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise

    def followed(self, path: str) -> tuple[str, dict[str, str]]:
        """Where a path leads when its links are followed, and these links. ``..`` ends at the root. Raises OSError."""
        at: list[str] = []
        links: dict[str, str] = {}
        todo, count = path.split("/")[::-1], 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                at = at[:-1]
                continue
            here = "/".join(("", *at, part))
            target = self.link_at(here)
            if target is None:
                at.append(part)
                continue
            links[here] = target
            count += 1
            if count > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                at = []
            todo += target.split("/")[::-1]
        return "/".join(("", *at)), links

    def output(self, *command: str, limit_s: float = 0.9, constant: bool = False) -> Found[bytes]:
        """What a command of the system prints; not there, failed or too slow is a problem.

        `constant`: it prints the same for as long as the system runs, so once is enough.
        """
        name = command_name(command)
        try:
            printed = _CONSTANT.get(name) if constant and self.live else None
            printed = self._run(command, limit_s) if printed is None else printed
        except OSError as error:
            self._note(name, error.strerror or str(error))
            return Found(name, problem=f"{name}: {error.strerror or error}")
        if constant and self.live:
            _CONSTANT[name] = printed
        self.outputs[name] = printed
        self._note(name, f"{len(printed)} bytes")
        return Found(name, printed)

    def _run(self, command: tuple[str, ...], limit_s: float) -> bytes:
        """Raises OSError."""
        import subprocess  # noqa: PLC0415 - only a Mac needs it

        try:
            done = subprocess.run(command, capture_output=True, timeout=limit_s, check=True, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s") from error
        except subprocess.SubprocessError as error:
            raise OSError(errno.EIO, str(error)) from error
        return done.stdout

    def _note(self, path: str, said: str) -> None:
        self.looked.append(Looked(path, said))

    def _failed(self, path: str, error: OSError) -> str | None:
        """What a failure means: None when there is nothing there."""
        if error.errno in _ABSENT:
            self._note(path, "not there")
            return None
        problem = f"{path}: {error.strerror or error}"
        self._note(path, error.strerror or str(error))
        return problem

    def _raw(self, path: str) -> Found[bytes]:
        try:
            fd = self._open(path)
            try:
                return Found(path, os.read(fd, _MOST_BYTES))
            finally:
                os.close(fd)
        except OSError as error:
            return Found(path, problem=self._failed(path, error))

    def _open(self, path: str) -> int:
        return os.open(path, OPEN)

    def text(self, path: str) -> Found[str]:
        """The text of a file, without white space around it."""
        raw = self._raw(path)
        if raw.value is None:
            return Found(path, problem=raw.problem)
        try:
            value = self._text_of(raw.value).decode().strip()
        except UnicodeDecodeError:
            value = "\0"
        if "\0" in value:
            self._note(path, "not text")
            return Found(path, problem=f"{path}: not text")
        first, *more = value.splitlines() or [""]
        self._note(path, first if len(first) <= 80 and not more else f"{first[:77]}…")
        return Found(path, value)

    def _text_of(self, raw: bytes) -> bytes:
        return raw

    def number(self, path: str) -> Found[int]:
        """A whole number, decimal or 0x…."""
        found = self.text(path)
        if found.value is None:
            return Found(path, problem=found.problem)
        try:
            return Found(path, int(found.value, 0))
        except ValueError:
            return Found(path, problem=f"{path}: no number: {found.value[:40]!r}")

    def bytes(self, path: str) -> Found[bytes]:
        """The raw bytes of a file, such as a device tree's strings with their NULs."""
        raw = self._raw(path)
        if raw.value is not None:
            self._note(path, f"{len(raw.value)} bytes")
        return raw

    def listing(self, path: str) -> Found[list[str]]:
        """The names in a folder, sorted, numbers by their size; empty and no problem when there is no such folder."""
        try:
            names = sorted(self._names(path), key=_natural)
        except OSError as error:
            return Found(path, [], self._failed(path, error))
        self._note(path, " ".join(names[:12]) or "empty")
        self.listings[path] = names
        return Found(path, names)

    def _names(self, path: str) -> list[str]:
        return os.listdir(self.real(path))  # noqa: PTH208

    def names(self, path: str) -> list[str]:
        """The names in a folder, where it does not matter why there are none."""
        return self.listing(path).value or []

    def link(self, path: str) -> str | None:
        """The last part of what a link points to, such as the name of a driver; None when there is none."""
        try:
            target = os.path.basename(self.target(path))  # noqa: PTH119
        except OSError as error:
            if error.errno == errno.EINVAL:
                self._note(path, "no link")
            else:
                self._failed(path, error)
            return None
        self._note(path, f"→ {target}")
        return target

    def exists(self, path: str) -> bool:
        try:
            os.stat(self.real(path))  # noqa: PTH116
        except OSError as error:
            self._failed(path, error)
            return False
        self._note(path, "there")
        return True

    def permitted(self, path: str) -> bool:
        """Whether this process may read and write it, such as a device node."""
        try:
            allowed = self._permitted(self.real(path))
        except OSError as error:
            self._failed(path, error)
            return False
        self._note(path, "permitted" if allowed else "not permitted")
        return allowed

    def _permitted(self, real: str) -> bool:
        return os.access(real, os.R_OK | os.W_OK)


def command_name(command: tuple[str, ...]) -> str:
    """What a command is called where its output is kept: ``pmset -g batt``."""
    return " ".join((command[0].rpartition("/")[2], *command[1:])).replace("/", "_")


def _natural(name: str) -> list[tuple[int, str | int]]:
    parts: list[tuple[int, str | int]] = []
    digits = ""
    for letter in f"{name}\0":
        if letter.isdecimal():
            digits += letter
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        parts.append((1, letter))
    return parts
