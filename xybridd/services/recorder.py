"""What happens to a record: it finds its session, is counted, and is answered when it is on disk.

Every method that changes something returns, beside its result, a `Ticket`: the future that is done when the change
is durable, or None when it is already. Nobody may be told "done" before. Methods check everything before they change
anything; what they raise therefore means that nothing of the request was taken.
"""

from __future__ import annotations

import uuid
from asyncio import Future
from typing import TYPE_CHECKING, TypeVar

from xybridd.core.changes import Changes, SessionHead
from xybridd.core.export import SessionMetrics, TelemetryExport, session_metrics, telemetry_export
from xybridd.core.ledger import Ledger
from xybridd.core.registry import FINAL_REASONS, EndReason, Identity, Lifetimes, Producer, Registry, Tracked
from xybridd.core.session import Session, SessionLimits
from xybridd.errors import (
    HelloRequired,
    Overloaded,
    PermissionDenied,
    SessionEnded,
    StorageError,
    StorageUnavailable,
    UnknownSession,
)
from xybridd.services.committer import Committer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from xybridd.protocol.records import Record
    from xybridd.services.clock import Clock
    from xybridd.services.sampler import Sampler
    from xybridd.storage.rows import SessionFilter, SessionSummary, StoredSession
    from xybridd.storage.store import Store

T = TypeVar("T")

Ticket = Future[None] | None

_RETRY_OVERLOADED_MS = 1000


class Link:
    """One connection as the services see it: whose it is, who it says it is, and its current session."""

    __slots__ = ("current", "identity", "link_id", "process_name", "producer", "refused_seq", "uid")

    def __init__(self, link_id: int, uid: int, process_name: Callable[[], str]) -> None:
        self.link_id = link_id
        self.uid = uid
        self.process_name = process_name
        self.identity: Identity | None = None
        self.producer: Producer | None = None
        self.current: str | None = None
        #: A batch that was refused for now. Those behind it wait for it, or it would look like a duplicate.
        self.refused_seq: int | None = None

    def who(self) -> Identity:
        """Who it said it is; a peer that said nothing is known by the name of its process."""
        if self.identity is None:
            self.identity = Identity(self.uid, self.process_name())
        return self.identity


