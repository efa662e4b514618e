"""A machine's files as a .tar, to be replayed elsewhere: writing one without what tells whose it is, reading any.

Written is what the probes looked at: each file at its real place, the links that led there, the names of the folders
that were listed, and what commands printed. Nothing else leaves the machine.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.probes.tree import Tree

#: Of one file, and of how many files, a recording that somebody sent is read.
_MOST_BYTES = 2**18
_MOST_MEMBERS = 300_000

_READABLE, _WRITABLE = stat.S_IRUSR, stat.S_IWUSR


# Taking out what tells one machine from another of its kind

#: Lines of a text, and entries of a property list, whose name says that their value is one machine's alone.
_TELLING = re.compile(rb"(?im)^(.*(?:serial|uuid|uniq|hostname|gateway|address|\bmac\b)[^=:\n]*[=:]).*$")
_TELLING_ENTRY = re.compile(
    rb"(?is)(<key>[^<]*(?:serial|uuid|address)[^<]*</key>\s*<(string|data|integer)>)[^<]*(</\2>)"
)

#: Hardware addresses, UUIDs (also with the underscores of systemd's units), ids of containers and machines.
_IDS = re.compile(
    r"[0-9a-f]{8}([-_])(?:[0-9a-f]{4}\1){3}[0-9a-f]{12}"
    r"|(?<![0-9a-f])(?:[0-9a-f]{2}([:_-])(?:[0-9a-f]{2}\2){4}[0-9a-f]{2}|[0-9a-f]{32,64})(?![0-9a-f])",
    re.IGNORECASE,
)

#: Addresses in the tables of routes, by the file: all but the one that means "anywhere".
_ROUTES = {
    "/proc/net/route": (re.compile(rb"\b(?!0{8}\b)[0-9A-Fa-f]{8}\b"), b"04030201"),
    "/proc/net/ipv6_route": (re.compile(rb"\b(?!0{32}\b)[0-9A-Fa-f]{32}\b"), b"20010db8" + b"0" * 23 + b"1"),
}


class Redaction:
    """The same id becomes the same other one everywhere, so that a name in a file still leads to its folder."""

    def __init__(self, host: str) -> None:
        self._seen: dict[str, str] = {}
        #: A name of one letter would take out half of everything.
        self._host = re.compile(rf"(?<![\w-]){re.escape(host)}(?![\w-])") if len(host) > 1 else None

    def _instead(self, found: re.Match[str]) -> str:
        given = found[0]
        number = self._seen.setdefault(given.lower(), f"{len(self._seen) + 1:x}")
        digits = iter(number.rjust(sum(letter.isalnum() for letter in given), "0"))
        return "".join(next(digits) if letter.isalnum() else letter for letter in given)

    def path(self, path: str) -> str:
        path = _IDS.sub(self._instead, path)
        # Only there do paths hold names that people gave; a driver may be called like a host.
        return self._without_host(path) if path.startswith("/sys/fs/cgroup/") else path

    def _without_host(self, text: str) -> str:
        return text if self._host is None else self._host.sub("host", text)

    def content(self, path: str, content: bytes) -> bytes:
        if path in _ROUTES:
            pattern, instead = _ROUTES[path]
            return pattern.sub(instead, content)
        content = _TELLING.sub(rb"\1 redacted", content)
        content = _TELLING_ENTRY.sub(rb"\g<1>0\3" if b"<integer>" in content else rb"\1\3", content)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return content  # figures of a GPU, which hold no names
        text = _IDS.sub(self._instead, text)
        return (text if path.endswith(("/uevent", "/type")) else self._without_host(text)).encode()


# Writing


def write(tree: Tree, out: Path) -> tuple[int, list[str]]:
    """Record what was looked at in a tree; how many files, and what could not be read. Raises XybriddError."""
    host = tree.text("/proc/sys/kernel/hostname").value or os.uname().nodename if tree.live else ""
    host = host or tree.text("/etc/hostname").value or tree.text("/proc/sys/kernel/hostname").value or ""
    redaction = Redaction(host)
    unread: list[str] = []
    count = 0
    try:
        with tarfile.open(out, "w") as tar:
            for member, content in _members(tree, redaction, unread):
                tar.addfile(member, io.BytesIO(content))
                count += member.isfile()
    except OSError as error:
        raise XybriddError(f"{out} cannot be written: {error.strerror or error}") from error
    return count, unread


def _members(tree: Tree, redaction: Redaction, unread: list[str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    looked = {each.path: each.said for each in tree.looked if each.said != "not there" and each.path.startswith("/")}
    places: dict[str, str] = {}
    links: dict[str, str] = {}
    for path in [*looked, *_listed(tree)]:
        places |= _placed(tree, path, links)
    folders = {str(above) for place in [*places, *links] for above in Path(place).parents}
    for place, target in sorted(links.items()):
        yield _member(redaction.path(place), tarfile.SYMTYPE, link=redaction.path(target)), b""
    for place, path in sorted(places.items()):
        name = redaction.path(place)
        if place in folders or place in links:
            continue
        if os.path.isdir(tree.real(path)):  # noqa: PTH112
            yield _member(name, tarfile.DIRTYPE), b""
            continue
        content, mode = _content(tree, path, looked.get(path), unread)
        content = redaction.content(path, content)
        yield _member(name, tarfile.REGTYPE, mode=mode, size=len(content)), content
    for command, printed in tree.outputs.items():
        content = redaction.content(command, printed)
        yield _member(f"/.commands/{command}", tarfile.REGTYPE, size=len(content)), content


def _listed(tree: Tree) -> list[str]:
    return [f"{folder}/{name}" for folder, names in tree.listings.items() for name in names]


def _placed(tree: Tree, path: str, links: dict[str, str]) -> dict[str, str]:
    """Where what was asked for by a path lies, with the links on the way added; nothing where it leads nowhere."""
    try:
        place, met = tree.followed(path)
    except OSError:
        # The last part may be a link that leads out of what there is, such as one to a driver's folder.
        folder, _, name = path.rpartition("/")
        try:
            place, met = tree.followed(folder)
            links |= {**met, f"{place}/{name}": tree.target(path)}
        except OSError:
            pass
        return {}
    links |= met
    return {place: path}


def _content(tree: Tree, path: str, said: str | None, unread: list[str]) -> tuple[bytes, int]:
    """The bytes of a file and its owner's rights: what could not be read or used is recorded as just that."""
    mode = _READABLE if said == "not permitted" else _READABLE | _WRITABLE
    real = tree.real(path)
    if said is None or said in {"there", "permitted", "not permitted"} or not os.path.isfile(real):  # noqa: PTH113
        return b"", mode  # that it is there is all that was asked
    found = tree.bytes(path)
    if found.value is None:
        unread.append(found.problem or f"{path}: gone")
        return b"", 0
    return found.value, mode


