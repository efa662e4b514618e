"""What happens to a record: it finds its session, is counted, and is answered when it is on disk.

Every method that changes something returns, beside its result, a `Ticket`: the future that is done when the change
is durable, or None when it is already. Nobody may be told "done" before. Methods check everything before they change
anything; what they raise therefore means that nothing of the request was taken.
"""

from __future__ import annotations

from asyncio import Future, shield, sleep
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.conditions import Surroundings, surroundings_of
from xybridd.core.export import SessionMetrics, TelemetryExport, session_metrics, telemetry_export
from xybridd.core.ledger import Ledger
from xybridd.core.minute import MinuteFilter, sample_of
from xybridd.core.minute_json import MinutesResult, to_json
from xybridd.core.registry import Identity, Lifetimes, Producer, Registry, Tracked
from xybridd.errors import (
    CorruptDatabase,
    HelloRequired,
    InvalidParams,
    Overloaded,
    PermissionDenied,
    StorageUnavailable,
    UnknownSession,
)
from xybridd.services.committer import Committer
from xybridd.services.pending import Pending
from xybridd.services.ring_sessions import RingSessions
from xybridd.services.sessions import RETRY_OVERLOADED_MS, Installation, Link, Sessions, ended_error
from xybridd.services.timekeeper import Timekeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xybridd.core.capabilities import DeviceState
    from xybridd.core.changes import SessionHead
    from xybridd.core.ring import Run
    from xybridd.protocol.records import Record
    from xybridd.services.clock import Clock
    from xybridd.services.sampler import Sampler
    from xybridd.storage.rows import SessionFilter, SessionSummary
    from xybridd.storage.store import Store

Ticket = Future[None] | None

#: So many minutes are made ready for an answer before others have their turn: a full one takes half a millisecond.
_MINUTES_A_TURN = 8


