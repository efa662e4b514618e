"""Everything that a network, a proxy or a server does to a request: what was to arrive arrives, once."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.support import Daemon, until
from tests.survival.scene import KEY, arrived_once, config, drained, ended, give_key, now, sinks, status_of
from xybridd.testing import Behaviour, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Scene:
    """A daemon and a receiver that the tests of this file share; what was made, and what of it never arrives."""

    def __init__(self, daemon: Daemon, receiver: Receiver) -> None:
        self.daemon = daemon
        self.receiver = receiver
        self.made: list[str] = []
        self.dead: set[str] = set()

    def record(self, number: int) -> list[str]:
        new = ended(self.daemon, number)
        self.made += new
        return new

    def waiting(self, number: int) -> list[str]:
        """So many sessions that go in one batch."""
        self.paused(True)
        new = self.record(number)
        self.paused(False)
        return new

    def paused(self, paused: bool) -> None:
        with self.daemon.wire() as wire:
            wire.call("upload.pause" if paused else "upload.resume")

    def did(self, kind: str) -> int:
        return sum(request["did"] == kind for request in self.receiver.seen()["requests"])

    def all_arrive_once(self) -> None:
        drained(self.daemon)
        arrived_once(self.daemon, self.receiver, set(self.made) - self.dead, gone=len(self.dead))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    home = Path(tempfile.mkdtemp(prefix="xyb-"))
    with Receiver(key=KEY) as receiver:
        daemon = Daemon(home, config(receiver.url))
        give_key(daemon)
        try:
            yield Scene(daemon.start(), receiver)
        finally:
            daemon.end()
            shutil.rmtree(home, ignore_errors=True)


#: What goes wrong, and then does not any more. Those that take the events lose the answer alone.
MISHAPS = {
    "reset before the body": Behaviour("reset_before", times=2),
    "reset during the body": Behaviour("reset_during", times=2),
    "reset after the body": Behaviour("reset_after", times=2),
    "no answer": Behaviour("silent"),
    "no answer, and it has it": Behaviour("silent", takes=True),
    "an answer byte by byte": Behaviour("drip", pause_s=0.02),
    "half an answer": Behaviour("truncated", times=2),
    "no HTTP": Behaviour("garbage", times=2),
    "no HTTP, and it has it": Behaviour("garbage", takes=True),
    "the page of a captive portal": Behaviour("portal", times=2),
    "a redirect on the same host": Behaviour("redirect", times=2),
    "a redirect in a loop": Behaviour("redirect", times=8),
    "a redirect to another host": Behaviour("redirect", location="http://127.0.0.2:9/v1/events/batch"),
    "a redirect that is none": Behaviour("redirect", status=303),
    **{
        f"status {status}": Behaviour("status", status=status, times=2)
        for status in (401, 403, 404, 408, 409, 410, 425, 429, 500, 501, 502, 503, 504, 505, 507)
    },
    "status 500, and it has it": Behaviour("status", status=500, takes=True),
    **{
        f"Retry-After {text}": Behaviour("status", status=503, retry_after=text)
        for text in ("3600", "Wed, 21 Oct 2065 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 400, "soon", "-5")
    },
}


@pytest.mark.parametrize("mishap", list(MISHAPS))
def test_what_goes_wrong_delays_it_and_no_more(scene: Scene, mishap: str) -> None:
    behaviour = MISHAPS[mishap]
    before = scene.did(behaviour.kind)
    scene.receiver.misbehave(behaviour)
    scene.record(3)
    until(lambda: now(scene.daemon) and scene.did(behaviour.kind) == before + (behaviour.times or 0), mishap)
    scene.all_arrive_once()


def test_a_batch_that_is_too_large_goes_in_parts(scene: Scene) -> None:
    scene.receiver.misbehave(Behaviour("too_large", times=None, limit=2))
    scene.waiting(13)
    scene.all_arrive_once()
    assert all(len(batch["events"]) <= 2 for batch in scene.receiver.seen()["batches"][-7:])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_that_is_never_taken_is_a_dead_letter_and_the_others_arrive(scene: Scene, status: int) -> None:
    bad = poisoned(scene, status)
    scene.all_arrive_once()
    with scene.daemon.wire() as wire:
        letters = wire.call("upload.dead.list")["dead"]
    assert {letter["session_id"] for letter in letters} == scene.dead
    (letter,) = [letter for letter in letters if letter["session_id"] == bad]
    assert str(status) in letter["reason"]


def poisoned(scene: Scene, status: int) -> str:
    """Eleven in one batch, of which the receiver never takes one."""
    scene.paused(True)
    made = scene.record(11)
    scene.receiver.misbehave(Behaviour("poisoned", times=None, status=status, session_id=made[7]))
    scene.dead.add(made[7])
    scene.paused(False)
    return made[7]


@pytest.mark.timeout(300)
def test_one_after_the_other_at_random_they_all_arrive(scene: Scene, say: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    behaviours = [
        msgspec.structs.replace(behaviour, share=0.3, times=None)
        for behaviour in MISHAPS.values()
        if behaviour.kind not in {"silent", "drip"} and not (behaviour.kind == "redirect" and behaviour.times == 8)
    ]
    chance.shuffle(behaviours)
    scene.receiver.misbehave(*behaviours[:8], seed=seed)
    before = len(scene.receiver.seen()["requests"])

    def many() -> bool:
        scene.record(chance.randrange(1, 6))
        now(scene.daemon)
        return len(scene.receiver.seen()["requests"]) > before + 150

    until(many, "many requests")
    scene.receiver.misbehave()
    scene.all_arrive_once()
    seen = scene.receiver.seen()
    say(f"seed {seed}: {len(seen['requests']) - before} requests, {seen['repeats']} repeats in all")


def test_the_status_says_what_is_wrong_and_that_it_is_over(scene: Scene) -> None:
    scene.receiver.misbehave(Behaviour("status", status=503, times=None, retry_after="1800"))
    scene.record(1)
    line = until(lambda: (each := status_of(scene.daemon))["state"] == "retrying" and each, "the lane to wait")
    assert 1700 < line["next_attempt_in_s"] <= 1800
    assert "503" in line["last_error"]
    scene.receiver.misbehave()
    scene.all_arrive_once()
    line = status_of(scene.daemon)
    assert (line["state"], line["last_error"], line["failures"]) == ("idle", None, 0)
    assert sinks(scene.daemon)["xybrid"]["queued"] == 0
