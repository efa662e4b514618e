"""The client: what an app calls.

No call here raises into the app, and none waits, except those that take a ``timeout_s`` and wait that long at most.
Recording writes a slot of a ring, memory that outlives the app, and nothing else: `xybridd.client.recorder` does the
ordinary case, `xybridd.client.writer` every other one. One thread speaks with the daemon.

A client survives a fork, by Python or by C: the child is a producer of its own with a ring of its own, and takes part
in its parent's session.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from xybridd.client.c_fork import tell_python
from xybridd.client.recorder import now_s
from xybridd.client.ring import new_id
from xybridd.client.timed import Inference
from xybridd.client.values import MOST_APP, MOST_VERSION, Values, log
from xybridd.client.writer import Session, Writer
from xybridd.consent import opted_out
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Self, Unpack

    from xybridd.client.aio import AsyncClient
    from xybridd.client.connection_thread import ConnectionThread
    from xybridd.client.ring import Ring

#: How long the end of a process may wait for the daemon, all its clients together.
EXIT_DRAIN_S = 0.25

#: Records after which a thread that could not be started is tried again.
_RECORDS_TO_RETRY = 100

_monotonic = time.monotonic


class Stats(TypedDict, total=False):
    """Optional facts about an inference. Rates per second, sizes in MiB, times in ms."""

    tokens_per_second: float
    samples_per_second: float
    memory_peak_mb: int
    execution_target: Literal["local", "cloud", "fallback"]
    hardware_used: Literal["cpu", "gpu", "npu"]
    input_tokens: int
    output_tokens: int
    time_to_first_token_ms: float


class Client:
    """Made by `connect`. Its methods may be called from any thread."""

    def __init__(self, app: str, app_version: str, session: Session, sockets: Any, values: Values) -> None:
        self.app, self.app_version, self.sockets = app, app_version, sockets
        self.watchers: list[Callable[[dict[str, Any]], object]] = []
        self._values = values
        self._closed = self._forked = False
        self._begin(session)

    def _begin(self, session: Session | None) -> None:
        """What is of this process alone."""
        self._writer = Writer(self.app, self.app_version, session, self._values)
        self._writer.on_ring, self._writer.on_written = self._use, self._alert
        self._thread: ConnectionThread | None = None
        self._call_ids = iter(range(1, 2**63))

    # Recording

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float | None = None, **stats: Unpack[Stats]
    ) -> None:
        """Record a finished inference.

        ``latency_ms`` is a finite number from 0 to 2**53 and may have a fraction. An optional value that cannot be
        right is left out, counted (`omitted`) and logged once; a call whose latency is not a number is left out
        (`counters`).
        """
        # While there is a ring, its recorder's method stands in the place of this one.
        self._record_slowly(None, 0, model_id, version, latency_ms, stats, now_s())

    def record_error(
        self,
        error: str | BaseException,
        model_id: str | None = None,
        version: str | None = None,
        category: str | None = None,
    ) -> None:
        """Record a failure. An exception is recorded by its type and its text.

        ``category`` is one of the reference's eight, in either spelling; without it the words of the text decide.
        """
        self._guard(lambda writer: writer.error(error, model_id, version, category, 0))

    def inference(self, model_id: str, version: str = "", **stats: Unpack[Stats]) -> Inference:
        """Time a block (``with client.inference(...) as call:``), or as a decorator a function, coroutine or generator.

        A call that is cut off by the death of the process is listed in its session. An exception is recorded as an
        error of the model and propagates; a call that is cancelled is counted as cancelled.
        """
        return Inference(self, model_id, version, dict(stats))

    # Calls in progress: for `Inference`

    def call_started(self, model_id: str, version: str) -> int:
        """Mark that a call starts; its id."""
        call, ring = next(self._call_ids), self._writer.ring
        try:
            if ring is not None and not self._closed:
                descriptor = layout.describe(layout.STARTED, ring.models[model_id, version] & 0xFFFFFFFF)
                number = ring.recorder.reserve()
                if number <= ring.limit[0]:
                    ring.recorder.write(number, 0.0, now_s(), descriptor, b"", call)
                    return call
                self._guard(lambda writer: writer.fill(ring, number), records=0)
        except Exception:  # noqa: BLE001, S110 - a model that is new, or of another type
            pass
        self._guard(lambda writer: writer.mark(layout.STARTED, model_id, version, 0.0, call), records=0)
        return call

    def call_finished(self, model_id: str, version: str, latency_ms: float, stats: dict[str, Any], call: int) -> None:
        """Record a call that was marked when it started."""
        self._guard(lambda writer: writer.call(None, 0, (model_id, version, latency_ms, stats), now_s(), call))

    def call_failed(self, error: BaseException, model_id: str, version: str, call: int) -> None:
        """Record the error of a call that was marked when it started."""
        self._guard(lambda writer: writer.error(error, model_id, version, None, call))

    def call_cancelled(self, model_id: str, version: str, latency_ms: float, call: int) -> None:
        """Count a call as cancelled that was marked when it started."""
        self._guard(lambda writer: writer.mark(layout.CANCELLED, model_id, version, latency_ms, call))

    # Sessions

    @property
    def session_id(self) -> str | None:
        """The session that records go to; None after `end_session`, until the next record."""
        session = self._writer.session
        return None if session is None else session.session_id

    def start_session(self, labels: dict[str, str] | None = None) -> str:
        """End the current session and start another; its id. Does not wait for the daemon."""
        session = Session(new_id(), self._values.labels(labels))

        def change(writer: Writer) -> None:
            writer.leave_session()
            writer.enter_session(session)

        self._guard(change, records=0)
        return session.session_id

    def end_session(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """End the current session; its export, or None when there is none or the daemon did not answer in time.

        The next record starts a new one.
        """
        found: dict[str, Any] | None = _result(self.end_session_soon(), timeout_s)
        return found

    def end_session_soon(self) -> Future[Any] | None:
        """`end_session`, as a future; None when there is no session."""
        session_id = self.session_id
        if session_id is None:
            return None
        self._guard(lambda writer: writer.leave_session(ends=True), records=0)
        return self._command("export", session_id)

    # The device

    def advice(
        self, model_size_mb: float | None = None, safety_margin: float = 1.5, timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """What this process should do now, and why: ``device.advice`` of `docs/protocol.md`.

        None when no daemon answered within `timeout_s`. ``model_size_mb``: would a model of this size (MiB) fit?
        """
        found: dict[str, Any] | None = _result(self.advice_soon(model_size_mb, safety_margin), timeout_s)
        return found

    def advice_soon(self, model_size_mb: float | None, safety_margin: float) -> Future[Any] | None:
        """`advice`, as a future."""
        params = {"safety_margin": safety_margin}
        if model_size_mb is not None:
            params["model_size_mb"] = model_size_mb
        return self._command("ask", "device.advice", params)

    def watch(self, callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `callback` with ``{"capabilities": …, "advice": …}`` as they are, and again whenever they change.

        The client's own thread calls it: be brief. An exception of it is logged once. Returns a function that ends it.
        """
        self.watchers.append(callback)
        self._command("watch", callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self.watchers.remove(callback)

        return end

    @property
    def aio(self) -> AsyncClient:
        """The calls that wait, for an event loop: ``await client.aio.advice()``. No thread waits for them."""
        from xybridd.client.aio import AsyncClient  # noqa: PLC0415 - only apps with asyncio pay for it

        return AsyncClient(self)

    # Life

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Whether everything recorded so far by this client was on the daemon's disk within `timeout_s`."""
        return self._closed or bool(_result(self.flush_soon(), timeout_s))

    def flush_soon(self) -> Future[Any] | None:
        """`flush`, as a future."""
        return self._command("flush")

    def close(self, timeout_s: float = EXIT_DRAIN_S) -> bool:
        """End the session and stop. Whether everything was on the daemon's disk within `timeout_s`.

        Records that were not stay in their rings, on disk, until a daemon reads them. Called at exit. Records after it
        are dropped.
        """
        return _close([self], timeout_s)

    def counters(self) -> dict[str, int]:
        """What became of this client's records so far; the sum is what was recorded.

        ``acknowledged``: on the daemon's disk. ``waiting``: in memory that outlives this process. ``spooled``: in a
        file on disk, until a daemon is there. ``dropped``: rings took too much room. ``invalid``: without a usable
        latency. ``refused``: by the daemon. ``lost``: neither memory nor a file could be had.
        """
        return self._writer.counters()

    @property
    def omitted(self) -> dict[str, int]:
        """Optional values that were left out of records, by field."""
        return dict(self._values.omitted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(timeout_s=2.0)

    # How

    def _record_slowly(
        self, ring: Ring | None, number: int, model_id: Any, version: Any, latency_ms: Any, stats: Any, at_s: float
    ) -> None:
        """What a recorder could not write by itself."""
        self._guard(lambda writer: writer.call(ring, number, (model_id, version, latency_ms, stats), at_s, 0))

    def _guard(self, act: Callable[[Writer], None], *, records: int = 1) -> None:
        """Have the writer of this process do something."""
        if self._closed:
            self._writer.counts["dropped"] += records
            return
        self._notice_fork()
        writer = self._writer
        writer.guard(lambda: act(writer), records=records)

    def _use(self, ring: Ring) -> None:
        """Have a new ring written to, and read."""
        ring.start(partial(self._record_slowly, ring))
        self.record_inference = ring.recorder.record_inference  # type: ignore[method-assign]
        if self._forked:
            self._forked = False
            _finish_at_end_of_child(self)
        if (thread := self._started_thread()) is not None:
            thread.wake()

    def _alert(self, ring: Ring, number: int) -> None:
        """The slow path was taken: the daemon may have to be woken, now or when the ring is half full."""
        thread = self._started_thread()
        if thread is None:
            ring.limit[0] = min(ring.limit[0], number + _RECORDS_TO_RETRY)
        elif thread.connected:
            if ring.reader_sleeps or ring.half_full(number):
                thread.wake_daemon()
            ring.alert_at_half(number)

    def _started_thread(self) -> ConnectionThread | None:
        """The client's thread; None when it cannot be started now."""
        if self._thread is None or not self._thread.alive:
            try:
                from xybridd.client.connection_thread import ConnectionThread  # noqa: PLC0415 - apps that only import

                thread = ConnectionThread(self, self._writer)
                thread.start()
            except Exception as error:  # noqa: BLE001 - interpreter shutdown, a limit on threads
                log().debug("the client's thread cannot be started now: %s", error)
                return None
            self._thread = thread
        return self._thread

    def _command(self, name: str, *arguments: Any) -> Future[Any] | None:
        """Ask the thread for something; None when that cannot be."""
        if self._closed:
            return None
        self._notice_fork()
        try:
            with self._writer.lock:
                thread = self._started_thread()
            return None if thread is None else thread.command(name, *arguments)
        except Exception:  # noqa: BLE001
            log().debug("the client could not ask for %s", name, exc_info=True)
            return None

    def finish(self) -> Future[Any] | None:
        """Leave the session, and begin to bring everything to the daemon; None when it is there."""
        if self._closed:
            return None
        self._guard(lambda writer: writer.leave_session(), records=0)
        return self.flush_soon() if self._writer.unread() else None

    def stop(self) -> None:
        """Record nothing from now on. What no daemon has is put on disk."""
        if self._closed:
            return
        self._closed = True
        self.record_inference = self._drop  # type: ignore[method-assign]
        thread, self._thread = self._thread, None
        attached = thread is not None and thread.connected
        if thread is not None:
            thread.stop(EXIT_DRAIN_S)
        self._writer.close(attached=attached)
        _clients.discard(self)

    def _drop(self, *_: Any, **__: Any) -> None:
        self._writer.counts["dropped"] += 1

    def _notice_fork(self) -> None:
        """By C: no hook of Python's was called."""
        if os.getpid() != self._writer.pid:
            tell_python()  # which calls the hooks
        if os.getpid() != self._writer.pid:
            self._after_fork()

    def _after_fork(self) -> None:
        """In a child: what the parent wrote is the parent's."""
        thread, writer = self._thread, self._writer
        self.__dict__.pop("record_inference", None)
        session = writer.session
        if session is not None:
            started_at_ms = session.started_at_ms
            session = Session(session.session_id, session.labels, owned=False)
            session.started_at_ms = started_at_ms
        self._begin(session)
        self.watchers = []
        self._forked = True
        if thread is not None:
            thread.forget()
        writer.leave_to_parent()


class SilentClient(Client):
    """What `connect` returns when the environment says that nothing is to be recorded."""

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float | None = None, **stats: Unpack[Stats]
    ) -> None:
        pass

    def _guard(self, act: Callable[[Writer], None], *, records: int = 1) -> None:
        pass

    def _command(self, name: str, *arguments: Any) -> Future[Any] | None:  # noqa: ARG002
        return None

    def flush(self, timeout_s: float = 2.0) -> bool:  # noqa: ARG002
        """There is nothing to wait for."""
        return True


def connect(
    app: str | None = None,
    *,
    app_version: str = "",
    labels: dict[str, str] | None = None,
    session_id: str | None = None,
    socket: str | Path | None = None,
) -> Client:
    """A client of this device's daemon, and a session; both at once, whether or not a daemon is there. Never raises.

    ``app`` names the app in every session (by default the name of the program); ``labels`` are strings that stand in
    the session; ``socket`` is for a daemon in an unusual place (else ``XYBRIDD_SOCKET``, the user's, the system's).
    """
    values = Values()
    name = values.name("app", app, MOST_APP) or os.path.basename(sys.argv[0] or "")[:MOST_APP] or "python"  # noqa: PTH119
    joined = values.session_id(session_id)
    client = (SilentClient if opted_out() else Client)(
        name,
        values.name("app_version", app_version, MOST_VERSION),
        Session(joined or new_id(), values.labels(labels), owned=joined is None),
        None if socket is None else (socket,),
        values,
    )
    if not isinstance(client, SilentClient):
        _clients.add(client)
        client._guard(lambda writer: writer.begin(), records=0)  # noqa: SLF001 - the session starts now
    return client


def _result(future: Future[Any] | None, timeout_s: float) -> Any:
    """What a command came to; None when that took too long."""
    if future is None:
        return None
    try:
        return future.result(max(0.0, timeout_s))
    except Exception:  # noqa: BLE001 - too long, or the client was closed
        future.cancel()
        return None


def _close(clients: list[Client], timeout_s: float) -> bool:
    """Close clients, and wait for all of them at once; whether a daemon has everything."""
    waiting = [(client, client.finish()) for client in clients]
    deadline = _monotonic() + timeout_s
    done = True
    for client, future in waiting:
        done = (future is None or bool(_result(future, deadline - _monotonic()))) and done
        client.stop()
    return done


#: Every client that is not closed: one that the app holds no more still has a session to end.
_clients: set[Client] = set()


def _close_all() -> None:
    _close(list(_clients), EXIT_DRAIN_S)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - the module's own


def _finish_at_end_of_child(client: Client) -> None:
    """Multiprocessing ends its children without the usual handlers; it has its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        with contextlib.suppress(Exception):
            util.Finalize(client, client.close, exitpriority=10)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