class Recorder:
    """Everything that may be done to the sessions and producers of this device."""

    def __init__(
        self,
        *,
        store: Store,
        sampler: Sampler,
        clock: Clock,
        installation: Installation,
        lifetimes: Lifetimes,
        commit_interval_s: float,
        since_boot_ms: Callable[[], int] | None = None,
    ) -> None:
        self.lifetimes = lifetimes
        self.installation = installation
        self._around = Surroundings()
        self._clock = clock
        self._store = store
        self._sessions = Sessions(store, sampler, clock, installation)
        self.pending = Pending(store, self._sessions, clock)
        up_ms = since_boot_ms or (lambda: int(clock.monotonic_s() * 1000))
        self.time = Timekeeper(clock, up_ms, self._sessions.registry, self.pending)
        self.committer = Committer(
            self.pending, commit_interval_s, installation.max_waiting, installation.max_waiting_each
        )
        self.ring_sessions = RingSessions(self)
        self._sessions.mend = partial(self.committer.barrier, soon=True)
        self._sessions.mended = self._mended
        self._sessions.heard_ms = self.time.heard_ms
        #: Called when a session has lost its last connection: somebody should `sweep` when its time is up.
        self.on_lonely: Callable[[], None] = lambda: None
        #: Called when something was recorded: the device is to be looked at more often.
        self.on_record: Callable[[], None] = lambda: None
        #: Called with what was counted while somebody watches; None while nobody does.
        self.on_counted: Callable[[SessionHead, Sequence[Record], int], None] | None = None
        self._recorded_s = clock.monotonic_s()
        self._recorded_in_minute = False

    def quiet_for_s(self) -> float:
        """How long nothing was recorded."""
        return self._clock.monotonic_s() - self._recorded_s

    @property
    def registry(self) -> Registry:
        return self._sessions.registry

    @property
    def ledger(self) -> Ledger:
        return self.pending.ledger

    # Life

    async def resume(self) -> None:
        """Take up what the last run left open."""
        try:
            await self._take_up()
        except CorruptDatabase as error:
            # Damage that shows only while reading: what was read so far is forgotten, and read again when salvaged.
            await self._store.salvage(str(error), self._clock.wall_ms(), balanced=True)
            self.registry.clear()
            await self._take_up()
        self.on_lonely()
        self.committer.later()

    async def _take_up(self) -> None:
        self.pending.ledger = Ledger(await self._store.ledger())
        await self.time.load(self._store, self.installation.boot_id)
        await self._sessions.resume()
        self.time.look()

    def _mended(self) -> Ticket:
        """Done when times on disk are as they should be; None when they are."""
        return self.committer.barrier(soon=True) if self.pending.mending else None

    async def age_now_ms(self) -> int:
        """The time by which ages of what is on disk are reckoned; 0 while nobody knows it."""
        now_ms = self.time.age_now_ms()
        if (mended := self._mended()) is not None:
            await shield(mended)
        return now_ms

    def sweep(self) -> None:
        """End the sessions whose time is up."""
        self.time.look()
        self._sessions.sweep(self.lifetimes)
        self.committer.later()

    def close_minute(self, state: DeviceState | None = None) -> None:
        """A minute is over: what was recorded in it is written as one, and how the device was meanwhile."""
        self.time.look()
        now_ms = self._clock.wall_ms()
        self.registry.close_minutes(now_ms)
        # Sessions that ended meanwhile have closed theirs themselves.
        recorded, self._recorded_in_minute = self._recorded_in_minute, False
        if recorded and state is not None:
            mono_ms = int(self._clock.monotonic_s() * 1000)
            self.pending.keep(sample_of(state, now_ms, mono_ms, self.installation.boot_id))
        self.committer.later()

    def snapshot(self, every_s: float) -> None:
        """A new revision, and an export, of each session that was recorded into and got none for so long."""
        now_s = self._clock.monotonic_s()
        for tracked in self.registry.sessions.values():
            if tracked.session.active and now_s - tracked.exported_at_s >= every_s:
                tracked.exported_at_s = now_s
                if tracked.session.snapshot():
                    self.registry.note(tracked.session)
        self.committer.later()

    def surround(self, state: DeviceState) -> None:
        """The device as it is now: what is recorded from here on was recorded under these conditions."""
        around = surroundings_of(state)
        if around == self._around:
            return
        self.time.look()
        known, self._around = self._around != Surroundings(), around
        for tracked in self.registry.sessions.values() if known else ():
            if tracked.session.active:
                tracked.session.change_over(self._clock.wall_ms(), around)
                self.registry.note(tracked.session)
        self.committer.later()

    def next_loss_in_s(self) -> float | None:
        """Seconds until the first session that lost its producer is to be ended by `sweep`."""
        return self.registry.next_loss_in_s(self._clock.monotonic_s(), self.lifetimes)

    def disconnected(self, link: Link) -> None:
        link.gone = True
        if link.producer is not None:
            link.producer.connections -= 1
        if self.registry.detach(link.link_id, self._clock.monotonic_s()):
            self.on_lonely()
        self.registry.trim()

    # Producers

    async def hello(self, link: Link, identity: Identity, session_id: str | None) -> int:
        """Say who a connection is; the highest durable batch of its producer."""
        joined = None
        if session_id is not None:
            joined = await self._sessions.successor(link, await self._sessions.find(link, session_id))
            if not joined.session.active:
                raise ended_error(joined)
        producer = await self.producer(identity) if identity.client_id is not None else None
        if link.producer is not None:
            link.producer.connections -= 1
        if self.registry.detach(link.link_id, self._clock.monotonic_s()):
            self.on_lonely()
        link.identity, link.producer, link.current, link.refused_seq = identity, producer, None, None
        if producer is not None:
            producer.connections += not link.gone
            for own in self.registry.bound_to(producer.key):
                self._enter(link, own)
        if joined is not None:
            self._enter(link, joined)
        return producer.durable_seq if producer is not None else 0

    async def producer(self, identity: Identity) -> Producer:
        """The producer of a user and client id (a ring has an id of its own), as it was written last."""
        key = (identity.uid, identity.client_id or "")
        if key not in self.registry.producers:
            image = await self._sessions.read(partial(self._store.producer, *key))
            producer = Producer(*key, identity.app)
            if image is not None:
                producer.restore(image)
            self.registry.producers.setdefault(key, producer)
            self.registry.taken_up()
        producer = self.registry.producers[key]
        producer.app = identity.app
        return producer

    def _enter(self, link: Link, tracked: Tracked) -> str:
        """Make it the connection's current session."""
        self._attach(link, tracked)
        link.current = tracked.session.session_id
        return link.current

    def _attach(self, link: Link, tracked: Tracked) -> None:
        if link.gone:
            self.on_lonely()
        else:
            self.registry.attach(tracked, link.link_id, link.pid)

    # Sessions

    async def start(
        self, link: Link, session_id: str | None, started_at_ms: int | None, labels: dict[str, str]
    ) -> tuple[str, Ticket]:
        """Start a session, or go on in one of this user's that is active already."""
        self.committer.check(self._bounded(link))
        self.time.look()
        if started_at_ms is not None and link.boot_id in {"", self.installation.boot_id}:
            started_at_ms = self.time.timeline.corrected(started_at_ms)
        head = await self._sessions.new_head(link, session_id, started_at_ms)
        if await self._sessions.load(head.session_id) is not None:
            tracked = await self._sessions.successor(link, await self._sessions.find(link, head.session_id))
            if not tracked.session.active:
                raise ended_error(tracked)
        else:
            head.labels = labels
            head.client_id = link.producer.client_id if link.producer is not None else None
            tracked = self._sessions.begin(head)
        return self._enter(link, tracked), self._ticket(link, soon=True)

    async def metrics(self, link: Link, session_id: str | None) -> SessionMetrics:
        tracked = await self._sessions.resolve(link, session_id)
        return session_metrics(tracked.session, self.pending.shown_ledger())

    async def export(self, link: Link, session_id: str | None) -> TelemetryExport:
        tracked = await self._sessions.resolve(link, session_id)
        return telemetry_export(tracked.session, self.pending.shown_ledger())

    async def end(self, link: Link, session_id: str | None) -> tuple[TelemetryExport, Ticket]:
        self.committer.check(self._bounded(link))
        tracked = await self._sessions.successor(link, await self._sessions.resolve(link, session_id))
        if not tracked.session.active:
            raise ended_error(tracked)
        self.time.look()
        self.registry.end(tracked, "ended", self._clock.wall_ms())
        export = telemetry_export(tracked.session, self.pending.shown_ledger())
        return export, self._ticket(link, soon=True)

    async def reset(self, link: Link, session_id: str | None) -> tuple[str, Ticket]:
        """End a session and start a fresh one in its place, with its labels and its producer."""
        self.committer.check(self._bounded(link))
        fresh = await self._sessions.new_head(link)
        try:
            old = await self._sessions.successor(link, await self._sessions.resolve(link, session_id))
        except UnknownSession:
            if session_id is not None or link.current is not None:
                raise
            tracked = await self._sessions.implicit(link)
            return tracked.session.session_id, self._ticket(link, soon=True)
        before = old.session.head
        head = msgspec.structs.replace(
            fresh,
            uid=before.uid,
            app=before.app,
            labels=before.labels,
            client_id=before.client_id,
            implicit=before.implicit,
        )
        if old.session.active:
            self.registry.end(old, "reset", self._clock.wall_ms())
            tracked = self._sessions.begin(head, instead=True)
        else:
            tracked = self._sessions.begin(head)
        if not head.implicit:
            self._enter(link, tracked)
        return head.session_id, self._ticket(link, soon=True)

    async def sessions(self, wanted: SessionFilter) -> list[SessionSummary]:
        found = await self._sessions.read(partial(self._store.list_sessions, wanted))
        return [msgspec.structs.replace(each, pids=self.registry.held_by(each.session_id)) for each in found]

    async def minutes(self, link: Link, wanted: MinuteFilter) -> MinutesResult:
        """What was recorded, minute by minute; the last page ends with the minutes that are still open.

        A user sees that of own sessions, root and the daemon's user everybody's.
        """
        wanted = msgspec.structs.replace(wanted, uid=None if self.sees_all(link) else link.uid)
        page = await self._sessions.read(partial(self._store.minute_page, wanted))
        still_open = self.registry.open_minutes(wanted) if page.next is None else []
        shown = []
        for at, each in enumerate(page.minutes):
            shown.append(to_json(each))
            if at % _MINUTES_A_TURN == _MINUTES_A_TURN - 1:
                await sleep(0)  # the others' turn
        return MinutesResult(shown + [to_json(each, still_open=True) for each in still_open], page.next)

    def sees_all(self, link: Link) -> bool:
        """Root and the daemon's own user may do everything."""
        return self._sessions.sees_all(link)

    def _bounded(self, link: Link) -> int | None:
        """Whose share of the waiting answers it is; None for who may have them all."""
        return None if self.sees_all(link) else link.uid

    def _ticket(self, link: Link, *, soon: bool) -> Ticket:
        return self.committer.barrier(soon=soon, uid=self._bounded(link))

    # Records

    async def record(self, link: Link, record: Record, session_id: str | None) -> tuple[str, Ticket]:
        """One record; it is counted once if its answer arrives."""
        self.committer.check(self._bounded(link))
        tracked = await self._sessions.recordable(link, session_id)
        return self._apply(link, tracked, (record,)), self._ticket(link, soon=True)

    async def batch(
        self,
        link: Link,
        seq: int,
        records: Sequence[Record],
        *,
        session_id: str | None,
        flush: bool,
        dropped: int,
    ) -> tuple[int, str | None, Ticket]:
        """A numbered batch: counted once, however often it comes."""
        producer = link.producer
        if producer is None:
            raise HelloRequired("a batch needs a producer: say hello with a client_id on this connection first")
        if producer.gap_before(seq) is None:
            return await self._repeated(link, producer, seq, len(records), session_id, flush=flush)
        tracked = await self._for_batch(link, seq, session_id)
        gap = producer.gap_before(seq)
        if gap is None:  # it came over another connection while this one waited
            return await self._repeated(link, producer, seq, len(records), session_id, flush=flush)
        link.refused_seq = None
        producer.apply(seq, self._clock.wall_ms())
        self.ledger.miss(gap)
        self.ledger.dropped_by_client(dropped)
        answered = self._apply(link, tracked, records, producer)
        return seq, answered, self._ticket(link, soon=flush)

    async def _for_batch(self, link: Link, seq: int, session_id: str | None) -> Tracked:
        """Where a batch goes. One refused for now is remembered, so that none behind it overtakes it."""
        try:
            if link.refused_seq is not None and seq > link.refused_seq:
                raise Overloaded(
                    f"batch {link.refused_seq} was refused and has not come again yet; send it first",
                    retry_after_ms=RETRY_OVERLOADED_MS,
                )
            self.committer.check(self._bounded(link))
            return await self._sessions.recordable(link, session_id)
        except (Overloaded, StorageUnavailable):
            link.refused_seq = seq if link.refused_seq is None else min(seq, link.refused_seq)
            raise

    async def _repeated(
        self, link: Link, producer: Producer, seq: int, count: int, session_id: str | None, *, flush: bool
    ) -> tuple[int, str | None, Ticket]:
        self.ledger.duplicate(count)
        try:
            tracked = await self._sessions.successor(link, await self._sessions.resolve(link, session_id))
            answered = tracked.session.session_id
        except UnknownSession:
            answered = None
        if seq <= producer.durable_seq:
            self.committer.later()
            return producer.durable_seq, answered, None
        return seq, answered, self._ticket(link, soon=flush)

    def _apply(self, link: Link, tracked: Tracked, records: Sequence[Record], producer: Producer | None = None) -> str:
        session = tracked.session
        self.time.look()
        records = self.time.corrected(records, link.boot_id)
        now_ms = self._clock.wall_ms()
        session.apply(records, now_ms, self._around)
        self._counted(link, tracked, len(records), records, now_ms, producer)
        return session.session_id

    def _counted(
        self,
        link: Link,
        tracked: Tracked,
        count: int,
        records: Sequence[Record],
        now_ms: int,
        producer: Producer | None,
    ) -> None:
        self.ledger.count(count)
        tracked.heard_at_s = self._recorded_s = self._clock.monotonic_s()
        self._recorded_in_minute = True
        self.on_record()
        self.registry.note(tracked.session, producer)
        if tracked.bound and tracked.session.active:
            self._attach(link, tracked)
        if self.on_counted is not None and records:
            self.on_counted(tracked.session.head, records, now_ms)

    # Rings

    def check(self, link: Link) -> None:
        """Raises StorageUnavailable or Overloaded while nothing more may be recorded by this user."""
        self.committer.check(self._bounded(link))

    async def find_successor(self, link: Link, session_id: str) -> Tracked:
        """The session of that id, or where it went on when it rolled over. Raises UnknownSession."""
        return await self._sessions.successor(link, await self._sessions.find(link, session_id))

    def count_run(self, link: Link, tracked: Tracked, run: Run, records: Sequence[Record], producer: Producer) -> None:
        """Count a run of a ring's slots in a session; ``records``: the same, one by one, for subscribers."""
        self.count_apart(run)
        now_ms = self._clock.wall_ms()
        tracked.session.count(run.calls, run.others, run.length, now_ms, self._around)
        self._counted(link, tracked, run.records, records, now_ms, producer)

    def count_apart(self, run: Run) -> None:
        """What a run says of records that are in no session."""
        self.ledger.reject(run.rejected, InvalidParams.code)
        self.ledger.dropped_by_client(run.dropped)

    def refuse(self, records: int, reason: str) -> None:
        """Count records that were not taken."""
        self.ledger.reject(records, reason)
        self.committer.later()

    def flush(self, link: Link) -> Ticket:
        if not self.sees_all(link):
            raise PermissionDenied("daemon.flush is for root and the daemon's own user")
        return self.committer.barrier(soon=True)

    async def owned(self, link: Link, session_id: str) -> str:
        """The whole id of a session that this user may dispose of. Raises UnknownSession."""
        return (await self._sessions.find(link, session_id)).session.session_id

    async def all_sessions(self) -> list[str]:
        """The ids of all there are, on disk and in memory."""
        stored = await self._sessions.read(self._store.session_ids)
        return list(dict.fromkeys([*stored, *self.registry.sessions]))

    async def forget(self, session_ids: list[str]) -> int:
        """Delete sessions whatever state they are in, on disk when this returns; how many records went with them."""
        records = 0
        for session_id in session_ids:
            tracked = await self._sessions.load(session_id)
            if tracked is not None:
                records += tracked.session.record_count
                self.registry.drop(session_id)
                self._sessions.forgetting.add(session_id)
        self.ledger.remove(records, "forgotten")
        if (ticket := self.committer.barrier(soon=True)) is not None:
            await shield(ticket)
        return records

    def remove(self, sessions: dict[str, int], reason: str) -> Ticket:
        """Delete ended sessions and count the records that go with them; those in use are left for later.

        ``sessions``: how many records are in each, on disk.
        """
        removing = self._sessions.removing
        chosen = [sid for sid in sessions if sid not in removing and self.registry.let_go(sid)]
        removing.update(chosen)
        self.ledger.remove(sum(sessions[session_id] for session_id in chosen), reason)
        return self.committer.barrier(soon=True)
