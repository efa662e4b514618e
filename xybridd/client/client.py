"""The face of the client: what an app calls.

No call here raises into the app, and none waits, except those that take a ``timeout_s`` and wait that long at most.
Recording appends to a queue; everything else happens on the flusher's thread (`xybridd.client.flusher`), which also
imports what it needs, so that ``import xybridd`` stays cheap.

It survives a fork: the child is a producer of its own, takes part in its parent's session, and starts its own thread
when it records. What the parent had in its queue stays the parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar, cast

from xybridd.consent import opted_out

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from xybridd.client.aio import AsyncClient
    from xybridd.client.flusher import Flusher, Mark

P = ParamSpec("P")
R = TypeVar("R")

#: Records that may wait in this process; past it the oldest are dropped, and counted.
MOST_WAITING = 100_000

#: How long the end of a process may take to bring what waits to the daemon, and then to write what is left to disk.
EXIT_DRAIN_S = 0.25
EXIT_SPOOL_S = 2.0

_time = time.time
_perf_counter = time.perf_counter


class Stats(TypedDict, total=False):
    """What may be said of an inference beside its latency. Rates per second, sizes in MiB, times in ms."""

    tokens_per_second: float
    samples_per_second: float
    memory_peak_mb: int
    execution_target: Literal["local", "cloud", "fallback"]
    hardware_used: Literal["cpu", "gpu", "npu"]
    input_tokens: int
    output_tokens: int
    time_to_first_token_ms: float


def _log() -> logging.Logger:
    import logging  # noqa: PLC0415 - a third of what importing this package would take, and rarely needed

    return logging.getLogger(__name__)


def _new_id() -> str:
    """A random UUID (version 4), without importing `uuid`."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Shared:
    """What the app's threads and the flusher both look at. The counters are the flusher's, but for ``dropped``."""

    def __init__(self, app: str, app_version: str, sdk_version: str, sockets: Sequence[Path] | None) -> None:
        self.app = app
        self.app_version = app_version
        self.sdk_version = sdk_version
        self.sockets = sockets
        self.queue: deque[Any] = deque()
        self.client_id = _new_id()
        self.session_id: str | None = _new_id()
        self.labels: dict[str, str] = {}
        self.started_at_ms = int(_time() * 1000)
        self.owns_session = True
        self.acknowledged = 0
        self.dropped = 0
        self.invalid = 0
        self.refused = 0
        self.spooled = 0
        self.lost = 0
        self.watchers: list[Callable[[dict[str, Any]], object]] = []

    def count_invalid(self, count: int) -> None:
        if count and not self.invalid:
            _log().warning("a record that cannot be right (a latency that is no number?) is left out; said once")
        self.invalid += count

    def count_lost(self, count: int, why: object) -> None:
        if count and not self.lost:
            _log().warning("%d records could neither be sent nor kept on disk and are lost: %s", count, why)
        self.lost += count

    def for_child(self) -> Shared:
        """Another producer, in the same session."""
        child = Shared(self.app, self.app_version, self.sdk_version, self.sockets)
        child.session_id, child.labels, child.owns_session = self.session_id, self.labels, False
        return child


