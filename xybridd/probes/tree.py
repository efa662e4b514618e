"""Reading the kernel's files, so that nothing they do can raise, and a recorded tree reads like the machine itself.

A file that is not there is *absent*; one that cannot be read, or holds no text or no number, is a *problem* with
a sentence that says why. Everything that was looked at is noted, for ``xybridd device --explain``.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

#: No attribute of sysfs is longer than a page; a few files of proc are.
_MOST_BYTES = 2**16

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
    """The file system from `root` on. Paths are absolute, as on the machine: ``/sys/class/thermal``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._inside = os.path.realpath(root)
        self.looked: list[Looked] = []

    def _real(self, path: str) -> str:
        """Raises OSError; a link that leads out of a recorded tree leads nowhere."""
        if self._inside == "/":
            return path
        real = os.path.realpath(os.path.join(self._inside, path.lstrip("/")), strict=True)  # noqa: PTH118
        if os.path.commonpath((real, self._inside)) != self._inside:
            raise OSError(errno.ENOENT, "leads out of the tree")
        return real

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
            fd = os.open(self._real(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return Found(path, os.read(fd, _MOST_BYTES))
            finally:
                os.close(fd)
        except OSError as error:
            return Found(path, problem=self._failed(path, error))

    def text(self, path: str) -> Found[str]:
        """The text of a file, without white space around it."""
        raw = self._raw(path)
        if raw.value is None:
            return Found(path, problem=raw.problem)
        try:
            value = raw.value.decode().strip()
        except UnicodeDecodeError:
            value = "\0"
        if "\0" in value:
            self._note(path, "not text")
            return Found(path, problem=f"{path}: not text")
        first, *more = value.splitlines() or [""]
        self._note(path, first if len(first) <= 80 and not more else f"{first[:77]}…")
        return Found(path, value)

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

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted, numbers by their size; none when there is no such folder."""
        try:
            names = os.listdir(self._real(path))  # noqa: PTH208
        except OSError as error:
            self._failed(path, error)
            return []
        self._note(path, " ".join(sorted(names)[:12]) or "empty")
        return sorted(names, key=_natural)

    def link(self, path: str) -> str | None:
        """The last part of what a link points to, such as the name of a driver; None when there is none."""
        try:
            real = os.path.join(self._inside, path.lstrip("/"))  # noqa: PTH118
            target = os.path.basename(os.readlink(real))  # noqa: PTH115, PTH119
        except OSError as error:
            self._failed(path, error)
            return None
        self._note(path, f"→ {target}")
        return target

    def exists(self, path: str) -> bool:
        try:
            os.stat(self._real(path))  # noqa: PTH116
        except OSError as error:
            self._failed(path, error)
            return False
        self._note(path, "there")
        return True

    def permitted(self, path: str) -> bool:
        """Whether this process may read and write it, such as a device node."""
        try:
            allowed = os.access(self._real(path), os.R_OK | os.W_OK)
        except OSError as error:
            self._failed(path, error)
            return False
        self._note(path, "permitted" if allowed else "not permitted")
        return allowed


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
