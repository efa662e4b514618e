"""Jobs with real exports in them, and a sender to give them to."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tests.core.given import NOW_MS, call, error, session
from xybridd.core.delivery import Item, Job, Outcome, SinkName, Target
from xybridd.core.export import telemetry_export
from xybridd.upload.process import COMMAND, Sender

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = "xk-Zu5Q8-not-to-be-seen"

_BROKEN = str(Path(__file__).with_name("broken_sender.py"))


def broken(mishap: str) -> tuple[str, ...]:
    """A sender with which something is wrong; see broken_sender.py."""
    return (sys.executable, _BROKEN, mishap)


def target(endpoint: str, sink: SinkName = "xybrid", **more: Any) -> Target:
    return Target(sink=sink, endpoint=endpoint, **{"key": KEY, **more})


def session_item(session_id: str = "", revision: int = 1) -> Item:
    """A session of one call and one error, as it is exported."""
    session_id = session_id or str(uuid.uuid4())
    of = session(call(latency_ms=212.5), error("boom ünï\nsecond line"), session_id=session_id, revision=revision)
    return Item(
        kind="session",
        session_id=session_id,
        revision=revision,
        made_at_ms=NOW_MS,
        device_id="device",
        platform="linux",
        app="kiosk",
        app_version="1.2",
        body=msgspec.json.encode(telemetry_export(of, {})),
    )


def deletion_item(session_id: str) -> Item:
    return Item("deletion", session_id, 0, NOW_MS, "device", "linux", "", "")


def job(to: Target | str, *items: Item, key: str = "", again: bool = False) -> Job:
    """One session, unless items are given."""
    to = to if isinstance(to, Target) else target(to)
    return Job(to, key or str(uuid.uuid4()), list(items) or [session_item()], again)


async def _send(jobs: Sequence[Job], command: Sequence[str], **options: Any) -> list[Outcome]:
    sender = Sender(command, **options)
    try:
        return [await sender.send(each) for each in jobs]
    finally:
        await sender.close()


def outcomes(*jobs: Job, command: Sequence[str] = COMMAND, **options: Any) -> list[Outcome]:
    """What came of each, through a sender's process that is started for them and is gone afterwards."""
    return asyncio.run(_send(jobs, command, **options))


def outcome(of: Job, command: Sequence[str] = COMMAND, **options: Any) -> Outcome:
    return outcomes(of, command=command, **options)[0]