class Client:
    """Made by `connect`. Its methods may be called from any thread."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._queue = shared.queue
        self._flusher: Flusher | None = None
        self._worker: Flusher | _NotStarted = _NOT_STARTED
        self._lock = threading.RLock()  # a signal handler may record in the midst of it
        self._closed = False

    # Recording

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Unpack[Stats]
    ) -> None:
        """An inference that went well.

        ``latency_ms`` is a finite number from 0 to 2**53 and may have a fraction. What cannot be right is left out
        and counted (`counters`), never raised.
        """
        queue = self._queue
        if len(queue) >= MOST_WAITING:
            self._make_room()
        queue.append((model_id, version, latency_ms, _time(), stats))
        if self._worker.asleep:
            self._wake()

    def record_error(
        self,
        error: str | BaseException,
        model_id: str | None = None,
        version: str | None = None,
        category: str | None = None,
    ) -> None:
        """Something that went wrong. An exception is recorded by its type and its text.

        ``category`` is one of the reference's eight, in either spelling; without it the words of the text decide.
        """
        queue = self._queue
        if len(queue) >= MOST_WAITING:
            self._make_room()
        queue.append((None, _text_of(error), model_id, version, category, _time()))
        if self._worker.asleep:
            self._wake()

    def inference(self, model_id: str, version: str = "", **stats: Unpack[Stats]) -> Inference:
        """Times what it is put around: ``with client.inference(...) as call:``, or as a decorator, also of a coroutine.

        An exception is recorded as an error of the model, and goes on its way.
        """
        return Inference(self, model_id, version, stats)

    # Sessions

    @property
    def session_id(self) -> str | None:
        """The session that records go to; None after `end_session`, until the next record."""
        return self._shared.session_id

    def start_session(self, labels: dict[str, str] | None = None) -> str:
        """End the current session and start another; its id. Does not wait for the daemon."""
        session_id = _new_id()
        self._ask("end_session")
        self._ask("start_session", session_id=session_id, labels=dict(labels or {}))
        return session_id

    def end_session(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """End the current session; its export, or None when there is none or the daemon did not answer in time.

        The next record starts a new one.
        """
        mark = self._ask("end_session")
        if mark is None or not mark.wait(timeout_s):
            return None
        return cast("dict[str, Any] | None", mark.result)

    # The device

    def advice(
        self, model_size_mb: float | None = None, safety_margin: float = 1.5, timeout_s: float = 2.0
    ) -> dict[str, Any] | None:
        """What this process had better do now, and why: ``device.advice`` of `docs/protocol.md`.

        None when no daemon answered within `timeout_s`. ``model_size_mb``: would a model of this size (MiB) fit?
        """
        return cast("dict[str, Any] | None", self._answer(self._ask_advice(model_size_mb, safety_margin), timeout_s))

    def watch(self, callback: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        """Call `callback` with ``{"capabilities": …, "advice": …}`` as they are, and again whenever they change.

        On the client's own thread: be brief. What it raises is logged once. Returns what ends the watching.
        """
        watchers = self._shared.watchers
        watchers.append(callback)
        self._ask("watch", callback=callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                watchers.remove(callback)

        return end

    def _ask_advice(self, model_size_mb: float | None, safety_margin: float) -> Mark | None:
        params = {"safety_margin": safety_margin}
        if model_size_mb is not None:
            params["model_size_mb"] = model_size_mb
        return self._ask("ask", method="device.advice", params=params)

    @staticmethod
    def _answer(mark: Mark | None, timeout_s: float) -> Any:
        return mark.result if mark is not None and mark.wait(timeout_s) else None

    @property
    def aio(self) -> AsyncClient:
        """The calls that ask, for an event loop: ``await client.aio.advice()``. No thread waits for them."""
        from xybridd.client.aio import AsyncClient  # noqa: PLC0415 - only who uses asyncio pays for it

        return AsyncClient(self)

    # Life

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Whether everything recorded so far by this client was on the daemon's disk within `timeout_s`."""
        mark = self._ask("flush")
        return mark is None or (mark.wait(timeout_s) and bool(mark.result))

    def close(self, timeout_s: float = EXIT_DRAIN_S) -> bool:
        """Bring what waits to the daemon, end the session, stop. Whether that was done within `timeout_s`.

        What was not done by then is written to the spool, and brought to the daemon by whichever process of this user
        uses xybridd next, or by the daemon itself. Called at exit. What is recorded afterwards is dropped.
        """
        with self._lock:
            if self._closed:
                return True
            self._closed = True
        mark = self._ask("close", even_closed=True)
        return self._stop(done=mark is None or mark.wait(timeout_s))

    def _stop(self, *, done: bool) -> bool:
        flusher = self._flusher
        if not done and (flusher is None or not flusher.give_up(EXIT_SPOOL_S)):
            left = sum(isinstance(each, tuple) for each in list(self._queue))
            left += 0 if flusher is None else flusher.waiting()
            self._shared.count_lost(left, "no thread could be started" if flusher is None else "the disk took too long")
        self._worker = _CLOSED
        _clients.discard(self)
        return done

    def counters(self) -> dict[str, int]:
        """What became of this client's records so far.

        ``acknowledged``: on the daemon's disk. ``waiting``: here. ``spooled``: in a file, until a daemon is there.
        ``dropped``: the oldest, when too many waited. ``invalid``: left out as they could not be right. ``refused``: by
        the daemon. ``lost``: at the end, when there was neither a daemon nor room for a file.
        """
        shared, flusher = self._shared, self._flusher
        return {
            "acknowledged": shared.acknowledged,
            "waiting": len(shared.queue) + (flusher.waiting() if flusher is not None else 0),
            "dropped": shared.dropped,
            "invalid": shared.invalid,
            "refused": shared.refused,
            "spooled": shared.spooled,
            "lost": shared.lost,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(timeout_s=2.0)

    # How

    def _ask(self, act: str, *, even_closed: bool = False, **arguments: Any) -> Mark | None:
        """Put a request behind what was recorded so far; None when this client does nothing any more."""
        if self._closed and not even_closed:
            return None
        if act == "close" and self._flusher is None and not self._queue:
            return None  # it never had anything to do
        try:
            from xybridd.client.flusher import Flusher, Mark  # noqa: PLC0415 - only who asks pays for it

            mark = Mark(getattr(Flusher, act), **arguments)
            self._queue.append(mark)
            self._wake(urgent=True)
        except Exception:  # noqa: BLE001 - whatever it is, the app goes on
            _log().exception("the client could not ask for %s", act)
            return None
        return mark

    def _wake(self, *, urgent: bool = False) -> None:
        try:
            flusher = self._flusher
            if flusher is None:
                flusher = self._start()
            flusher.asleep = False
            flusher.wake(urgent=urgent)
        except Exception as error:  # noqa: BLE001 - no descriptors left, no thread at interpreter shutdown
            say = _log().debug if self._worker is _CLOSED or self._closed else _log().warning
            say("what is recorded stays in memory, the client's thread cannot be started: %s", error)
            self._worker = _CLOSED

    def _start(self) -> Flusher:
        from xybridd.client.flusher import Flusher  # noqa: PLC0415 - only who records pays for it

        with self._lock:
            if self._flusher is None:
                flusher = Flusher(self._shared)
                flusher.start()
                self._flusher = self._worker = flusher
                if not self._shared.owns_session:
                    _drain_at_end_of_child(self)
            return self._flusher

    def _make_room(self) -> None:
        with self._lock:
            while len(self._queue) >= MOST_WAITING:
                oldest = self._queue.popleft()
                if isinstance(oldest, tuple):
                    self._shared.dropped += 1
                else:
                    oldest.finish()

    def _after_fork(self) -> None:
        if self._flusher is not None:
            self._flusher.forget()
        self._shared = self._shared.for_child()
        self._queue = self._shared.queue
        self._flusher = None
        self._lock = threading.RLock()
        self._worker = _CLOSED if self._closed else _NOT_STARTED


class _NotStarted:
    """Stands where the flusher will: the first record starts it."""

    asleep = True


class _Closed:
    asleep = False


_NOT_STARTED = _NotStarted()
_CLOSED = cast("_NotStarted", _Closed())


class SilentClient(Client):
    """What `connect` returns when the environment says that nothing is to be recorded."""

    def record_inference(
        self, model_id: str, version: str = "", latency_ms: float = 0.0, **stats: Unpack[Stats]
    ) -> None:
        pass

    def record_error(
        self,
        error: str | BaseException,
        model_id: str | None = None,
        version: str | None = None,
        category: str | None = None,
    ) -> None:
        pass

    def _ask(self, act: str, *, even_closed: bool = False, **arguments: Any) -> Mark | None:  # noqa: ARG002
        return None


class Inference:
    """One inference under way. Latency is wall time on the clock that cannot jump."""

    __slots__ = ("_client", "_started", "_stats", "model_id", "version")

    def __init__(self, client: Client, model_id: str, version: str, stats: Stats) -> None:
        self._client = client
        self._stats = stats
        self._started = 0.0
        self.model_id = model_id
        self.version = version

    def note(self, **stats: Unpack[Stats]) -> None:
        """Add what is known only now: tokens, the hardware that was used."""
        self._stats = {**self._stats, **stats}

    def __enter__(self) -> Self:
        self._started = _perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            latency_ms = (_perf_counter() - self._started) * 1000
            self._client.record_inference(self.model_id, self.version, latency_ms, **self._stats)
        elif isinstance(error, Exception):  # an interrupt, or a task that was cancelled, is no failure of the model
            self._client.record_error(error, self.model_id, self.version)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        import inspect  # noqa: PLC0415 - only who decorates pays for it

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Inference(self._client, self.model_id, self.version, self._stats):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", timed_coroutine)

        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with Inference(self._client, self.model_id, self.version, self._stats):
                return function(*args, **kwargs)

        return timed


def _text_of(error: str | BaseException) -> str:
    if not isinstance(error, BaseException):
        return error
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an exception whose own __str__ fails
        return type(error).__name__


def connect(
    app: str | None = None,
    *,
    app_version: str = "",
    labels: dict[str, str] | None = None,
    session_id: str | None = None,
    socket: str | Path | None = None,
) -> Client:
    """A client of this device's daemon, and a session; both at once, whether or not a daemon is there.

    ``app`` names the app in every session (by default the name of the program); ``labels`` are strings that stand in
    the session; ``socket`` is for a daemon in an unusual place (else ``XYBRIDD_SOCKET``, the user's, the system's).
    """
    from pathlib import Path  # noqa: PLC0415

    from xybridd import __version__  # noqa: PLC0415 - the package imports this module

    name = app or os.path.basename(sys.argv[0] or "") or "python"  # noqa: PTH119 - cheaper than a Path
    shared = Shared(name[:128], app_version, __version__, None if socket is None else (Path(socket),))
    shared.labels = dict(labels or {})
    if session_id is not None:
        shared.session_id, shared.owns_session = session_id, False
    if opted_out():
        return SilentClient(shared)
    client = Client(shared)
    _clients.add(client)
    client._wake()  # noqa: SLF001 - the session starts now, not with the first record
    return client


#: Every client that is not closed: one that nobody holds any more still has its records to bring home.
_clients: set[Client] = set()


def _close_all() -> None:
    for client in list(_clients):
        client.close()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - the module's own


def _drain_at_end_of_child(client: Client) -> None:
    """Multiprocessing ends its children without the usual handlers; it has its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        with contextlib.suppress(Exception):
            util.Finalize(client, client.close, exitpriority=10)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
