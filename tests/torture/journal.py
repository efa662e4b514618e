"""What a producer wrote down: what it sent, and what it was told is kept. The oracle of the campaign.

A journal is a file of JSON lines, each written before what it says is done and whole before the next, so that it is
right whatever moment its producer is killed at. Batches stand in it by number alone: what is in them follows from the
seed and the number (`records_of`), so that a killed producer's successor sends the very same again.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MODELS = ("whisper", "kokoro", "qwen")
ERRORS = ("gpu lost", "out of memory", "boom")


def id_of(*names: Any) -> str:
    """A UUID that follows from a seed and what it is for."""
    return str(uuid.UUID(int=random.Random("/".join(map(str, names))).getrandbits(128), version=4))


def records_of(seed: int, seq: int) -> list[dict[str, Any]]:
    """The records of a batch."""
    chance = random.Random(f"{seed}/{seq}")
    return [one_record(chance) for _ in range(chance.randint(1, 40))]


def one_record(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.2:
        return {"type": "error", "error": chance.choice(ERRORS)}
    return {
        "type": "inference",
        "model_id": chance.choice(MODELS),
        "version": "1",
        "latency_ms": chance.randint(0, 5000),
    }


@dataclass
class Sums:
    """What is in a session, as far as it is compared: calls and ms by model, errors by message."""

    calls: Counter[str] = field(default_factory=Counter)
    latency_ms: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            if record["type"] == "error":
                self.errors[record["error"]] += 1
            else:
                self.calls[record["model_id"]] += 1
                self.latency_ms[record["model_id"]] += record["latency_ms"]

    def merge(self, other: Sums) -> None:
        for mine, others in (
            (self.calls, other.calls),
            (self.latency_ms, other.latency_ms),
            (self.errors, other.errors),
        ):
            mine.update(others)

    @property
    def records(self) -> int:
        return self.calls.total() + self.errors.total()


@dataclass
class Wanted:
    """Of one session: at least what was acknowledged, at most what was sent; the same when all came home."""

    least: Sums = field(default_factory=Sums)
    most: Sums = field(default_factory=Sums)
    #: Whether an end was acknowledged.
    ended: bool = False


class Journal:
    """One producer's file, open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, **line: Any) -> None:
        """One call of the system for one line: a kill leaves all of it or none, and a fork shares the file."""
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every whole line."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@dataclass
class Standing:
    """Where a producer of batches stands, by its journal."""

    seed: int
    session_id: str = ""
    sessions: int = 0
    session_of: dict[int, str] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Standing:
        standing = cls(int(path.stem))
        for line in lines_of(path):
            match line:
                case {"sent": seq, "session": session_id}:
                    standing.session_of[seq] = session_id
                case {"session": session_id}:
                    standing.session_id = session_id
                    standing.sessions += 1
                case {"kept": seq}:
                    standing.kept.add(seq)
                case {"ended": session_id}:
                    standing.ended.add(session_id)
        return standing

    @property
    def last_seq(self) -> int:
        return max(self.session_of, default=0)

    def wanted(self) -> dict[str, Wanted]:
        """By session. One that was begun and got nothing is in it as well."""
        found: dict[str, Wanted] = {}
        for seq, session_id in self.session_of.items():
            records = records_of(self.seed, seq)
            wanted = found.setdefault(session_id, Wanted())
            wanted.most.add(records)
            if seq in self.kept:
                wanted.least.add(records)
        for session_id in self.ended:
            found.setdefault(session_id, Wanted()).ended = True
        return found


def wanted_by_client(path: Path) -> dict[str, Wanted]:
    """Of a producer that used our client, by its app: bursts that it recorded, and how many a flush said are kept.

    Each process of a fork has its own bursts, by its pid. When it came home, its sessions have ended.
    """
    wanted = Wanted()
    bursts: dict[int, list[dict[str, Any]]] = {}
    for line in lines_of(path):
        match line:
            case {"burst": records, "pid": pid}:
                bursts.setdefault(pid, []).extend(records)
                wanted.most.add(records)
            case {"flushed": True, "pid": pid}:
                wanted.least.add(bursts.pop(pid, []))
            case {"ended": _}:
                wanted.ended = True
    return {f"app-{path.stem}": wanted}
