"""A database as a killed daemon leaves it, and every way in which it is spoiled: cut, bits flipped, sectors lost."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.damage.lives import App
from tests.damage.tracing import files_of
from tests.services.far_end import DOWN, desk
from tests.services.given import ManualClock
from tests.storage.given import connection_of
from xybridd.core.capabilities import DeviceState, HardwareCapabilities
from xybridd.services.forgetting import Forgetting
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE, SECTOR = 1024, 512
DB, WAL = DATABASE_NAME, f"{DATABASE_NAME}-wal"
_WAL_HEADER, _FRAME_HEADER = 32, 24
_FRAME = _FRAME_HEADER + PAGE
_DB_HEADER = 100

#: What of a page is what, from its start: the header of the b-tree, the places of its cells, the rest.
_AREAS = {"b-tree header": (0, 8), "cell pointers": (8, 64), "cells": (64, PAGE)}


def lived(folder: Path) -> dict[str, bytes]:
    """Sessions open and ended, errors, minutes, exports queued and delivered, free pages; and a log with commits in it."""

    async def live() -> dict[str, bytes]:
        clock = ManualClock()
        async with desk(folder, "xybrid", "otlp", clock=clock) as d:
            connection_of(d.b.store).execute("PRAGMA wal_autocheckpoint = 100")
            apps = {name: await App(d, name, _nobody).start() for name in ("ann", "ben", "cyd", "gone")}
            for _ in range(8):
                for app in apps.values():
                    await app.batch()
                clock.move(60)
                d.b.recorder.close_minute(DeviceState(HardwareCapabilities(), {}))
            await apps["ben"].end()
            await d.at_rest()
            d.xybrid.says = d.far["otlp"].says = lambda _job: DOWN
            await apps["cyd"].end()
            link = apps["gone"].link
            assert link is not None
            forgetting = Forgetting(d.b.store, d.b.recorder, d.uploader, clock)
            await forgetting.session(link, (await d.b.recorder.metrics(link, None)).session_id)
            connection_of(d.b.store).execute("PRAGMA wal_autocheckpoint = 1000")
            for _ in range(3):
                await apps["ann"].batch()
            await d.at_rest()
            return {name: content for name, content in files_of(folder).items() if name in {DB, WAL}}

    return asyncio.run(live())


def _nobody(_text: str) -> None:
    pass


def spoiled(files: dict[str, bytes], flips: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """What was done, and the files then; ``flips`` in each area of each page."""
    yield "no log", {DB: files[DB]}
    yield "no database", {WAL: files[WAL]}
    for name, content in files.items():
        for size in _cuts(name, len(content)):
            yield f"{name} cut at {size}", files | {name: content[:size]}
        for start in range(0, len(content), SECTOR):
            for what, fill in (("zero", b"\0"), ("ones", b"\xff")):
                lost = content[:start] + (fill * SECTOR)[: len(content) - start] + content[start + SECTOR :]
                yield f"{name} sector {start // SECTOR} {what}", files | {name: lost}
        for where, start, end in _areas(name, len(content)):
            chance = random.Random(f"{name}{where}{start}")
            for _ in range(flips):
                place = chance.randrange(start, end)
                yield f"{name} {where} bit at {place}", files | {name: _flipped(content, place, chance.randrange(8))}


def _cuts(name: str, size: int) -> Iterator[int]:
    if name == DB:
        for page in range(0, size, PAGE):
            yield page
            yield page + PAGE // 3
    else:
        for frame in range(_WAL_HEADER, size, _FRAME):
            yield frame
            yield frame + _FRAME_HEADER
            yield frame + _FRAME // 2
        yield _WAL_HEADER // 2


def _areas(name: str, size: int) -> Iterator[tuple[str, int, int]]:
    """Named stretches of a file."""
    if name == DB:
        for place in range(_DB_HEADER):
            yield "header", place, place + 1
        for page in range(PAGE, size, PAGE):
            for what, (start, end) in _AREAS.items():
                yield what, page + start, page + end
    else:
        for place in range(_WAL_HEADER):
            yield "header", place, place + 1
        for frame in range(_WAL_HEADER, size, _FRAME):
            yield "frame header", frame, frame + _FRAME_HEADER
            yield "frame body", frame + _FRAME_HEADER, frame + _FRAME


def _flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
