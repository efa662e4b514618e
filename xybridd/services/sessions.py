"""Which session is meant: found in memory or on disk, followed to its successor, or made.

`Sessions` owns the registry and is the only one that puts sessions into it. Whatever it hands out is the one live copy
of that session; a caller changes it without waiting for anything in between.
"""

from __future__ import annotations

import uuid
from asyncio import shield
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from xybridd.core.changes import SessionHead
from xybridd.core.registry import FINAL_REASONS, Identity, Lifetimes, Producer, Registry, Tracked
from xybridd.core.session import Session, SessionLimits
from xybridd.errors import (
    CorruptDatabase,
    Overloaded,
    SessionEnded,
    StorageError,
    StorageUnavailable,
    UnknownSession,
)

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable

    from xybridd.core.capabilities import DeviceState
    from xybridd.services.clock import Clock
    from xybridd.services.sampler import Sampler
    from xybridd.storage.rows import StoredSession
    from xybridd.storage.store import Store

T = TypeVar("T")

RETRY_OVERLOADED_MS = 1000


class Link:
    """One connection as the services see it: whose it is, who it says it is, and its current session."""

    __slots__ = (
        "boot_id",
        "current",
        "gone",
        "identity",
        "link_id",
        "pid",
        "process_name",
        "producer",
        "push",
        "refused_seq",
        "take_file",
        "uid",
    )

    def __init__(self, link_id: int, uid: int, process_name: Callable[[], str], pid: int = 0) -> None:
        self.link_id = link_id
        self.uid = uid
        self.pid = pid
        self.process_name = process_name
        self.identity: Identity | None = None
        self.producer: Producer | None = None
        self.current: str | None = None
        #: The boot by whose clock it tells times, if it said so.
        self.boot_id = ""
        #: Sends a notification to the other end; whether it did. One that does not read gets none once so many bytes
        #: (the third argument, 0 without it) wait for it.
        self.push: Callable[..., bool] = lambda _method, _params, _most_waiting_bytes=0: False
        #: The open file that came with a request, now the caller's; None when none came.
        self.take_file: Callable[[], int | None] = lambda: None
        #: It broke. A request of it that was waiting meanwhile must not bring it back into a session.
        self.gone = False
        #: A batch that was refused for now. Those behind it wait for it, or it would look like a duplicate.
        self.refused_seq: int | None = None

    def who(self) -> Identity:
        """Who it said it is; a peer that said nothing is known by the name of its process."""
        if self.identity is None:
            # A process may have a name that is no text; what is stored must be.
            name = self.process_name().encode("utf-8", "replace").decode()
            self.identity = Identity(self.uid, name)
        return self.identity


class Installation(msgspec.Struct, frozen=True):
    """What is the same for every session of this run. ``owner_uid`` and root may do everything."""

    device_id: str
    boot_id: str
    owner_uid: int
    sdk_version: str
    limits: SessionLimits
    max_sessions: int
    #: Of those, how many one user may have who is not one of the two above.
    max_sessions_each: int | None = None
    #: Answers that may wait for the disk, and those to one such user.
    max_waiting: int = 20_000
    max_waiting_each: int | None = None

    def may_do_all(self, uid: int) -> bool:
        """Root and the daemon's own user."""
        return uid in {0, self.owner_uid}


def ended_error(tracked: Tracked) -> SessionEnded:
    head = tracked.session.head
    return SessionEnded(f"session {head.session_id} has ended ({head.end_reason}); start a new one with session.start")


