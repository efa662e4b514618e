"""A recorder, an uploader and their store, driven step by step, beside a small model of what should be there.

A client numbers its batches and keeps each until it is acknowledged, as ours does. Batch n is an inference of 2**n
milliseconds and an error, so that a session's sums say which batches are in it. A *crash* takes the files as they are
between two transactions and goes on with those; what was not acknowledged may be gone, but only whole batches, the last
ones of each client.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.core.given import call, error
from tests.damage.after import put_files
from tests.damage.lives import id_of
from tests.damage.tracing import files_of
from tests.services.far_end import DOWN, OK, Desk, FarEnd, desk, status
from tests.services.given import DAY_S, OWNER, ManualClock
from xybridd.core.capabilities import DeviceState, HardwareCapabilities
from xybridd.core.registry import FINAL_REASONS
from xybridd.errors import SessionEnded, UnknownSession
from xybridd.services.forgetting import Forgetting
from xybridd.services.retention import Retention
from xybridd.storage import outbox
from xybridd.storage.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path
    from typing import Any

    from xybridd.protocol.records import Record
    from xybridd.services.recorder import Ticket
    from xybridd.services.sessions import Link

SAYS = {"takes": OK, "down": DOWN, "refuses": status(400), "busy": status(503)}
#: After so many batches the sum would be past what a latency may be.
MOST_BATCHES = 45


@dataclass
class Client:
    name: str
    link: Link | None = None
    #: The session of each batch that was applied, by its number, as the answer said.
    batches: dict[int, str] = field(default_factory=dict)
    #: Numbers that were never sent.
    gaps: set[int] = field(default_factory=set)
    applied: int = 0
    acknowledged: int = 0


class World:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lives = 0
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.clock = ManualClock()
        self.far = {"xybrid": FarEnd(), "otlp": FarEnd()}
        self.clients = {name: Client(name) for name in ("ann", "ben")}
        #: How each session ended, None while it is open; those that were let go of are not here.
        self.sessions: dict[str, str | None] = {}
        self.gone: set[str] = set()
        self.run(self._open({}, "boot 0"))

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(60):
                return await step

        return self._loop.run(bounded())

    async def _open(self, files: dict[str, bytes], boot_id: str) -> None:
        self._lives += 1
        home = self._folder / str(self._lives)
        put_files(files, home)
        self._home, self._boot = home, boot_id
        self.d: Desk = await self._stack.enter_async_context(
            desk(home, clock=self.clock, far=self.far, boot_id=boot_id, *("xybrid", "otlp"))  # noqa: B026
        )
        # A batch that may wait for company waits until somebody is in haste: nothing here goes by the real clock.
        self.d.b.recorder.committer.interval_s = 1e6

    async def _close(self) -> None:
        """Whatever is written from here on nobody sees."""
        for end in self.far.values():
            end.says, end.takes = (lambda _job: DOWN), (lambda _job, _outcome: False)
        await self._stack.aclose()
        for end in self.far.values():
            end.says, end.takes = (lambda _job: OK), (lambda _job, outcome: outcome == OK)
        for client in self.clients.values():
            client.link = None
        shutil.rmtree(self._home)

    def end(self) -> None:
        try:
            self.run(self._settle())
        finally:
            self.run(self._close())
            self._loop.close()

    def some(self, which: int) -> str:
        """A session by its place, since ids are random."""
        return list(self.sessions)[which % len(self.sessions)]

    # What clients do

    async def connect(self, name: str, join: str | None = None) -> None:
        client = self.clients[name]
        if client.link is not None:
            self.d.b.recorder.disconnected(client.link)
        try:
            client.link = await self.d.b.producer(client_id=id_of(name), session_id=join)
        except SessionEnded:
            assert join is not None
            assert await self._reason(join) not in {None, "rollover"}
            client.link = await self.d.b.producer(client_id=id_of(name))
        assert client.link.producer is not None
        assert client.acknowledged <= client.link.producer.durable_seq <= client.applied

    async def start(self, name: str) -> None:
        link = self.clients[name].link
        if link is not None:
            session_id, ticket = await self.d.b.recorder.start(link, None, None, {})
            self.sessions.setdefault(session_id, None)
            await self._kept(ticket)

    async def batch(self, name: str, skip: int, *, flush: bool) -> None:
        """The next batch; ``skip``: so many numbers are left out."""
        client = self.clients[name]
        seq = client.applied + 1 + skip
        if client.link is None or seq > MOST_BATCHES:
            return
        current = client.link.current
        try:
            answer = await self._send(client, seq, flush=flush)
        except (SessionEnded, UnknownSession):
            assert current is not None
            assert current in self.gone or await self._reason(current) in FINAL_REASONS
            return
        last_seq, session_id, ticket = answer
        assert (last_seq, session_id is not None) == (seq, True)
        client.gaps |= set(range(client.applied + 1, seq))
        client.batches[seq], client.applied = session_id, seq
        self.sessions.setdefault(session_id, None)
        if flush:
            await self._kept(ticket)

    async def again(self, name: str, back: int) -> None:
        """A batch that was applied comes once more, with something else in it."""
        client = self.clients[name]
        if client.link is not None and (seq := client.applied - back) > 0:
            _, _, ticket = await self._send(client, seq, [call("other"), error("other")] * 2, flush=True)
            await self._kept(ticket)

    async def _send(
        self, client: Client, seq: int, records: Sequence[Record] | None = None, *, flush: bool
    ) -> tuple[int, str, Ticket]:
        link = client.link
        assert link is not None
        batch = records or [call("m", latency_ms=float(2**seq)), error("e")]
        return await self.d.b.recorder.batch(link, seq, batch, session_id=None, flush=flush, dropped=0)  # type: ignore[return-value]

    async def finish(self, name: str, *, reset: bool) -> None:
        link = self.clients[name].link
        if link is None or link.current is None:
            return
        recorder, current = self.d.b.recorder, link.current
        try:
            if reset:
                fresh, ticket = await recorder.reset(link, None)
                self.sessions[fresh] = None
            else:
                _, ticket = await recorder.end(link, None)
        except (SessionEnded, UnknownSession):
            assert current in self.gone or await self._reason(current) not in {None, "rollover"}
            return
        await self._kept(ticket)
        ended = [each for each in self.sessions if await self._reason(each) in FINAL_REASONS]
        for session_id in ended:
            self.sessions[session_id] = await self._reason(session_id)

    async def disconnect(self, name: str) -> None:
        if (link := self.clients[name].link) is not None:
            self.d.b.recorder.disconnected(link)
            self.clients[name].link = None

    # What happens to the daemon

    async def time_passes(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.d.b.recorder.sweep()
        self.d.b.recorder.snapshot(900)
        for session_id in list(self.sessions):
            if (successor := await self._successor(session_id)) is not None:
                self.sessions.setdefault(successor, None)
        await self.d.pass_time(0)

    async def minute(self) -> None:
        self.d.b.recorder.close_minute(DeviceState(HardwareCapabilities(), {}))

    async def network(self, sink: str, says: str) -> None:
        self.far[sink].says = lambda _job: SAYS[says]
        await self.d.pass_time(900)

    async def replay(self) -> None:
        await self.d.b.store.transact(
            lambda connection: outbox.replay(connection, [letter.export_id for letter in outbox.dead(connection)])
        )
        self.d.uploader.wake()

    async def forget(self, session_id: str) -> None:
        forgetting = Forgetting(self.d.b.store, self.d.b.recorder, self.d.uploader, self.clock)
        await forgetting.session(self.d.b.link(OWNER), session_id)
        await self._kept(None)
        self._let_go(session_id)

    async def retention(self) -> None:
        await self._kept(self.d.b.recorder.committer.barrier(soon=True))
        await Retention(self.d.b.store, self.d.b.recorder, self.clock, 30, 2**26).run()
        for session_id in list(self.sessions):
            if await self._missing(session_id):
                self._let_go(session_id)

    async def crash(self, *, power: bool) -> None:
        """Killed between two transactions; ``power``: the device starts anew with it."""
        store = self.d.b.store
        await store.ping()
        files = await store.query(lambda _connection: files_of(self._home))
        await self._again({name: files[name] for name in files if name.startswith(DATABASE_NAME)}, power=power)
        for client in self.clients.values():
            producer = await self.d.b.store.producer(1000, id_of(client.name))
            last = producer.last_seq if producer is not None else 0
            assert client.acknowledged <= last <= client.applied, f"{client.name} was told {client.acknowledged}"
            client.batches = {seq: session_id for seq, session_id in client.batches.items() if seq <= last}
            client.gaps = {seq for seq in client.gaps if seq <= last}
            client.applied = last
        for session_id, reason in list(self.sessions.items()):
            if await self._missing(session_id):
                # Made by itself, a successor or an implicit one, and never acknowledged.
                assert session_id not in [kept for each in self.clients.values() for kept in each.batches.values()]
                assert reason is None
                del self.sessions[session_id]
            elif reason is not None:
                assert await self._reason(session_id) == reason

    async def restart(self) -> None:
        """Stopped as it should be, and started."""
        await self._kept(self.d.b.recorder.committer.barrier(soon=True))
        await self.d.at_rest()
        await self._again(None, power=False)

    async def _again(self, files: dict[str, bytes] | None, *, power: bool) -> None:
        boot = f"boot {self._lives}" if power else self._boot
        if files is None:
            await self.d.b.recorder.committer.drain()
            files = await self.d.b.store.query(lambda _connection: files_of(self._home))
        await self._close()
        await self._open(files, boot)

    async def _kept(self, ticket: Ticket) -> None:
        """An answer came: whatever was applied before it is on disk."""
        if ticket is not None:
            await ticket
        for client in self.clients.values():
            producer = self.d.b.recorder.registry.producers.get((1000, id_of(client.name)))
            if producer is not None:
                client.acknowledged = max(client.acknowledged, producer.durable_seq)

    def _let_go(self, session_id: str) -> None:
        del self.sessions[session_id]
        self.gone.add(session_id)
        for client in self.clients.values():
            client.batches = {seq: each for seq, each in client.batches.items() if each != session_id}

    # What is there

    async def _reason(self, session_id: str) -> str | None:
        tracked = await self.d.b.recorder._sessions.load(session_id)
        assert tracked is not None, f"session {session_id} is gone"
        return tracked.session.head.end_reason

    async def _successor(self, session_id: str) -> str | None:
        tracked = await self.d.b.recorder._sessions.load(session_id)
        return None if tracked is None else tracked.session.head.successor

    async def _missing(self, session_id: str) -> bool:
        return await self.d.b.recorder._sessions.load(session_id) is None

    async def check(self) -> None:
        """Each session has the batches that went to it, each once; the ledger balances."""
        ledger = self.d.b.recorder.ledger.shown()
        assert ledger["received"] == ledger["counted"] + ledger["duplicates"] + sum(ledger["rejected"].values())
        for session_id, reason in self.sessions.items():
            batches = [
                seq for client in self.clients.values() for seq, each in client.batches.items() if each == session_id
            ]
            metrics = await self.d.b.recorder.metrics(self.d.b.link(OWNER), session_id)
            assert metrics.total_latency_ms == sum(2**seq for seq in batches)
            assert metrics.total_inferences == metrics.error_count == len(batches)
            assert reason in {None, await self._reason(session_id)}

    async def _settle(self) -> None:
        """In the end all that waits is sent, every ended session as it was last, and all equations hold."""
        for end in self.far.values():
            end.says = lambda _job: OK
        await self._kept(self.d.b.recorder.committer.barrier(soon=True))
        await self.replay()
        for _ in range(3):
            await self.d.pass_time(DAY_S)
        await self.d.balances()
        await self.check()
        for sink in self.far:
            tally = await self.d.tally(sink)
            assert (tally.queued, tally.dead) == (0, 0)
        for session_id in self.sessions:
            tracked = await self.d.b.recorder._sessions.load(session_id)
            assert tracked is not None
            head = tracked.session.head
            if head.revision:
                assert ("session", session_id, head.revision) in self.far["xybrid"].has
