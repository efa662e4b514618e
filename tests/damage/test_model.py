"""Random lives, with crashes in them, beside a model of what should be there.

``XYBRIDD_LIVES`` says how many (12), and each is of 40 steps; more than that are other ones each time.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.damage.world import SAYS, World

if TYPE_CHECKING:
    from collections.abc import Callable

LIVES = int(os.environ.get("XYBRIDD_LIVES", "12"))

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120 + 10 * LIVES)]

names = st.sampled_from(["ann", "ben"])


class Life(RuleBasedStateMachine):
    place: Path

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Path(tempfile.mkdtemp(dir=self.place)))

    def teardown(self) -> None:
        self.world.end()

    @rule(name=names)
    def connect(self, name: str) -> None:
        self.world.run(self.world.connect(name))

    @precondition(lambda self: self.world.sessions)
    @rule(name=names, which=st.integers(0, 9))
    def join(self, name: str, which: int) -> None:
        self.world.run(self.world.connect(name, self.world.some(which)))

    @rule(name=names)
    def start(self, name: str) -> None:
        self.world.run(self.world.start(name))

    @rule(name=names, flush=st.booleans(), skip=st.sampled_from([0, 0, 0, 0, 1, 3]))
    def batch(self, name: str, skip: int, *, flush: bool) -> None:
        self.world.run(self.world.batch(name, skip, flush=flush))

    @rule(name=names, number=st.integers(1, 5))
    def batches(self, name: str, number: int) -> None:
        for _ in range(number):
            self.world.run(self.world.batch(name, 0, flush=False))

    @rule(name=names, back=st.integers(0, 3))
    def again(self, name: str, back: int) -> None:
        self.world.run(self.world.again(name, back))

    @rule(name=names, reset=st.booleans())
    def finish(self, name: str, *, reset: bool) -> None:
        self.world.run(self.world.finish(name, reset=reset))

    @rule(name=names)
    def disconnect(self, name: str) -> None:
        self.world.run(self.world.disconnect(name))

    @rule(seconds=st.sampled_from([1.0, 31.0, 1000.0, 2000.0, 90_000.0, 3e6]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(self.world.time_passes(seconds))

    @rule()
    def minute(self) -> None:
        self.world.run(self.world.minute())

    @rule(sink=st.sampled_from(["xybrid", "otlp"]), says=st.sampled_from(sorted(SAYS)))
    def network(self, sink: str, says: str) -> None:
        self.world.run(self.world.network(sink, says))

    @rule()
    def replay(self) -> None:
        self.world.run(self.world.replay())

    @precondition(lambda self: self.world.sessions)
    @rule(which=st.integers(0, 9))
    def forget(self, which: int) -> None:
        self.world.run(self.world.forget(self.world.some(which)))

    @rule()
    def retention(self) -> None:
        self.world.run(self.world.retention())

    @rule(power=st.booleans())
    def crash(self, *, power: bool) -> None:
        self.world.run(self.world.crash(power=power))

    @rule()
    def restart(self) -> None:
        self.world.run(self.world.restart())

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        self.world.run(self.world.check())


def test_random_lives_are_as_the_model_says(memory: Path, say: Callable[[str], None]) -> None:
    Life.place = memory
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            derandomize=LIVES <= 12,
            suppress_health_check=list(HealthCheck),
        ),
    )
    say(f"{LIVES} random lives")
