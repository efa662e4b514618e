"""Attacks on the clients, and by clients: whatever one of them does, the records of the others are untouched."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from typing import TYPE_CHECKING, Any

from tests.daemon.scenes import new_id, request_line
from tests.support import Wire, inference, readable
from tests.torture.arena import Noise

if TYPE_CHECKING:
    from tests.torture.arena import Arena


def killed(arena: Arena) -> None:
    """Producers die; of those that speak lines, another one goes on with the journal."""
    for worker in arena.at_work("raw", "steady"):
        if arena.chance.random() < 0.5:
            worker.kill()
            arena.figures["clients_killed"] += 1
            arena.pause(0, 0.3)
            if worker.is_raw:
                worker.start()
            else:
                arena.hire("steady")


def frozen(arena: Arena) -> None:
    """Wherever they are, in the middle of a line among others."""
    chosen = [worker for worker in arena.at_work() if arena.chance.random() < 0.6]
    for worker in chosen:
        worker.signal(signal.SIGSTOP)
    arena.pause(0.5, 3.0)
    for worker in chosen:
        worker.signal(signal.SIGCONT)
    arena.figures["clients_frozen"] += len(chosen)


def leaving(arena: Arena) -> None:
    """Scripts that record a little and end at once, some of them while there is no daemon."""
    if arena.chance.random() < 0.5:
        arena.kill()
    for _ in range(arena.chance.randint(1, 3)):
        arena.hire("leaving")
        arena.figures["clients_that_left"] += 1
    arena.pause(0.2, 1.0)


def half_lines(arena: Arena) -> None:
    """Peers that stop in the middle of a line: some go on later, some are gone."""
    noise = arena.noise.setdefault("noise-half", Noise())
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(arena.daemon.wire()) for _ in range(arena.chance.randint(1, 20))]
        lines = []
        for wire in wires:
            wire.hello("noise-half")
            line = request_line(9, "record.batch", seq=1, records=[inference()] * 30, flush=True)
            cut = arena.chance.randint(1, len(line) - 1)
            wire.sock.sendall(line[:cut])
            lines.append(line[cut:])
        arena.pause(0.2, 2.0)
        for wire, rest in zip(wires, lines, strict=True):
            if arena.chance.random() < 0.5:
                noise.sent += 30
                with contextlib.suppress(OSError, AssertionError):
                    wire.sock.sendall(rest)
                    noise.acknowledged += 30 if "result" in wire.read() else 0
    arena.figures["half_lines"] += len(lines)


def thousand(arena: Arena) -> None:
    """A thousand connections, each with a record."""
    noise = arena.noise.setdefault("noise-thousand", Noise())
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(1000):
            with contextlib.suppress(OSError):
                wires.append(stack.enter_context(arena.daemon.wire()))
        for wire in wires:
            wire.send("hello", app="noise-thousand", client_id=new_id())
            wire.send("record.inference", model_id="m", version="1", latency_ms=1)
            noise.sent += 1
        arena.look()
        for wire in wires:
            with contextlib.suppress(OSError, AssertionError):
                wire.read()
                noise.acknowledged += "result" in wire.read()
    arena.figures["connections"] += len(wires)


def slow_readers(arena: Arena) -> None:
    """They ask for much and read nothing, or little, and go in the midst of it."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(arena.daemon.wire()) for _ in range(arena.chance.randint(1, 8))]
        question = b"".join(request_line(number, "session.list", limit=1000) for number in range(500))
        for wire in wires:
            wire.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                wire.sock.send(question)
        for _ in range(10):
            arena.pause(0.05, 0.2)
            arena.look()
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.sock.recv(arena.chance.randint(1, 4096))
    arena.figures["slow_readers"] += len(wires)


def flood(arena: Arena) -> None:
    """As many records as it takes, one a request, with none of the answers read until the end."""
    noise = arena.noise.setdefault("noise-flood", Noise())
    lines = [request_line(number, "record.inference", model_id="f", version="1", latency_ms=1) for number in range(500)]
    with arena.daemon.wire() as wire:
        wire.hello("noise-flood")
        wire.sock.settimeout(5)
        with contextlib.suppress(OSError):
            for _ in range(20):
                noise.sent += len(lines)
                wire.sock.sendall(b"".join(lines))
                arena.look()
        with contextlib.suppress(OSError, AssertionError, ValueError):
            wire.sock.shutdown(socket.SHUT_WR)
            while True:
                noise.acknowledged += "result" in wire.read()
    arena.figures["floods"] += 1


def garbage(arena: Arena) -> list[tuple[str, bytes]]:
    """What a hostile client sends; nothing of it is a record."""
    chance = arena.chance
    deep = b"[" * 200_000
    nested = b'{"jsonrpc":"2.0","id":1,"method":"record.batch","params":{"seq":1,"records":' + deep + b"}}\n"
    batch: dict[str, Any] = {"seq": 1, "records": [inference()] * 10_001}
    return [
        ("noise", chance.randbytes(chance.randint(1, 100_000))),
        ("lines of noise", b"\n".join(chance.randbytes(50) for _ in range(1000)) + b"\n"),
        ("a line without an end", b"x" * 3_000_000),
        ("deep JSON", deep + b"\n"),
        ("deep JSON in a request", nested),
        ("too many records", request_line(1, "record.batch", **batch)),
        ("no number", request_line(1, "record.inference", model_id="m", version="1", latency_ms=10**400)),
        ("a negative latency", request_line(1, "record.inference", model_id="m", version="1", latency_ms=-1)),
        ("NaN", b'{"jsonrpc":"2.0","id":1,"method":"record.inference","params":{"latency_ms":NaN}}\n'),
        ("a foreign sequence", request_line(1, "record.batch", seq=2**70, records=[inference()])),
        ("no UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"record.error","params":{"error":"\xff\xfe"}}\n'),
        ("a long name", request_line(1, "record.inference", model_id="m" * 500_000, version="1", latency_ms=1)),
        ("HTTP", b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"),
        ("nothing but new lines", b"\n" * 500_000),
        ("a wrong session", request_line(1, "session.end", session_id=new_id())),
        (
            "batches of JSON-RPC",
            json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "session.end"}] * 5000).encode() + b"\n",
        ),
    ]


def hostile(arena: Arena) -> None:
    """Garbage of every kind, on a connection each, some of them at once."""
    chosen = arena.chance.sample(garbage(arena), 8)
    with contextlib.ExitStack() as stack:
        for _, junk in chosen:
            with contextlib.suppress(OSError):
                wire = stack.enter_context(Wire(arena.daemon.socket))
                wire.sock.settimeout(2)
                with contextlib.suppress(OSError):
                    wire.sock.sendall(junk)
                if arena.chance.random() < 0.5 and readable(wire.sock, 0.2):
                    with contextlib.suppress(OSError):
                        wire.sock.recv(65_536)
            arena.look()
    arena.figures["hostile_inputs"] += len(chosen)
