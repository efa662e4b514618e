"""What a run asks of the disk, seen by strace: every write with its bytes, every sync, every name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.damage.disk import Create, Disk, Rename, Sync, SyncFolder, Told, Truncate, Unlink, Write
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.damage.disk import Operation

_CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,"
    "fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat"
)
#: Those that `_Reader` understands; another one on a file of ours fails the test, it must not be overlooked.
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_ARGUMENT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|([^",\s][^,]*)')

#: A copy that is made to be read at once, and of which nothing is expected later.
_SCRATCH = f"{DATABASE_NAME}.reading"

#: A run tells what is kept by writing a line to this descriptor of its own.
TOLD_NAME = "told"


def recorded(module: str, folder: Path, *arguments: str) -> tuple[dict[str, bytes], list[Operation]]:
    """Run a module on a folder: what was in the folder before, and what was done to it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    before = files_of(folder)
    trace, told = folder.parent / f"{folder.name}.trace", folder.parent / f"{folder.name}.{TOLD_NAME}"
    told.touch()
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-xx",
        "-s",
        "4194304",
        "-o",
        str(trace),
        "-e",
        f"trace={_CALLS}",
    ]
    run = [sys.executable, "-m", module, str(folder), str(told), *arguments]
    done = subprocess.run([*command, *run], capture_output=True, text=True, check=False, timeout=100)
    if "ptrace" in done.stderr and not trace.stat().st_size:
        pytest.skip(f"strace is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    operations = list(_Reader(folder, told, Disk(before)).operations(trace.read_text("ascii").splitlines()))
    trace.unlink()
    return before, operations


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class _Reader:
    """Descriptors to files: they stay the same file under whatever name it gets."""

    def __init__(self, folder: Path, told: Path, disk: Disk) -> None:
        self._folder = folder
        self._told = told
        self._disk = disk
        self._files: dict[int, int] = {}
        self._folders: set[int] = set()
        self._telling: set[int] = set()
        self._inodes = 0

    def operations(self, lines: list[str]) -> Iterator[Operation]:
        for name, arguments, result in _calls(lines):
            for operation in self._read(name, arguments, result):
                self._disk.do(operation)
                yield operation

    def _ours(self, path: bytes) -> str | None:
        folder, _, name = os.fsdecode(path).rpartition("/")
        return name if folder == str(self._folder) and name != _SCRATCH else None

    def _read(self, name: str, arguments: list[bytes | str], result: int) -> Iterator[Operation]:
        if result < 0:
            return
        paths = [ours for each in arguments if isinstance(each, bytes) and (ours := self._ours(each)) is not None]
        descriptor = int(arguments[0]) if isinstance(arguments[0], str) and arguments[0].isdigit() else None
        match name:
            case "openat":
                yield from self._open(arguments, paths, result)
            case "close":
                self._forget(descriptor)
            case "rename":
                if paths:
                    old, new = paths
                    yield Rename(old, new)
            case "unlink":
                if paths:
                    yield Unlink(paths[0])
            case "fsync" | "fdatasync":
                if descriptor in self._files:
                    yield Sync(self._files[descriptor])
                elif descriptor in self._folders:
                    yield SyncFolder()
            case "pwrite64" | "ftruncate" if descriptor in self._files:
                yield self._change(name, self._files[descriptor], arguments, result)
            case "write" if descriptor in self._telling:
                assert isinstance(arguments[1], bytes)
                yield Told(arguments[1].decode().strip())
            case _:
                touched = bool(paths) or descriptor in self._files
                assert not touched, f"{name}{arguments} is not understood"

    def _open(self, arguments: list[bytes | str], paths: list[str], descriptor: int) -> Iterator[Operation]:
        self._forget(descriptor)
        path, flags = arguments[1], str(arguments[2])
        if path == os.fsencode(self._folder):
            self._folders.add(descriptor)
        elif path == os.fsencode(self._told):
            self._telling.add(descriptor)
        elif paths:
            inode = self._disk.inode(paths[0])
            if inode is None:
                self._inodes += 1
                inode = self._inodes
                yield Create(paths[0], inode)
            elif "O_TRUNC" in flags:
                yield Truncate(inode, 0)
            self._files[descriptor] = inode

    def _forget(self, descriptor: int | None) -> None:
        if descriptor is not None:
            self._files.pop(descriptor, None)
            self._folders.discard(descriptor)
            self._telling.discard(descriptor)

    def _change(self, name: str, inode: int, arguments: list[bytes | str], result: int) -> Operation:
        if name == "ftruncate":
            return Truncate(inode, int(arguments[1]))
        data = arguments[1]
        assert isinstance(data, bytes)
        return Write(inode, int(arguments[3]), data[:result])


def _calls(lines: list[str]) -> Iterator[tuple[str, list[bytes | str], int]]:
    """Calls in the order in which they ended; one that another thread's interrupted stands in two lines."""
    begun: dict[str, str] = {}
    for line in lines:
        process = line.split(" ", 1)[0]
        whole = line
        if line.endswith("<unfinished ...>"):
            begun[process] = line.removesuffix("<unfinished ...>")
            continue
        if "resumed>" in line and process in begun:
            whole = begun.pop(process) + line.split("resumed>", 1)[1]
        found = _LINE.match(whole)
        if found is not None:
            yield found[2], _arguments(found[3]), int(found[4])


def _arguments(text: str) -> list[bytes | str]:
    found = list[bytes | str]()
    for each in _ARGUMENT.finditer(text):
        if each[3] is None:
            assert not each[2], "strace has cut a write short"
            found.append(bytes.fromhex(each[1].replace("\\x", "")))
        else:
            found.append(each[3].strip())
    return found
