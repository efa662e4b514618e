"""Whether a write-ahead log was damaged, rather than cut off by a crash. https://www.sqlite.org/fileformat.html, 4.

SQLite takes what follows a frame whose checksum is wrong for a transaction that never ended, and passes it over. That
is right after a crash, which leaves at most one: each commit is synced before the next begins. Where more than one
commit lies behind the place where SQLite stopped, or the header is wrong while there are frames, something else has
been at it, and commits that were acknowledged are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "little", 0x377F0683: "big"}


def commits_in(log: Path) -> list[int] | None:
    """The frames (1, 2, …) that end a commit of the log's present round; None when its header is damaged."""
    content = log.read_bytes()
    if len(content) < _HEADER + _FRAME_HEADER:
        return []
    if not _is_header(content[:_HEADER]):
        return None
    size, salts = _FRAME_HEADER + int.from_bytes(content[8:12], "big"), content[16:24]
    starts = range(_HEADER, len(content) - size + 1, size)
    return [
        number
        for number, start in enumerate(starts, start=1)
        if content[start + 8 : start + 16] == salts and content[start + 4 : start + 8] != bytes(4)
    ]


def _is_header(header: bytes) -> bool:
    order = _MAGIC.get(int.from_bytes(header[:4], "big"))
    if order is None:
        return False
    first = second = 0
    for place in range(0, 24, 8):
        first = (first + int.from_bytes(header[place : place + 4], order) + second) & 0xFFFFFFFF  # type: ignore[arg-type]
        second = (second + int.from_bytes(header[place + 4 : place + 8], order) + first) & 0xFFFFFFFF  # type: ignore[arg-type]
    return header[24:] == first.to_bytes(4, "big") + second.to_bytes(4, "big")


def lost(commits: list[int] | None, read: int) -> bool:
    """``read``: how many frames SQLite found to be good."""
    return commits is None or sum(number > read for number in commits) > 1
