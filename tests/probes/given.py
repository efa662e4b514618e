"""Trees to probe: files with their contents, links, folders, made in a temporary folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.probes.recorded import RecordedTree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Link(str):
    """A symbolic link to this target (relative, or absolute within the tree)."""

    __slots__ = ()


#: A folder where one would expect a file.
FOLDER = object()

Files = dict[str, "str | bytes | int | object"]


def tree(folder: Path, *parts: Mapping[str, object]) -> RecordedTree:
    """A tree of all the parts together: path on the machine → text, bytes, number, Link, or FOLDER."""
    for files in parts:
        for path, content in files.items():
            place = folder / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is FOLDER:
                place.mkdir(exist_ok=True)
            elif isinstance(content, Link):
                place.symlink_to(content)
            elif isinstance(content, bytes):
                place.write_bytes(content)
            else:
                place.write_text(f"{content}\n")
    return RecordedTree(folder)
