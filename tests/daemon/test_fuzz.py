"""Lines that were broken at random: each is answered once, and the daemon goes on."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, ledger, producer, total
from tests.support import inference, ledger_balances

if TYPE_CHECKING:
    from tests.support import Daemon

ID = "00000000-0000-4000-8000-000000000001"

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("hello", {"app": "fuzz", "client_id": ID, "app_version": "1"}),
    ("session.start", {"session_id": ID, "labels": {"a": "b"}, "started_at_ms": 5}),
    ("session.get", {"session_id": ID}),
    ("session.list", {"active": True, "limit": 5, "since_ms": 0}),
    ("session.export", {}),
    ("session.reset", {}),
    ("session.end", {"session_id": ID}),
    ("record.inference", {"model_id": "m", "version": "1", "latency_ms": 1.5, "stats": {"input_tokens": 5}}),
    ("record.error", {"error": "boom", "model_id": "m", "category": "Memory", "timestamp_ms": 7}),
    ("record.batch", {"seq": 1, "records": [inference(), {"type": "error", "error": "e"}], "flush": True}),
    ("device.capabilities", {}),
    ("daemon.status", {}),
    ("daemon.flush", {}),
]

ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, -(2**63), 1e308, 10**400, "", "x", "\x00", "🚀" * 300, [], {},
    [[]], {"a": {}}, "a" * 3000, ["x"] * 300, ID, "-1", [None], {"": ""},
]  # fmt: skip


def mutated_value(chance: random.Random, value: Any) -> Any:
    """The value with something odd somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        return {**value, key: mutated_value(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], mutated_value(chance, value[place]), *value[place + 1 :]]
    return chance.choice(ODD)


def mutated_bytes(chance: random.Random, line: bytes) -> bytes:
    out = bytearray(line)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(out))
        out[place : place + chance.randint(0, 3)] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 3)))
    return bytes(out).replace(b"\n", b" ")


@pytest.mark.parametrize("seed", range(6))
def test_every_odd_request_is_answered_and_harms_nobody(served: Daemon, seed: int) -> None:
    chance = random.Random(seed)
    good, session_id = producer(served)
    with good, served.wire() as wire:
        for number in range(400):
            method, params = chance.choice(CALLS)
            request = {"jsonrpc": "2.0", "id": number, "method": method, "params": mutated_value(chance, params)}
            wire.send_line(json.dumps(request).encode())
            answer = wire.read()
            assert answer["id"] == number
            assert answer.get("error", {}).get("code") != -32603, request
        batch(good, 1)
    assert total(served, session_id) == 1
    assert ledger_balances(ledger(served))
    assert "Traceback" not in served.said()


@pytest.mark.parametrize("seed", range(6))
def test_broken_bytes_are_an_error_and_the_connection_goes_on(served: Daemon, seed: int) -> None:
    chance = random.Random(seed)
    good, session_id = producer(served)
    answered = 0  # answers may come in another order, so one may come behind the next mark
    with good, served.wire() as wire:
        for number in range(400):
            method, params = chance.choice(CALLS)
            request = {"jsonrpc": "2.0", "id": "fuzz", "method": method, "params": params}
            wire.send_line(mutated_bytes(chance, json.dumps(request).encode()))
            wire.send_line(b'{"jsonrpc":"2.0","id":"mark %d","method":"daemon.flush"}' % number)
            while wire.read()["id"] != f"mark {number}":
                answered += 1
            assert answered <= number + 1
        batch(good, 1)
    assert total(served, session_id) == 1
    assert ledger_balances(ledger(served))
    assert "Traceback" not in served.said()
