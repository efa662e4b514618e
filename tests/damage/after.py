"""What is there when a folder is opened after an accident, by the real recorder, and whether it is what was promised."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import msgspec

from tests.core.given import call
from tests.damage.lives import id_of
from tests.services.far_end import desk
from tests.services.given import DAY_S, OWNER, ManualClock
from xybridd.services.retention import Retention
from xybridd.storage import outbox
from xybridd.storage.rows import SessionFilter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.services.far_end import Desk


class Found(msgspec.Struct):
    """``batches``: of each client's session the mask of those that are counted in it. ``others``: the rest's records."""

    batches: dict[str, int] = {}
    errors: dict[str, int] = {}
    last_seq: dict[str, int] = {}
    ended: dict[str, str | None] = {}
    others: dict[str, int] = {}
    delivered: dict[str, int] = {}
    #: Records that the ledger says were removed, for whatever reason.
    removed: int = 0
    salvages: int = 0


def put_files(files: dict[str, bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def opened(folder: Path, names: Iterable[str]) -> Found:
    """Start there on the next boot, see that the ledger agrees and that a fresh record passes; what is there."""

    async def look() -> Found:
        async with asyncio.timeout(60), desk(folder, clock=ManualClock(5000.0 + 4 * DAY_S), boot_id="next") as d:
            await d.balances()
            found = await _found(d, names)
            link, session_id = await d.b.bound()
            await d.b.batch(link, 1, [call("fresh")])
            assert await d.b.calls(session_id) == 1
            await d.balances()
            return found

    return asyncio.run(look())


def lived_on(folder: Path, names: Iterable[str]) -> Found:
    """Like `opened`, and everything that is there is read, shown and sent, and goes on being recorded into."""

    async def live() -> Found:
        clock = ManualClock(5000.0 + 4 * DAY_S)
        async with asyncio.timeout(60), desk(folder, "xybrid", "otlp", clock=clock, boot_id="next") as d:
            owner = d.b.link(OWNER)
            await d.at_rest()
            for session_id in await d.b.store.session_ids():
                await d.b.recorder.export(owner, session_id)
                await d.b.store.minutes(session_id)
            await d.b.store.samples(0, 1000)
            link, session_id = await d.b.bound()
            await d.b.batch(link, 1, [call("fresh")])
            assert await d.b.calls(session_id) == 1
            await Retention(d.b.store, d.b.recorder, clock, 30, 2**26).run()
            await d.at_rest()
            await d.balances()
            found = await _found(d, names)
            del found.others[session_id]
        return found

    return asyncio.run(live())


async def _found(d: Desk, names: Iterable[str]) -> Found:
    store, found = d.b.store, Found()
    for name in names:
        producer = await store.producer(1000, id_of(name))
        found.last_seq[name] = producer.last_seq if producer is not None else 0
        session = await store.session(id_of(f"session of {name}"))
        if session is not None:
            found.ended[name] = session.head.end_reason
            found.batches[name] = sum(model.total_latency_ms for model in session.models)
            found.errors[name] = sum(error.count for error in session.errors)
    ours = {id_of(f"session of {name}") for name in names}
    for summary in await store.list_sessions(SessionFilter(limit=100_000)):
        if summary.session_id not in ours:
            found.others[summary.session_id] = summary.total_inferences + summary.error_count
    for sink, tally in (await store.query(outbox.tallies)).items():
        found.delivered[sink] = tally.delivered
    found.removed = d.b.recorder.ledger.removed()
    found.salvages = len((await store.use()).salvages)
    return found


def judge(found: Found, told: Iterable[str]) -> None:
    """Whether all that was told is there once; of what was not told, a batch may be there, or not, but nothing of half of it."""
    promised = Found()
    for line in told:
        what, *rest = line.split()
        match what, rest:
            case "started", [name]:
                promised.ended.setdefault(name, None)
            case "batch", [name, number]:
                promised.last_seq[name] = int(number)
            case "ended", [name]:
                promised.ended[name] = "ended"
            case "delivered", [sink, number]:
                promised.delivered[sink] = int(number)
            case "forgetting", [name]:
                del promised.ended[name]
            case "forgotten", [name]:
                assert found.removed >= 2
                assert name not in found.ended, f"the session of {name} was forgotten and is there"
    for name, seq in promised.last_seq.items():
        assert found.last_seq[name] >= seq, f"batch {seq} of {name} was acknowledged and is lost"
    for name, reason in promised.ended.items():
        assert name in found.ended, f"the session of {name} is lost"
        assert reason is None or found.ended[name] == reason, f"the session of {name} was ended"
    for name, mask in found.batches.items():
        last = found.last_seq[name]
        assert mask == (2 << last) - 2 if last else mask == 0, f"of {name}, {mask:b} is counted, not 1 to {last}"
        assert found.errors[name] == last
    for sink, least in promised.delivered.items():
        assert found.delivered.get(sink, 0) >= least, f"{sink} had {least}, and they would be sent again"