class Recorder:
    """All sessions and producers of this device, and everything that may be done to them."""

    def __init__(  # noqa: PLR0913 - the composition root names each
        self,
        *,
        store: Store,
        sampler: Sampler,
        clock: Clock,
        device_id: str,
        boot_id: str,
        owner_uid: int,
        sdk_version: str,
        commit_interval_s: float,
        limits: SessionLimits,
        lifetimes: Lifetimes,
        max_sessions: int,
    ) -> None:
        self.limits = limits
        self.lifetimes = lifetimes
        self.max_sessions = max_sessions
        self.device_id = device_id
        self.ledger = Ledger()
        self.registry = Registry()
        self.committer = Committer(self, commit_interval_s)
        #: Called when a session has lost its last connection: somebody should `sweep` when its time is up.
        self.on_lonely: Callable[[], None] = lambda: None
        self._store = store
        self._sampler = sampler
        self._clock = clock
        self._boot_id = boot_id
        self._privileged = frozenset({0, owner_uid})
        self._sdk_version = sdk_version
        self._removing: set[str] = set()
        self._collected = Changes()
        self._collected_producers: list[Producer] = []

    # Life

    async def resume(self) -> None:
        """Take up what the last run left open; sessions of another boot end as ``device_restarted``."""
        self.ledger = Ledger(await self._store.ledger())
        now_s = self._clock.monotonic_s()
        for stored in await self._store.open_sessions():
            session = self._restored(stored)
            tracked = self.registry.track(session, now_s, stored.head.started_mono_ms / 1000)
            if stored.head.boot_id != self._boot_id:
                heard = min(session.last_heard_at_ms(), self._clock.wall_ms())
                self.registry.end(tracked, "device_restarted", heard)
            elif tracked.bound:
                self.on_lonely()
        self.committer.barrier(soon=True)

    def sweep(self) -> None:
        """End the sessions whose time is up."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        for tracked, reason in self.registry.due(now_s, self.lifetimes):
            if reason == "rollover":
                self._roll_over(tracked, now_ms)
                continue
            since_s = tracked.heard_at_s if reason == "idle" else tracked.lonely_since_s
            self.registry.end(tracked, reason, now_ms - int((now_s - (since_s or now_s)) * 1000))
        self.committer.barrier(soon=False)

    def next_loss_in_s(self) -> float | None:
        """Seconds until the first session that lost its producer is to be ended by `sweep`."""
        return self.registry.next_loss_in_s(self._clock.monotonic_s(), self.lifetimes)

    def disconnected(self, link: Link) -> None:
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
            joined = await self._find(link, session_id)
            if not joined.session.active:
                raise _ended(joined)
        producer = await self._producer(identity) if identity.client_id is not None else None
        if link.producer is not None:
            link.producer.connections -= 1
        if self.registry.detach(link.link_id, self._clock.monotonic_s()):
            self.on_lonely()
        if producer is not None:
            producer.connections += 1
        link.identity, link.producer, link.current, link.refused_seq = identity, producer, None, None
        if producer is not None:
            for own in self.registry.bound_to(producer.key):
                self.registry.attach(own, link.link_id)
                link.current = own.session.session_id
        if joined is not None:
            self.registry.attach(joined, link.link_id)
            link.current = joined.session.session_id
        return producer.durable_seq if producer is not None else 0

    async def _producer(self, identity: Identity) -> Producer:
        key = (identity.uid, identity.client_id or "")
        if key not in self.registry.producers:
            image = await self._stored(self._store.producer(*key))
            last_seq = image.last_seq if image is not None else 0
            self.registry.producers.setdefault(key, Producer(*key, identity.app, last_seq))
        producer = self.registry.producers[key]
        producer.app = identity.app
        return producer

    # Sessions

    async def start(
        self, link: Link, session_id: str | None, started_at_ms: int | None, labels: dict[str, str]
    ) -> tuple[str, Ticket]:
        """Start a session, or go on in one of this user's that is active already."""
        self.committer.check()
        state = await self._sampler.state()
        if session_id is not None and await self._load(session_id) is not None:
            tracked = await self._successor(link, await self._find(link, session_id))
            if not tracked.session.active:
                raise _ended(tracked)
            self.registry.attach(tracked, link.link_id)
            link.current = tracked.session.session_id
            return link.current, self.committer.barrier(soon=True)
        head = self._head(link, session_id, started_at_ms)
        head.labels = labels
        head.client_id = link.producer.client_id if link.producer is not None else None
        head.hardware, head.details = state.capabilities, state.details(self._clock.monotonic_s())
        tracked = self._begin(head)
        self.registry.attach(tracked, link.link_id)
        link.current = head.session_id
        return head.session_id, self.committer.barrier(soon=True)

    async def metrics(self, link: Link, session_id: str | None) -> SessionMetrics:
        tracked = await self._resolve(link, session_id)
        return session_metrics(tracked.session, self.ledger.shown())

    async def export(self, link: Link, session_id: str | None) -> TelemetryExport:
        tracked = await self._resolve(link, session_id)
        return telemetry_export(tracked.session, self.ledger.shown())

    async def end(self, link: Link, session_id: str | None) -> tuple[TelemetryExport, Ticket]:
        self.committer.check()
        tracked = await self._successor(link, await self._resolve(link, session_id))
        if not tracked.session.active:
            raise _ended(tracked)
        self.registry.end(tracked, "ended", self._clock.wall_ms())
        export = telemetry_export(tracked.session, self.ledger.shown())
        return export, self.committer.barrier(soon=True)

    async def reset(self, link: Link, session_id: str | None) -> tuple[str, Ticket]:
        """End a session and start a fresh one in its place, with its labels and its producer."""
        self.committer.check()
        state = await self._sampler.state()
        try:
            old = await self._successor(link, await self._resolve(link, session_id))
        except UnknownSession:
            if session_id is not None or link.current is not None:
                raise
            tracked = await self._implicit(link)
            return tracked.session.session_id, self.committer.barrier(soon=True)
        before = old.session.head
        head = self._head(link, None, None)
        head.uid, head.app, head.labels = before.uid, before.app, before.labels
        head.client_id, head.implicit = before.client_id, before.implicit
        head.hardware, head.details = state.capabilities, state.details(self._clock.monotonic_s())
        self._check_room()
        if old.session.active:
            self.registry.end(old, "reset", self._clock.wall_ms())
        tracked = self._begin(head)
        if not head.implicit:
            self.registry.attach(tracked, link.link_id)
            link.current = head.session_id
        return head.session_id, self.committer.barrier(soon=True)

    async def sessions(self, wanted: SessionFilter) -> list[SessionSummary]:
        return await self._stored(self._store.list_sessions(wanted))

    def sees_all(self, link: Link) -> bool:
        """Root and the daemon's own user may do everything."""
        return link.uid in self._privileged

    # Records

    async def record(self, link: Link, record: Record, session_id: str | None) -> tuple[str, Ticket]:
        """One record; it is counted once if its answer arrives."""
        self.committer.check()
        tracked = await self._recordable(link, session_id)
        return self._apply(link, tracked, (record,)), self.committer.barrier(soon=True)

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
        try:
            if link.refused_seq is not None and seq > link.refused_seq:
                raise Overloaded(
                    f"batch {link.refused_seq} was refused and has not come again yet; send it first",
                    retry_after_ms=_RETRY_OVERLOADED_MS,
                )
            self.committer.check()
            tracked = await self._recordable(link, session_id)
        except (Overloaded, StorageUnavailable):
            link.refused_seq = seq if link.refused_seq is None else min(seq, link.refused_seq)
            raise
        gap = producer.gap_before(seq)
        if gap is None:  # it came over another connection while this one waited
            return await self._repeated(link, producer, seq, len(records), session_id, flush=flush)
        link.refused_seq = None
        producer.apply(seq, self._clock.wall_ms())
        self.ledger.miss(gap)
        self.ledger.dropped_by_client(dropped)
        answered = self._apply(link, tracked, records, producer)
        return seq, answered, self.committer.barrier(soon=flush)

    async def _repeated(
        self, link: Link, producer: Producer, seq: int, count: int, session_id: str | None, *, flush: bool
    ) -> tuple[int, str | None, Ticket]:
        self.ledger.duplicate(count)
        try:
            tracked = await self._successor(link, await self._resolve(link, session_id))
            answered = tracked.session.session_id
        except UnknownSession:
            answered = None
        barrier = self.committer.barrier(soon=flush)
        if seq <= producer.durable_seq:
            return producer.durable_seq, answered, None
        return seq, answered, barrier

    def refuse(self, records: int, reason: str) -> None:
        """Count records that were not taken."""
        self.ledger.reject(records, reason)
        self.committer.barrier(soon=False)

    def flush(self, link: Link) -> Ticket:
        if not self.sees_all(link):
            raise PermissionDenied("daemon.flush is for root and the daemon's own user")
        return self.committer.barrier(soon=True)

    def remove(self, sessions: dict[str, int], reason: str) -> Ticket:
        """Delete ended sessions and count the records that go with them; those in memory are left for later."""
        chosen = {sid: count for sid, count in sessions.items() if sid not in self.registry.sessions}
        self._removing.update(chosen)
        self.ledger.remove(sum(chosen.values()), reason)
        return self.committer.barrier(soon=True)

    # What the committer asks for

    def dirty(self) -> bool:
        registry = self.registry
        return bool(registry.changed_sessions or registry.changed_producers or self._removing or self.ledger.dirty)

    def collect(self) -> Awaitable[None]:
        self._collected = Changes(deleted_sessions=list(self._removing), ledger=self.ledger.take_changes())
        self._collected_producers = self.registry.take_changes(self._collected)
        return self._store.write(self._collected)

    def retry(self) -> Awaitable[None]:
        return self._store.write(self._collected)

    async def rescue(self, reason: str) -> None:
        """After damage: what memory holds is newer than what was salvaged, so all of it is written on top."""
        await self._store.salvage(reason, self._clock.wall_ms())
        self.registry.note_all()
        self.ledger.change_all()
        everything = Changes(
            deleted_sessions=self._collected.deleted_sessions,
            ledger=self._collected.ledger | self.ledger.take_changes(),
        )
        self._collected_producers = self.registry.take_changes(everything)
        self._collected = everything
        await self._store.write(everything)
        self.ledger.remove(max(0, await self._store.unaccounted()), "damage")

    def settle(self) -> None:
        for producer, image in zip(self._collected_producers, self._collected.producers, strict=True):
            producer.durable_seq = image.last_seq
        self.registry.settle()
        self._removing.difference_update(self._collected.deleted_sessions)
        self._collected, self._collected_producers = Changes(), []
        self.registry.trim()

    # How it finds and makes sessions

    async def _load(self, session_id: str) -> Tracked | None:
        """The session of that id, whoever's it is; None when there is none."""
        tracked = self.registry.sessions.get(session_id)
        if tracked is not None:
            return tracked
        stored = await self._stored(self._store.session(session_id))
        if stored is None or session_id in self._removing:
            return None
        # Another request may have loaded it while this one waited; there must only ever be one.
        return self.registry.sessions.get(session_id) or self.registry.track(
            self._restored(stored), self._clock.monotonic_s(), stored.head.started_mono_ms / 1000
        )

    async def _find(self, link: Link, session_id: str) -> Tracked:
        """The session of that id; UnknownSession also when it is another user's."""
        tracked = await self._load(session_id.lower())
        if tracked is None or (tracked.session.head.uid != link.uid and not self.sees_all(link)):
            raise UnknownSession(f"there is no session {session_id[:64]}")
        return tracked

    async def _resolve(self, link: Link, session_id: str | None) -> Tracked:
        """The session that is meant: the one named, the current one, or the last implicit one."""
        if session_id is not None:
            return await self._find(link, session_id)
        if link.current is not None:
            return await self._successor(link, await self._find(link, link.current))
        who = link.who()
        implicit = self.registry.implicit_of(who)
        if implicit is not None:
            return implicit
        last = await self._stored(self._store.last_implicit(who.uid, who.app))
        if last is None:
            raise UnknownSession(
                f"{who.app} has no session yet: call session.start, record something, or name a session_id"
            )
        return await self._find(link, last)

    async def _successor(self, link: Link, tracked: Tracked) -> Tracked:
        """Where a session that rolled over goes on."""
        rolled = tracked.session.head
        while tracked.session.head.end_reason == "rollover" and tracked.session.head.successor is not None:
            tracked = await self._find(link, tracked.session.head.successor)
        if link.current == rolled.session_id:
            link.current = tracked.session.session_id
        return tracked

    async def _recordable(self, link: Link, session_id: str | None) -> Tracked:
        """The session that a record goes to; made if the connection has none."""
        if session_id is None and link.current is None:
            return self.registry.implicit_of(link.who()) or await self._implicit(link)
        tracked = await self._successor(link, await self._resolve(link, session_id))
        if tracked.session.head.end_reason in FINAL_REASONS:
            raise _ended(tracked)
        return tracked

    async def _implicit(self, link: Link) -> Tracked:
        state = await self._sampler.state()
        made_meanwhile = self.registry.implicit_of(link.who())
        if made_meanwhile is not None:
            return made_meanwhile
        head = self._head(link, None, None)
        head.implicit = True
        head.hardware, head.details = state.capabilities, state.details(self._clock.monotonic_s())
        return self._begin(head)

    def _head(self, link: Link, session_id: str | None, started_at_ms: int | None) -> SessionHead:
        who = link.who()
        return SessionHead(
            session_id=session_id or str(uuid.uuid4()),
            device_id=self.device_id,
            uid=who.uid,
            app=who.app,
            app_version=who.app_version,
            sdk_version=who.sdk_version or self._sdk_version,
            started_at_ms=self._clock.wall_ms() if started_at_ms is None else started_at_ms,
            started_mono_ms=int(self._clock.monotonic_s() * 1000),
            boot_id=self._boot_id,
        )

    def _check_room(self) -> None:
        if self.registry.active_count() >= self.max_sessions:
            raise Overloaded(
                f"{self.max_sessions} sessions are active already (limits.max_sessions)",
                retry_after_ms=_RETRY_OVERLOADED_MS,
            )

    def _begin(self, head: SessionHead) -> Tracked:
        self._check_room()
        session = Session(head, self.limits)
        self.registry.note(session)
        return self.registry.track(session, self._clock.monotonic_s())

    def _roll_over(self, tracked: Tracked, now_ms: int) -> None:
        before = tracked.session.head
        now_s = self._clock.monotonic_s()
        head = SessionHead(
            session_id=str(uuid.uuid4()),
            device_id=self.device_id,
            uid=before.uid,
            app=before.app,
            app_version=before.app_version,
            sdk_version=before.sdk_version,
            started_at_ms=now_ms,
            started_mono_ms=int(now_s * 1000),
            boot_id=self._boot_id,
            client_id=before.client_id,
            implicit=before.implicit,
            labels=before.labels,
            hardware=before.hardware,
            details=before.details,
        )
        self.registry.end(tracked, "rollover", now_ms, successor=head.session_id)
        session = Session(head, self.limits)
        self.registry.note(session)
        successor = self.registry.track(session, now_s)
        successor.attached, tracked.attached = tracked.attached, set()
        successor.lonely_since_s = tracked.lonely_since_s

    def _restored(self, stored: StoredSession) -> Session:
        return Session.restored(stored.head, self.limits, stored.models, stored.errors)

    def _apply(self, link: Link, tracked: Tracked, records: Sequence[Record], producer: Producer | None = None) -> str:
        session = tracked.session
        session.apply(records, self._clock.wall_ms())
        self.ledger.count(len(records))
        tracked.heard_at_s = self._clock.monotonic_s()
        self.registry.note(session, producer)
        if tracked.bound and session.active:
            self.registry.attach(tracked, link.link_id)
        return session.session_id

    async def _stored(self, answer: Awaitable[T]) -> T:
        """What storage answers; a disk that cannot be read is a refusal, not a crash."""
        try:
            return await answer
        except StorageError as error:
            raise StorageUnavailable(
                f"the daemon cannot read from its disk: {error}", retry_after_ms=_RETRY_OVERLOADED_MS
            ) from error


def _ended(tracked: Tracked) -> SessionEnded:
    head = tracked.session.head
    reason: EndReason | str | None = head.end_reason
    return SessionEnded(f"session {head.session_id} has ended ({reason}); start a new one with session.start")
