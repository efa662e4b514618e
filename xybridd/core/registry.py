"""Which session a record goes to, whether a batch is new, and when a session ends by itself.

A connection may have said who it is (`Identity`); it has a current session or none.

- A *bound* session belongs to a producer. It lives while a connection is attached to it, and 30 s longer.
- An *unbound* one (implicit, or started without ``hello``) ends when nothing was recorded for 30 min.
- Any session is followed by a successor after 24 h, and its producer goes on in that without noticing.

What ends a session, whether a record may still come, and what the answer to it is:

    end_reason         who ends it                               late records
    ended              the app, by session.end                   session_ended
    reset              the app, by session.reset                 session_ended
    client_lost        the last connection broke 30 s ago        taken, a new revision
    idle               nothing recorded for 30 min               taken, a new revision
    device_restarted   found open under another boot id          taken, a new revision
    rollover           it is 24 h old                            go to its successor

Times here are seconds on the monotonic clock, passed in.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from xybridd.core.changes import ProducerImage
from xybridd.core.minute import AppMinute

if TYPE_CHECKING:
    from xybridd.core.changes import Changes
    from xybridd.core.minute import MinuteFilter
    from xybridd.core.session import Session

EndReason = Literal["ended", "reset", "client_lost", "idle", "rollover", "device_restarted"]

#: Reasons that an app gave: it knows that nothing comes any more.
FINAL_REASONS: frozenset[str] = frozenset({"ended", "reset"})


class Lifetimes(msgspec.Struct, frozen=True):
    """Seconds until a session ends by itself."""

    lost_after_s: float = 30.0
    idle_timeout_s: float = 1800.0
    rollover_s: float = 86_400.0


class Identity(msgspec.Struct, frozen=True):
    """Who is at the other end: the user id by the kernel's word, the rest by its own."""

    uid: int
    app: str
    client_id: str | None = None
    app_version: str = ""
    sdk_version: str = ""


#: The session of a ring, and its holes.
_RingState = tuple[str | None, list[int]]


class Producer:
    """One client instance, or one ring, and where its batches, or slots, stand.

    ``applied_seq`` runs ahead of ``durable_seq`` while a commit is under way. Of a ring: ``holes`` are slots below that
    were not written when the reader passed them, and ``session_id`` is the session that its records go to.
    """

    __slots__ = (
        "app", "applied_seq", "client_id", "connections", "durable_holes", "durable_seq", "heard_at_ms", "holes",
        "replaced", "session_id", "uid",
    )  # fmt: skip

    def __init__(self, uid: int, client_id: str, app: str, last_seq: int = 0) -> None:
        self.uid = uid
        self.client_id = client_id
        self.app = app
        self.applied_seq = last_seq
        self.durable_seq = last_seq
        self.holes: list[int] = []
        self.durable_holes: list[int] = []
        self.session_id: str | None = None
        #: Whether a session of its own took the place of the one that it named.
        self.replaced = False
        self.heard_at_ms = 0
        self.connections = 0

    @property
    def key(self) -> tuple[int, str]:
        return self.uid, self.client_id

    def gap_before(self, seq: int) -> int | None:
        """How many batches are missing before `seq`; None when `seq` was applied already."""
        return None if seq <= self.applied_seq else seq - self.applied_seq - 1

    def apply(self, seq: int, now_ms: int) -> None:
        self.applied_seq = seq
        self.heard_at_ms = now_ms

    def image(self) -> ProducerImage:
        ring = b""
        if self.session_id is not None or self.holes:
            ring = msgspec.msgpack.encode((self.session_id, self.holes))
        return ProducerImage(self.uid, self.client_id, self.app, self.applied_seq, self.heard_at_ms, ring)

    def restore(self, image: ProducerImage) -> None:
        """Take up what was written of it. What cannot be read counts as empty."""
        self.applied_seq = self.durable_seq = image.last_seq
        with contextlib.suppress(msgspec.MsgspecError):
            self.session_id, self.holes = msgspec.msgpack.decode(image.ring or b"\x92\xc0\x90", type=_RingState)
        self.durable_holes = list(self.holes)

    def settle(self, image: ProducerImage) -> None:
        """What was written of it is on disk."""
        self.durable_seq = image.last_seq
        self.durable_holes = msgspec.msgpack.decode(image.ring, type=_RingState)[1] if image.ring else []


