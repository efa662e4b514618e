"""What a thousand connections that say nothing keep of the daemon's memory."""

from __future__ import annotations

import contextlib
import resource
import time
from typing import TYPE_CHECKING

from benchmarks.bench import Frames, resident_bytes
from benchmarks.rows import Floor, Row, at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench

_COUNT = 1000
_KB = 1000

#: What a connection has said before it falls silent.
_KINDS: dict[str, Callable[[Frames], None]] = {
    "connected": lambda _: None,
    "after hello": lambda connection: connection.call(
        "hello", {"app": "bench", "client_id": f"00000000-0000-4000-8000-{id(connection) % 16**12:012x}"}
    ),
    "after session.start": lambda connection: connection.begin(),
}


def _each_bytes(bench: Bench, prepare: Callable[[Frames], None]) -> float:
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(bench.daemon())
        with Frames(daemon.socket) as first:
            first.begin()  # what is made once, at the first of them, is not counted to the thousand
        before = resident_bytes(daemon.pid)
        connections = [stack.enter_context(Frames(daemon.socket)) for _ in range(_COUNT)]
        for connection in connections:
            prepare(connection)
        connections[-1].call("daemon.status", {})
        time.sleep(0.5)
        grown = resident_bytes(daemon.pid) - before
        for connection in connections:
            connection.sock.close()
        return grown / _COUNT


def _bare_bytes() -> float:
    """A thousand asyncio transports with an empty protocol."""
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    done = subprocess.run([sys.executable, "-c", _BARE], capture_output=True, text=True, check=True)
    return float(done.stdout)


_BARE = f"""
import asyncio, psutil, socket
async def main():
    loop = asyncio.get_running_loop()
    process = psutil.Process()
    pairs = [socket.socketpair() for _ in range({_COUNT})]
    before = process.memory_info().rss
    kept = [await loop.connect_accepted_socket(asyncio.Protocol, ours) for ours, _ in pairs]
    print((process.memory_info().rss - before) / {_COUNT})
asyncio.run(main())
"""


def measure(bench: Bench) -> list[Row]:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))
    floor = Floor("a bare asyncio transport", _bare_bytes() / _KB)
    return [
        Row(f"1,000 idle connections, {kind}", _each_bytes(bench, prepare) / _KB, "kB each", floor, at_most(10))
        for kind, prepare in _KINDS.items()
    ]
