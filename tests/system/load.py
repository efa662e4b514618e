"""Runs inside, as a user of the group: an app at work until its input ends, and one-line clients beside it.

Prints one line when the first record is on disk, and at the end what it recorded and what went wrong, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

import xybridd

PATH = "/run/xybridd/xybridd.sock"
REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "daemon.status"}


def knock(stop: threading.Event, refused: list[str], answered: list[int]) -> None:
    """Somebody who comes anew for each question: whoever listens, connecting must never fail."""
    while not stop.is_set():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(30)
            try:
                sock.connect(PATH)
            except OSError as error:
                refused.append(str(error))
                continue
            try:
                sock.sendall(json.dumps(REQUEST).encode() + b"\n")
                answered.append(len(sock.recv(65_536)))
            except OSError:
                continue  # it was cut off, as whoever connects to a daemon that is stopping may be
        time.sleep(0.005)


def await_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> None:
    client = xybridd.connect(app="load")
    stop, refused, answered = threading.Event(), list[str](), list[int]()
    knocking = threading.Thread(target=knock, args=(stop, refused, answered))
    knocking.start()
    recorded = 0
    ended = threading.Event()
    threading.Thread(target=await_end, args=(ended,), daemon=True).start()
    while not ended.is_set():
        client.record_inference("kokoro-82m", "1.0", latency_ms=5)
        recorded += 1
        if recorded == 1:
            client.flush(30)
            say(client.session_id)
        time.sleep(0.0005)
    flushed = client.flush(60)
    stop.set()
    knocking.join()
    say(
        {
            "recorded": recorded,
            "flushed": flushed,
            "refused": refused,
            "session": client.session_id,
            "answered": len(answered),
            "counters": client.counters(),
        }
    )
    client.close(5)


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


main()