class Tracked:
    """A session in memory, and who is attached to it."""

    __slots__ = ("attached", "exported_at_s", "heard_at_s", "lonely_since_s", "session", "started_s")

    def __init__(self, session: Session, now_s: float, started_s: float) -> None:
        self.session = session
        #: The connections, each with the process at its other end.
        self.attached: dict[int, int] = {}
        self.heard_at_s = now_s
        self.started_s = started_s
        self.exported_at_s = started_s
        # A bound session that nobody is attached to yet has as long as one that lost its producer.
        self.lonely_since_s: float | None = now_s

    @property
    def bound(self) -> bool:
        return self.session.head.client_id is not None

    def due(self, now_s: float, lifetimes: Lifetimes) -> EndReason | None:
        """Why the session ends now, if it does."""
        if not self.session.active:
            return None
        if self.bound:
            lonely = self.lonely_since_s
            if lonely is not None and now_s - lonely >= lifetimes.lost_after_s:
                return "client_lost"
        elif now_s - self.heard_at_s >= lifetimes.idle_timeout_s:
            return "idle"
        if now_s - self.started_s >= lifetimes.rollover_s:
            return "rollover"
        return None


class Registry:
    """The sessions and producers in memory: every active one, and a few that have ended or gone."""

    #: So many ended sessions and departed producers are kept at hand; the rest is on disk.
    KEPT = 64

    #: So many apps and reasons are told apart in `ended`.
    MOST_ENDED = 1000

    def __init__(self) -> None:
        self.sessions: dict[str, Tracked] = {}
        self.producers: dict[tuple[int, str], Producer] = {}
        self.implicit: dict[tuple[int, str], str] = {}
        self.changed_sessions: dict[str, Session] = {}
        self.changed_producers: dict[tuple[int, str], Producer] = {}
        self._being_written: set[str] = set()
        self._taken_up = 0
        #: How many sessions of which app ended for which reason, since the daemon's start.
        self.ended: Counter[tuple[str, EndReason]] = Counter()

    # What the next commit writes

    def note(self, session: Session, producer: Producer | None = None) -> None:
        """Something of the session, or of the producer, is to be written."""
        self.changed_sessions[session.session_id] = session
        if producer is not None:
            self.changed_producers[producer.key] = producer

    def note_producer(self, producer: Producer) -> None:
        """How far a ring was read is to be written."""
        self.changed_producers[producer.key] = producer

    def close_minutes(self, now_ms: int) -> None:
        """The minute is over: whatever was recorded in it is to be written as one."""
        for tracked in self.sessions.values():
            if tracked.session.close_minute(now_ms):
                self.note(tracked.session)

    def open_minutes(self, wanted: MinuteFilter) -> list[AppMinute]:
        """Of the minutes that were not closed yet those that are wanted."""
        found = []
        for tracked in self.sessions.values():
            head = tracked.session.head
            if (
                wanted.uid in {None, head.uid}
                and wanted.app in {None, head.app}
                and wanted.session_id in {None, head.session_id}
                and (minute := tracked.session.open_minute()) is not None
                and wanted.since_ms <= minute.started_at_ms < wanted.until_ms
            ):
                found.append(AppMinute(head.app, head.app_version, minute))
        return found

    def take_changes(self, into: Changes) -> list[Producer]:
        """Put everything noted into `into`, as values; the producers among it."""
        for session in self.changed_sessions.values():
            session.take_changes(into)
        self._being_written.update(self.changed_sessions)
        producers = list(self.changed_producers.values())
        into.producers.extend(producer.image() for producer in producers)
        self.changed_sessions, self.changed_producers = {}, {}
        return producers

    def settle(self) -> None:
        """What was taken is on disk."""
        self._being_written.clear()

    def note_all(self) -> None:
        """The file is gone: everything in memory is to be written again."""
        for tracked in self.sessions.values():
            tracked.session.change_all()
            self.note(tracked.session)
        self.changed_producers.update(self.producers)

    # Sessions

    def track(self, session: Session, now_s: float, started_s: float | None = None) -> Tracked:
        tracked = Tracked(session, now_s, now_s if started_s is None else started_s)
        self.sessions[session.session_id] = tracked
        head = session.head
        if head.implicit and session.active:
            self.implicit[head.uid, head.app] = head.session_id
        return tracked

    def active_count(self, uid: int | None = None) -> int:
        """Of one user, or of all."""
        return sum(
            tracked.session.active for tracked in self.sessions.values() if uid in {None, tracked.session.head.uid}
        )

    def implicit_of(self, identity: Identity) -> Tracked | None:
        """The active implicit session of a user id and app."""
        session_id = self.implicit.get((identity.uid, identity.app))
        return self.sessions.get(session_id) if session_id is not None else None

    def bound_to(self, producer: tuple[int, str]) -> list[Tracked]:
        """The active sessions of a producer, in the order of their starts."""
        return [
            tracked
            for tracked in self.sessions.values()
            if tracked.session.active and (tracked.session.head.uid, tracked.session.head.client_id) == producer
        ]

    def attach(self, tracked: Tracked, connection_id: int, pid: int = 0) -> None:
        tracked.attached[connection_id] = pid
        tracked.lonely_since_s = None

    def held_by(self, session_id: str) -> list[int] | None:
        """The processes that hold a session open; None when it has ended, or needs none."""
        tracked = self.sessions.get(session_id)
        if tracked is None or not tracked.bound or not tracked.session.active:
            return None
        return sorted(set(tracked.attached.values()))

    def detach(self, connection_id: int, now_s: float) -> list[Tracked]:
        """Take a connection off every session; those bound ones that have none left now."""
        lonely = []
        for tracked in self.sessions.values():
            if connection_id in tracked.attached:
                del tracked.attached[connection_id]
                if not tracked.attached and tracked.bound and tracked.session.active:
                    tracked.lonely_since_s = now_s
                    lonely.append(tracked)
        return lonely

    def end(self, tracked: Tracked, reason: EndReason, at_ms: int, successor: str | None = None) -> None:
        head = tracked.session.head
        tracked.session.end(reason, at_ms, successor)
        app = tracked.session.head.app
        self.ended[app if len(self.ended) < self.MOST_ENDED or (app, reason) in self.ended else "other", reason] += 1
        tracked.attached = {}
        self.note(tracked.session)
        if head.implicit and self.implicit.get((head.uid, head.app)) == head.session_id:
            del self.implicit[head.uid, head.app]

    def due(self, now_s: float, lifetimes: Lifetimes) -> list[tuple[Tracked, EndReason]]:
        return [
            (tracked, reason)
            for tracked in self.sessions.values()
            if (reason := tracked.due(now_s, lifetimes)) is not None
        ]

    def next_loss_in_s(self, now_s: float, lifetimes: Lifetimes) -> float | None:
        """Seconds until the first session that lost its producer ends; None when none has lost it."""
        waits = [
            tracked.lonely_since_s + lifetimes.lost_after_s - now_s
            for tracked in self.sessions.values()
            if tracked.bound and tracked.session.active and tracked.lonely_since_s is not None
        ]
        return max(0.0, min(waits)) if waits else None

    def connected(self) -> list[str]:
        """The client ids of the producers that are."""
        return [producer.client_id for producer in self.producers.values() if producer.connections]

    # Memory

    def trim(self) -> None:
        """Let go of ended sessions and departed producers that are on disk, but for the latest few."""
        resting = [session_id for session_id in self.sessions if self._rests(session_id)]
        for session_id in resting[: -self.KEPT]:
            del self.sessions[session_id]
        departed = [
            key
            for key, producer in self.producers.items()
            if not producer.connections and producer.applied_seq == producer.durable_seq
        ]
        for key in departed[: -self.KEPT]:
            del self.producers[key]

    def taken_up(self) -> None:
        """A session or a producer came into memory: now and then those that nobody uses go, though nothing is written.

        Whoever had one taken up uses it before it waits again: the latest stay.
        """
        self._taken_up += 1
        if self._taken_up % self.KEPT == 0:
            self.trim()

    def _rests(self, session_id: str) -> bool:
        """Whether a session has ended, nobody uses it, and the disk knows all of it."""
        tracked = self.sessions[session_id]
        return not (
            tracked.session.active
            or tracked.attached
            or session_id in self.changed_sessions
            or session_id in self._being_written
        )

    def let_go(self, session_id: str) -> bool:
        """Take a session out of memory, if it rests there; whether it is out."""
        if session_id in self.sessions and self._rests(session_id):
            del self.sessions[session_id]
        return session_id not in self.sessions

    def drop(self, session_id: str) -> None:
        """Take a session out of memory whatever state it is in: it is being deleted."""
        tracked = self.sessions.pop(session_id, None)
        self.changed_sessions.pop(session_id, None)
        if tracked is not None:
            head = tracked.session.head
            if self.implicit.get((head.uid, head.app)) == session_id:
                del self.implicit[head.uid, head.app]

    def clear(self) -> None:
        """Forget everything: what was read turned out to be damaged."""
        self.sessions.clear()
        self.producers.clear()
        self.implicit.clear()
        self.changed_sessions.clear()
        self.changed_producers.clear()
