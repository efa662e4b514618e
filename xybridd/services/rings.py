"""Read the rings of this device's producers, and count what is in them exactly once.

A ring is a file that an app writes its records into (`docs/ring.md`, decoded by `xybridd.core.ring`). The daemon has
the open file. One task visits every ring that is awake: it takes what is there, has it counted in the ring's session,
and has it committed together with the slot number up to which it read. When that is on disk, the slots may be
overwritten.

While records arrive, the task visits once per commit interval, or at once when a ring is half full or a client
flushes. A ring in which nothing arrived is put to sleep; its client wakes it. When its connection breaks and its
process is gone, a ring is read to its end and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from xybridd.core import ring as format_
from xybridd.core.registry import Identity, Producer
from xybridd.errors import HelloRequired, InvalidParams, Overloaded, StorageUnavailable, WireError
from xybridd.protocol import ring as layout
from xybridd.services.ring_file import TURN_SLOTS, Position, Ring
from xybridd.services.sessions import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.services.clock import Clock
    from xybridd.services.recorder import Recorder, Ticket

log = logging.getLogger(__name__)

#: How long a missing slot is waited for before the reader goes on behind it, and how many may be missing.
_HOLE_S = 1.0
MOST_HOLES = 64

#: How often rings are visited while there are subscribers to records, or a slot is missing.
_OFTEN_S = 0.2

#: A ring whose connection broke while its process lives is read for so long; its client attaches it again.
_DETACHED_S = 30.0

#: How long the slots of one ring are counted before others have their turn; and how many at once while there are
#: subscribers, to whom each is told.
_TURN_S = 0.005
_MOST_TOLD = 256

#: Rings that one connection may attach: the one in use and those that are full.
MOST_PER_LINK = 64

_ALL = 2**63

#: Calls in progress that are remembered for one client.
_MOST_STARTED = 1000


class RingHost(NamedTuple):
    """What rings ask the operating system: whether a process lives, and whether an open file is on a local disk."""

    is_alive: Callable[[int], bool]
    is_local: Callable[[int], bool]


class _Visit(NamedTuple):
    """Whether there is more to read at once; else, when to look again."""

    more: bool
    wait_s: float


class Rings:
    """All rings, the task that visits them, and what may be asked about them."""

    def __init__(self, recorder: Recorder, clock: Clock, host: RingHost, most_each: int) -> None:
        """``most_each``: rings of one user, other than root and the daemon's own."""
        self._recorder = recorder
        self._sessions = recorder.ring_sessions
        self._clock = clock
        self._host = host
        self._most_each = most_each
        self._rings: dict[tuple[int, str], Ring] = {}
        self._of_user: Counter[int] = Counter()
        #: Calls in progress, by user and client: a call may start in one ring of a client and end in the next.
        self._started: dict[tuple[int, str], dict[int, format_.Started]] = {}
        self._ids = itertools.count(-1, -1)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Called when a ring was read to its end: its file may be an orphan.
        self.on_closed: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._rings)

    # What clients ask for

    async def attach(self, link: Link, fd: int) -> dict[str, Any]:
        """Read a ring from now on. Takes `fd`, whatever happens. Raises WireError."""
        if link.producer is None:
            os.close(fd)
            raise HelloRequired("a ring needs a producer: send hello with a client_id on this connection first")
        ring = await self._open(fd, link.uid, link)
        try:
            known = await self._replace(ring)
            self._check_room(link)
        except BaseException:
            self._forget(ring)
            raise
        self._add(ring, recount=not known)
        if link.gone:  # the connection broke meanwhile
            self._detach(ring)
        session_id = await self._sessions.resume(link, ring.producer)
        ring.sleep(asleep=False)
        ring.publish()
        self._wake()
        return {"ring_id": ring.ring_id, "last_seq": ring.producer.durable_seq, "session_id": session_id}

    async def _replace(self, ring: Ring) -> bool:
        """The same ring over an earlier connection: its client has come back. Whether there was one."""
        known = self._rings.get((ring.link.uid, ring.ring_id))
        if known is not None:
            async with known.lock:
                self._forget(known)
            ring.next, ring.positions = known.next, known.positions
            ring.counted, ring.rejected = known.counted, known.rejected
        return known is not None

    def _check_room(self, link: Link) -> None:
        if self._of_user[link.uid] >= self._most_each and not self._recorder.sees_all(link):
            raise Overloaded(f"{self._most_each} rings of this user are attached already", retry_after_ms=10_000)
        if sum(each.link is link for each in self._rings.values()) >= MOST_PER_LINK:
            raise Overloaded(f"{MOST_PER_LINK} rings are attached to this connection already", retry_after_ms=1000)

    async def flush(self, link: Link, ring_id: str, number: int) -> tuple[dict[str, Any], Ticket]:
        """Take everything up to a slot number that is there now, and commit it at once."""
        ring = self._rings.get((link.uid, ring_id))
        if ring is None:
            raise InvalidParams("$.params.ring_id: no such ring is attached", path="$.params.ring_id")
        for each in [*self._earlier(ring), ring]:
            async with each.lock:
                each.sleep(asleep=False)
                await self._take_all(each, number if each is ring else _ALL)
        self._wake()
        producer = ring.producer
        reached = {"last_seq": ring.next - 1, "session_id": producer.session_id, "replaced": producer.replaced}
        return reached, self._recorder.committer.barrier(soon=True)

    def wake(self, link: Link) -> None:
        """The client has written into a ring that slept, or filled half of one."""
        for ring in self._rings.values():
            if ring.link is link:
                ring.sleep(asleep=False)
        self._wake()

    async def drain(self, fd: int, uid: int) -> tuple[bool, Ticket]:
        """Read the ring of a process that is gone to its end; False when a living process has it. Takes `fd`.

        Raises WireError: the ring stays as it is, and is drained another time.
        """
        ring = await self._open(fd, uid, None)
        try:
            if (uid, ring.ring_id) in self._rings:
                return False, None
            ring.final = True
            self._add(ring)
            async with ring.lock:
                await self._take_all(ring)
                await self._note_loss(ring)
        finally:
            self._forget(ring)
        return True, self._recorder.committer.barrier(soon=True)

    def disconnected(self, link: Link) -> None:
        """The connection is gone: its rings are read to their end, or until they are attached again."""
        for ring in self._rings.values():
            if ring.link is link:
                self._detach(ring)
        self._wake()

    def _detach(self, ring: Ring) -> None:
        ring.detached_at_s = self._clock.monotonic_s()
        ring.asleep = False

    # Life

    async def stop(self) -> None:
        """Take what is there now; the rest stays in the rings for the next run."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for ring in list(self._rings.values()):
            with contextlib.suppress(WireError, OSError):
                async with ring.lock:
                    await self._take_all(ring, ring.next + ring.slots)

    def close(self) -> None:
        """After the last commit: close the files."""
        for ring in list(self._rings.values()):
            self._forget(ring)

    def publish(self) -> None:
        """After a commit: tell the producers what is on disk."""
        for ring in self._rings.values():
            ring.publish()

    def _wake(self) -> None:
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rings")

    async def _run(self) -> None:
        """Visit the rings that are awake, until none is."""
        while True:
            self._woken.clear()
            awake = [ring for ring in self._rings.values() if not ring.asleep]
            if not awake:
                return
            more, wait_s = False, self._recorder.committer.interval_s
            for ring in awake:
                visit = await self._visit(ring)
                more = more or visit.more
                wait_s = min(wait_s, visit.wait_s)
                await asyncio.sleep(0)
            filling = any(ring.next - ring.producer.durable_seq > ring.slots // 4 for ring in awake)
            if filling or not more:
                self._recorder.committer.barrier(soon=True)
            if not more:
                # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()

    async def _visit(self, ring: Ring) -> _Visit:
        """One turn of one ring."""
        interval_s = self._recorder.committer.interval_s
        try:
            async with ring.lock:
                more = ring.fd >= 0 and not any(True for _ in self._earlier(ring)) and await self._turn(ring)
        except (Overloaded, StorageUnavailable) as error:
            return _Visit(more=False, wait_s=error.data.get("retry_after_ms", 1000) / 1000)
        except (WireError, OSError) as error:
            log.warning("a ring of user %d is not read any further: %s", ring.link.uid, error)
            self._forget(ring)
            return _Visit(more=False, wait_s=interval_s)
        except Exception:
            log.exception("a ring of user %d cannot be read", ring.link.uid)
            self._forget(ring)
            return _Visit(more=False, wait_s=interval_s)
        often = self._recorder.on_counted is not None or ring.hole_since_s is not None
        return _Visit(more, min(interval_s, _OFTEN_S) if often else interval_s)

    def _earlier(self, ring: Ring) -> list[Ring]:
        """Rings that the same client filled before and that are not read whole: their records come first."""
        return [
            other
            for other in self._rings.values()
            if other is not ring
            and other.client == ring.client
            and other.header.created_s < ring.header.created_s
            and other.header.last is not None
            and not other.read_whole
        ]

    async def _turn(self, ring: Ring) -> bool:
        """Take what is there, a turn of it; whether more may be there at once."""
        if ring.detached_at_s is not None:
            return await self._turn_detached(ring, ring.detached_at_s)
        taken = await self._take(ring)
        if taken:
            return taken >= TURN_SLOTS or not ring.next & (ring.slots - 1)
        if ring.read_whole and not ring.producer.holes:
            return self._finish(ring)
        if ring.hole_since_s is None and not self._arrived(ring):
            self._put_to_sleep(ring)
        return False

    @staticmethod
    def _arrived(ring: Ring) -> bool:
        """Whether something was taken since the last visit that found nothing."""
        arrived, ring.quiet_at = ring.next != ring.quiet_at, ring.next
        return arrived

    @staticmethod
    def _put_to_sleep(ring: Ring) -> None:
        ring.sleep(asleep=True)
        told = ring.link.push("ring.idle", {"ring_id": ring.ring_id, "seq": ring.next - 1})
        if not told or ring.ready(1):
            ring.sleep(asleep=False)

    async def _turn_detached(self, ring: Ring, since_s: float) -> bool:
        """Its connection broke: to the end, if its process is gone; a client that lives attaches it again."""
        ring.final = not self._host.is_alive(ring.link.pid)
        await self._take_all(ring)
        if ring.final:
            await self._note_loss(ring)
        elif self._clock.monotonic_s() - since_s < _DETACHED_S:
            return False
        return self._finish(ring)

    def _finish(self, ring: Ring) -> bool:
        """Close a ring that was read to its end, once all of it is on disk. False: there is nothing to read at once."""
        if ring.producer.durable_seq >= ring.next - 1:
            ring.publish()
            self._forget(ring)
            self.on_closed()
        return False

    # Opening

    async def _open(self, fd: int, uid: int, link: Link | None) -> Ring:
        """Check the file and find its producer. Raises WireError, and then the file is closed."""
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise InvalidParams("the file that was sent is not a regular file")
            if uid not in {found.st_uid, 0}:
                raise InvalidParams("the file that was sent belongs to another user")
            if not self._host.is_local(fd):
                raise InvalidParams("the file that was sent is not on a local file system")
            header = format_.parse_header(os.pread(fd, layout.HEADER_BYTES, 0), found.st_size)
            table = format_.Table()
            table.feed(os.pread(fd, header.table_used, layout.HEADER_BYTES))
            owner = table.entry(1)
            if not isinstance(owner, format_.Producer):
                raise InvalidParams("the first entry of the ring's table is not its producer")
            link = link or self._link_of(owner, uid, header.pid)
            producer = await self._recorder.producer(Identity(uid, link.who().app, header.ring_id))
        except OSError as error:
            os.close(fd)
            raise InvalidParams(f"the file that was sent cannot be read: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        if header.durable > producer.applied_seq:  # it was read by another daemon, or into a database that is gone
            producer.applied_seq = producer.durable_seq = header.durable
            if producer.session_id is None and (session := table.last_session()) is not None:
                producer.session_id = str(session.params.session_id)
        producer.connections += 1
        return Ring(fd, header, table, link, producer)

    def _link_of(self, owner: format_.Producer, uid: int, pid: int) -> Link:
        """A connection that is gone already, for the ring of a process that is."""
        hello = owner.hello
        link = Link(next(self._ids), uid, lambda: hello.app, pid)
        link.identity = Identity(uid, hello.app, str(hello.client_id), hello.app_version, hello.sdk_version)
        link.producer = Producer(uid, str(hello.client_id), hello.app)
        link.boot_id = hello.boot_id
        link.gone = True
        return link

    def _add(self, ring: Ring, *, recount: bool = False) -> None:
        """``recount``: what an earlier run of the daemon read is to be told to the producer."""
        self._rings[ring.link.uid, ring.ring_id] = ring
        self._of_user[ring.link.uid] += 1
        started = self._started.setdefault(ring.client, {})
        finished: set[int] = set()
        number = max(1, ring.next - ring.slots)
        while data := ring.slots_from(number, min(TURN_SLOTS, ring.next - number)):
            if recount:
                ring.recount(data, number)
            begun, ended = format_.calls_in(data, ring.table)
            started |= begun
            finished |= ended
            number += len(data) // layout.SLOT_BYTES
        for call in finished:
            started.pop(call, None)

    def _forget(self, ring: Ring) -> None:
        if ring.fd < 0:
            return
        ring.close()
        ring.producer.connections -= 1
        key = (ring.link.uid, ring.ring_id)
        if self._rings.get(key) is ring:
            del self._rings[key]
            self._of_user -= Counter({ring.link.uid: 1})
            if not any(each.client == ring.client for each in self._rings.values()):
                self._started.pop(ring.client, None)

    # Taking

    async def _take_all(self, ring: Ring, number: int = _ALL) -> None:
        """Take what is there, up to a slot number, a turn at a time."""
        more = True
        while more:
            more = ring.fd >= 0 and ring.next <= number and bool(await self._take(ring))
            await asyncio.sleep(0)  # the others' turn

    async def _take(self, ring: Ring) -> int:
        """Take the slots that are there, at most a turn of them; how many there were. Raises WireError."""
        self._recorder.check(ring.link)
        ring.refresh()
        filled = await self._fill_holes(ring)
        data = ring.ready(TURN_SLOTS)
        if not data:
            return self._pass_hole(ring) or filled
        ring.hole_since_s = None
        first = ring.next
        await self._count(ring, data)
        return ring.next - first

    async def _count(self, ring: Ring, data: bytes, *, hole: bool = False) -> None:
        """Have slots counted, part by part; ``hole``: one that was passed over before."""
        ring.refresh_table()
        started = self._started[ring.client]
        subscribed = self._recorder.on_counted is not None
        parts = format_.read(
            data,
            ring.table,
            in_progress=bool(started),
            corrected=self._recorder.time.correction(ring.link.boot_id),
            most=_MOST_TOLD if subscribed else layout.MOST_SLOTS,
        )
        at, turn_ends_s = 0, self._clock.monotonic_s() + _TURN_S
        for length, part in parts:
            if isinstance(part, format_.SessionEvent):
                await self._session_event(ring, part)
            else:
                piece = data[at * layout.SLOT_BYTES : (at + length) * layout.SLOT_BYTES] if subscribed else b""
                await self._sessions.count(ring.link, ring.producer, part, list(format_.records(piece, ring.table)))
                if len(started) < _MOST_STARTED:
                    started |= part.started
                for call in part.finished:
                    started.pop(call, None)
                ring.counted += part.records
                ring.latest_ms = max(ring.latest_ms, part.latest_ms)
                ring.rejected += part.rejected
            at += length
            # Nothing has been waited for since the part was counted: a commit has both, or neither.
            self._advance(ring, ring.next if hole else ring.next + length)
            if self._clock.monotonic_s() > turn_ends_s:
                await asyncio.sleep(0)  # the others' turn
                turn_ends_s = self._clock.monotonic_s() + _TURN_S

    def _advance(self, ring: Ring, number: int) -> None:
        """Everything before `number` was taken, but for the holes."""
        ring.next = number
        ring.producer.apply(number - 1, self._clock.wall_ms())
        self._recorder.registry.note_producer(ring.producer)
        ring.positions.append(Position(number - 1, ring.counted, ring.rejected))

    async def _session_event(self, ring: Ring, event: format_.SessionEvent) -> None:
        ring.left = event.kind != layout.SESSION_STARTED
        if ring.left:
            await self._sessions.leave(ring.link, ring.producer, ends=event.kind == layout.SESSION_ENDED)
        else:
            await self._sessions.start(ring.link, ring.producer, event.entry)

    # What is missing

    async def _fill_holes(self, ring: Ring) -> int:
        """Count slots that were passed over and have been written since; how many."""
        filled = 0
        for number in list(ring.producer.holes):
            data = ring.slots_from(number, 1)
            if format_.numbers_in(data) == [number]:
                await self._count(ring, ring.slots_from(number, 1), hole=True)
                ring.producer.holes.remove(number)
                filled += 1
            elif ring.final:
                ring.producer.holes.remove(number)
        return filled

    def _pass_hole(self, ring: Ring) -> int:
        """Go on behind missing slots: at once when their writer is gone, else after a second. How many were passed."""
        later = ring.later()
        if later is None:
            ring.hole_since_s = None
            return 0
        missing = later - ring.next
        if not ring.final:
            now_s = self._clock.monotonic_s()
            ring.hole_since_s = ring.hole_since_s or now_s
            if now_s - ring.hole_since_s < _HOLE_S or len(ring.producer.holes) + missing > MOST_HOLES:
                return 0
            ring.producer.holes += range(ring.next, later)
        ring.hole_since_s = None
        self._advance(ring, later)
        return missing

    async def _note_loss(self, ring: Ring) -> None:
        """A process that did not say that it ends: the session says how many did not, and which calls they were in."""
        if ring.left or ring.header.last is not None:
            return
        # Of a process that went away unseen, the last slot that it wrote is the last that is known of it.
        until_ms = self._clock.wall_ms() if ring.detached_at_s is not None else ring.latest_ms
        calls = [
            {
                "model_id": each.model.model_id,
                "version": each.model.version or "",
                "started_at_ms": int(each.at_s * 1000),
                "running_ms": max(0, until_ms - int(each.at_s * 1000)),
            }
            for each in self._started[ring.client].values()
        ]
        await self._sessions.lose(ring.link, ring.producer, calls)
        ring.left = True