def _member(name: str, kind: bytes, *, link: str = "", mode: int = 0o755, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name.lstrip("/"))
    member.type, member.linkname, member.mode, member.size = kind, link, mode, size
    return member


# Reading


class unpacked:  # noqa: N801 - used like a function
    """A recording as a folder; a .tar is unpacked for as long as it is needed. None stays None.

    Whoever wrote it: absolute links and device nodes are no reason to refuse it, and nothing is written outside.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._made: Any = None

    def __enter__(self) -> Path | None:
        if self._root is None or self._root.is_dir():
            return self._root
        self._made = tempfile.TemporaryDirectory(prefix="xybridd-")
        try:
            with tarfile.open(self._root) as tar:
                _unpack(tar, Path(self._made.name))
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            self._made.cleanup()
            raise XybriddError(f"{self._root} is no recorded tree: {error}") from error
        return Path(self._made.name)

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Links come last, where nothing else is: so nothing is written through one."""
    links: dict[Path, str] = {}
    for count, member in enumerate(tar):
        parts = [part for part in member.name.split("/") if part not in {"", "."}]
        if count > _MOST_MEMBERS:
            raise XybriddError(f"it has more than {_MOST_MEMBERS:,} files")
        if not parts or ".." in parts:
            continue
        place = folder.joinpath(*parts)
        if member.issym():
            links[place] = member.linkname
        elif member.isdir():
            _folder(place)
        else:
            _write(tar, member, place)
    for place, target in links.items():
        _folder(place.parent)
        if not os.path.lexists(place):
            place.symlink_to(target)


def _folder(place: Path) -> None:
    """Make a folder, and what is above it; a file that is in the way gives way."""
    for each in [*reversed(place.parents), place]:
        if each.is_file():
            each.unlink()
    place.mkdir(parents=True, exist_ok=True)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    _folder(place.parent)
    if place.is_dir():
        return
    content = b""
    if member.isfile() or member.islnk():
        try:
            source = tar.extractfile(member)
        except KeyError:
            source = None  # a hard link to what is not in it
        content = source.read(_MOST_BYTES) if source is not None else b""
    place.write_bytes(content)
    place.chmod(member.mode & (_READABLE | _WRITABLE))