class Sessions:
    def __init__(self, store: Store, sampler: Sampler, clock: Clock, installation: Installation) -> None:
        self.registry = Registry()
        self.installation = installation
        #: Sessions that the next commit deletes; nobody finds them any more.
        self.removing: set[str] = set()
        self.forgetting: set[str] = set()
        #: Has a damaged database salvaged; done when it is.
        self.mend: Callable[[], Future[None] | None] = lambda: None
        #: Done when times on disk that a wrong clock wrote are corrected; None when there are none.
        self.mended: Callable[[], Future[None] | None] = lambda: None
        #: A time, or now if that is earlier and known.
        self.heard_ms: Callable[[int], int] = lambda time_ms: time_ms
        self._details: tuple[DeviceState, dict[str, Any]] | None = None
        self._store = store
        self._sampler = sampler
        self._clock = clock

    # Found

    async def read(self, query: Callable[[], Awaitable[T]]) -> T:
        """What storage answers. Damage is mended first; a disk that cannot be read is a refusal, not a crash."""
        try:
            try:
                return await query()
            except CorruptDatabase:
                if (mended := self.mend()) is not None:
                    await shield(mended)
                return await query()
        except StorageError as error:
            raise StorageUnavailable(
                f"the daemon cannot read from its disk: {error}", retry_after_ms=RETRY_OVERLOADED_MS
            ) from error

    def sees_all(self, link: Link) -> bool:
        """Root and the daemon's own user may do everything."""
        return self.installation.may_do_all(link.uid)

    async def load(self, session_id: str) -> Tracked | None:
        """The session of that id, whoever's it is; None when there is none."""
        tracked = self.registry.sessions.get(session_id)
        if tracked is not None:
            return tracked
        while True:
            found = await self.read(partial(self._store.session, session_id))
            if (mended := self.mended()) is None:
                break
            await shield(mended)
        # Another request may have loaded it, or started it, while this one waited; there must only ever be one.
        tracked = self.registry.sessions.get(session_id)
        if tracked is not None or found is None or session_id in self.removing or session_id in self.forgetting:
            return tracked
        tracked = self.track(found)
        self.registry.taken_up()
        return tracked

    async def find(self, link: Link, session_id: str) -> Tracked:
        """The session of that id; UnknownSession also when it is another user's."""
        tracked = await self.load(session_id.lower())
        if tracked is None or (tracked.session.head.uid != link.uid and not self.sees_all(link)):
            raise UnknownSession(f"there is no session {session_id[:64]}")
        return tracked

    async def resolve(self, link: Link, session_id: str | None) -> Tracked:
        """The session that is meant: the one named, the current one, or the last implicit one."""
        if session_id is not None:
            return await self.find(link, session_id)
        if link.current is not None:
            return await self.successor(link, await self.find(link, link.current))
        who = link.who()
        implicit = self.registry.implicit_of(who)
        if implicit is not None:
            return implicit
        last = await self.read(partial(self._store.last_implicit, who.uid, who.app))
        if last is None:
            raise UnknownSession(
                f"{who.app} has no session yet: call session.start, record something, or name a session_id"
            )
        return await self.find(link, last)

    async def successor(self, link: Link, tracked: Tracked) -> Tracked:
        """Where a session that rolled over goes on; any other is its own successor."""
        rolled = tracked.session.head
        while tracked.session.head.end_reason == "rollover" and tracked.session.head.successor is not None:
            tracked = await self.find(link, tracked.session.head.successor)
        if link.current == rolled.session_id:
            link.current = tracked.session.session_id
        return tracked

    async def recordable(self, link: Link, session_id: str | None) -> Tracked:
        """The session that a record goes to; made if the connection has none."""
        if session_id is None and link.current is None:
            return self.registry.implicit_of(link.who()) or await self.implicit(link)
        tracked = await self.successor(link, await self.resolve(link, session_id))
        if tracked.session.head.end_reason in FINAL_REASONS:
            raise ended_error(tracked)
        return tracked

    # Made

    async def implicit(self, link: Link) -> Tracked:
        """The active implicit session of this user and app."""
        head = await self.new_head(link)
        made_meanwhile = self.registry.implicit_of(link.who())
        if made_meanwhile is not None:
            return made_meanwhile
        head.implicit = True
        return self.begin(head)

    async def new_head(
        self, link: Link, session_id: str | None = None, started_at_ms: int | None = None
    ) -> SessionHead:
        """What a session of this connection is, with the device as it is now."""
        state = await self._sampler.state()
        who, now_s = link.who(), self._clock.monotonic_s()
        return SessionHead(
            session_id=session_id or str(uuid.uuid4()),
            device_id=self.installation.device_id,
            uid=who.uid,
            app=who.app,
            app_version=who.app_version,
            sdk_version=who.sdk_version or self.installation.sdk_version,
            started_at_ms=self._clock.wall_ms() if started_at_ms is None else started_at_ms,
            started_mono_ms=int(now_s * 1000),
            boot_id=self.installation.boot_id,
            hardware=state.capabilities,
            details=self._details_of(state, now_s),
        )

    def _details_of(self, state: DeviceState, now_s: float) -> dict[str, Any]:
        """Shared by all sessions that start while this state is fresh: never changed, and some kilobytes large."""
        if self._details is None or self._details[0] is not state:
            self._details = state, state.details(now_s)
        return self._details[1]

    def _check_room(self, uid: int) -> None:
        """Raises Overloaded when no more sessions may be active, of this user or at all."""
        share = self.installation.max_sessions_each
        if share is not None and not self.installation.may_do_all(uid) and self.registry.active_count(uid) >= share:
            raise Overloaded(
                f"{share} sessions of this user are active already (limits.user_percent of limits.max_sessions)",
                retry_after_ms=RETRY_OVERLOADED_MS,
            )
        if self.registry.active_count() >= self.installation.max_sessions:
            raise Overloaded(
                f"{self.installation.max_sessions} sessions are active already (limits.max_sessions)",
                retry_after_ms=RETRY_OVERLOADED_MS,
            )

    def begin(self, head: SessionHead, *, instead: bool = False) -> Tracked:
        """Raises Overloaded, unless it comes ``instead`` of one that just ended."""
        if not instead:
            self._check_room(head.uid)
        session = Session(head, self.installation.limits)
        self.registry.note(session)
        return self.registry.track(session, self._clock.monotonic_s())

    def track(self, found: StoredSession) -> Tracked:
        session = Session.restored(found.head, self.installation.limits, found.models, found.errors, found.closed)
        return self.registry.track(session, self._clock.monotonic_s(), found.head.started_mono_ms / 1000)

    # Ended by time

    async def resume(self) -> None:
        """Take up what the last run left open; sessions of another boot end as ``device_restarted``."""
        for found in await self._store.open_sessions():
            tracked = self.track(found)
            if found.head.boot_id != self.installation.boot_id:
                heard_ms = self.heard_ms(tracked.session.last_heard_at_ms())
                self.registry.end(tracked, "device_restarted", heard_ms)

    def sweep(self, lifetimes: Lifetimes) -> None:
        """End the sessions whose time is up, at the moment when they were last heard of."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        for tracked, reason in self.registry.due(now_s, lifetimes):
            if reason == "rollover":
                self._roll_over(tracked, now_s, now_ms)
                continue
            since_s = tracked.heard_at_s if reason == "idle" else tracked.lonely_since_s
            ago_s = 0.0 if since_s is None else now_s - since_s
            self.registry.end(tracked, reason, now_ms - int(ago_s * 1000))

    def _roll_over(self, tracked: Tracked, now_s: float, now_ms: int) -> None:
        head = msgspec.structs.replace(
            tracked.session.head,
            session_id=str(uuid.uuid4()),
            started_at_ms=now_ms,
            started_mono_ms=int(now_s * 1000),
            revision=0,
            models_used=[],
            transitions=[],
        )
        attached, lonely_since_s = tracked.attached, tracked.lonely_since_s
        self.registry.end(tracked, "rollover", now_ms, successor=head.session_id)
        successor = self.begin(head, instead=True)
        successor.attached, successor.lonely_since_s = attached, lonely_since_s
