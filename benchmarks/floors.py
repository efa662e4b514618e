"""The bare things: an append with fsync, an echo over a socket, rows into plain SQLite."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAGE = b"\xa5" * 4096

_ECHO = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
while data := sock.recv(65536):
    sock.sendall(data)
"""


class Appender:
    """Appends a page of 4 KiB to a file and waits until it is on disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def once(self) -> float:
        """Seconds."""
        started = time.perf_counter()
        os.write(self._fd, _PAGE)
        os.fsync(self._fd)
        return time.perf_counter() - started

    def close(self) -> None:
        os.close(self._fd)


class Echo:
    """Sends bytes to another process over a Unix socket and waits until they are back."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def once(self, data: bytes) -> float:
        """Seconds."""
        started = time.perf_counter()
        self._sock.sendall(data)
        left = len(data)
        while left:
            left -= len(self._sock.recv(left))
        return time.perf_counter() - started


@contextlib.contextmanager
def echo() -> Iterator[Echo]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _ECHO, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        try:
            found = Echo(ours)
            found.once(b"ready?")
            yield found
        finally:
            ours.close()
            process.wait(10)


def sqlite_rows_per_s(path: Path, rows: int, for_s: float) -> float:
    """Rows a second when each batch of `rows` is one transaction, on disk before the next begins."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE record (model_id TEXT, version TEXT, latency_ms REAL, timestamp_ms INTEGER)")
        batch = [("whisper-tiny", "1.0", 212.5 + number, 1_700_000_000_000 + number) for number in range(rows)]
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < for_s:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", batch)
            connection.execute("COMMIT")
            count += rows
        return count / (time.perf_counter() - started)
