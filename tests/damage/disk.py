"""A disk that loses power: which states of a folder it may leave, by what was asked of it until then.

What POSIX promises, and no more:

- A write, or a change of a file's size, is on the disk for certain when the file was synced after it. Until then each may
  be there or not, in any order, and of a write any of its sectors of 512 bytes. Bytes beside a write are not harmed.
- A name that was made, moved or taken away is so for certain when the folder was synced after it. Until then each may
  have happened or not; a rename is one step.

Between "nothing that was not synced" and "everything" lies more than can be tried; `variants` picks what is likely to
hurt (each alone there, each alone missing) and dice for the rest.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECTOR = 512


class Write(msgspec.Struct, frozen=True):
    inode: int
    offset: int
    data: bytes


class Truncate(msgspec.Struct, frozen=True):
    inode: int
    size: int


class Sync(msgspec.Struct, frozen=True):
    inode: int


class Create(msgspec.Struct, frozen=True):
    name: str
    inode: int


class Unlink(msgspec.Struct, frozen=True):
    name: str


class Rename(msgspec.Struct, frozen=True):
    old: str
    new: str


class SyncFolder(msgspec.Struct, frozen=True):
    pass


class Told(msgspec.Struct, frozen=True):
    """Somebody was told that something is kept: from here on it has to be."""

    text: str


Change = Write | Truncate
Naming = Create | Unlink | Rename
Operation = Change | Naming | Sync | SyncFolder | Told

#: How a state is chosen: ``nothing`` of what was not synced, ``everything``, all but one, one alone, or by dice.
Variant = tuple[str, int]


class Disk:
    """``unsynced`` and ``naming`` may be on it or not, in whatever combination."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._synced: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        for inode, (name, content) in enumerate(sorted(files.items()), start=-len(files)):
            self._names[name], self._synced[inode] = inode, content
        self._live = dict(self._names)
        self.unsynced: list[Change] = []
        self.naming: list[Naming] = []

    def inode(self, name: str) -> int | None:
        """Of a file as the running process sees it."""
        return self._live.get(name)

    def do(self, operation: Operation) -> None:
        match operation:
            case Write() | Truncate():
                self.unsynced.append(operation)
            case Create() | Unlink() | Rename():
                self.naming.append(operation)
                _name(self._live, operation)
            case Sync(inode):
                for change in self.unsynced:
                    if change.inode == inode:
                        self._synced[inode] = _changed(self._synced.get(inode, b""), change)
                self.unsynced = [change for change in self.unsynced if change.inode != inode]
            case SyncFolder():
                for each in self.naming:
                    _name(self._names, each)
                self.naming.clear()
            case Told():
                pass

    def variants(self, dice: int) -> Iterator[Variant]:
        loose = len(self.unsynced) + len(self.naming)
        yield "everything", 0
        if loose:
            yield "nothing", 0
            for number in range(loose):
                yield "all but", number
                yield "only", number
            for seed in range(dice):
                yield "dice", seed

    def after(self, variant: Variant) -> dict[str, bytes]:
        """The files that are found when the power is back."""
        how, number = variant
        loose: list[Change | Naming] = [*self.unsynced, *self.naming]
        chance = random.Random(number)
        fate = {"everything": 1.0, "nothing": 0.0, "all but": 1.0, "only": 0.0, "dice": chance.choice((0.2, 0.5, 0.8))}
        contents, names = dict(self._synced), dict(self._names)
        for place, each in enumerate(loose):
            kept = (
                (chance.random() < fate[how])
                if how == "dice"
                else (fate[how] == 1.0) != (place == number and how in {"all but", "only"})
            )
            if isinstance(each, Write) and how == "dice" and chance.random() < 0.5:
                for sector in _sectors(each):
                    if chance.random() < fate[how]:
                        contents[each.inode] = _changed(contents.get(each.inode, b""), sector)
            elif kept and isinstance(each, Write | Truncate):
                contents[each.inode] = _changed(contents.get(each.inode, b""), each)
            elif kept:
                _name(names, each)  # type: ignore[arg-type]
        return {name: contents.get(inode, b"") for name, inode in names.items()}


def _sectors(write: Write) -> Iterator[Write]:
    end = write.offset + len(write.data)
    for start in range(write.offset // SECTOR * SECTOR, end, SECTOR):
        first, last = max(start, write.offset), min(start + SECTOR, end)
        yield Write(write.inode, first, write.data[first - write.offset : last - write.offset])


def _changed(content: bytes, change: Change) -> bytes:
    if isinstance(change, Truncate):
        return content[: change.size].ljust(change.size, b"\0")
    before = content[: change.offset].ljust(change.offset, b"\0")
    return before + change.data + content[change.offset + len(change.data) :]


def _name(names: dict[str, int], operation: Naming) -> None:
    match operation:
        case Create(name, inode):
            names[name] = inode
        case Unlink(name):
            names.pop(name, None)
        case Rename(old, new):
            # The name goes with whatever file is there under it; without one this rename did not happen.
            if old in names:
                names[new] = names.pop(old)


def states(
    files: dict[str, bytes], operations: Sequence[Operation], dice: int, wanted: int | None, seed: int = 0
) -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """States that the power may leave: where, the files, and what had been told by then; ``wanted`` of them by lot."""
    places = [(at, variant) for at, variants in enumerate(_walk(files, operations, dice)) for variant in variants]
    if wanted is not None and wanted < len(places):
        places = sorted(random.Random(seed).sample(places, wanted))
    disk, done, told = Disk(files), 0, list[str]()
    for at, variant in places:
        for operation in operations[done : at + 1]:
            disk.do(operation)
            if isinstance(operation, Told):
                told.append(operation.text)
        done = at + 1
        yield f"after operation {at} of {len(operations)}, {variant[0]} {variant[1]}", disk.after(variant), list(told)


def _walk(files: dict[str, bytes], operations: Sequence[Operation], dice: int) -> Iterator[list[Variant]]:
    disk = Disk(files)
    for operation in operations:
        disk.do(operation)
        yield list(disk.variants(dice))
