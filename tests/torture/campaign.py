"""Legs of a campaign: producers at work, one attack after the other, then the judge.

A leg begins with fresh producers on the same daemon and the same data, and ends when all of them are home; so a failure
lies in the last minute or two. What was judged in one leg is judged again in all later ones.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import RECEIVER_KEY, ledger_balances
from tests.torture.arena import KINDS, Arena
from tests.torture.attacks import ATTACKS, Attack, permitted
from tests.torture.judge import Verdict, judge
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

LEG_S = 90.0

#: What the daemon's memory may grow by, whoever does what.
MOST_GROWTH_MIB = 100.0


@dataclass
class Summary:
    """What a campaign did and found; ``left_out`` says why attacks were."""

    seed: int
    took_s: float = 0.0
    legs: int = 0
    attacks: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    spurious: int = 0
    records: int = 0
    sessions: int = 0
    delivered: int = 0
    dead_letters: int = 0
    rss_mib: dict[str, float] = field(default_factory=dict)
    left_out: str = ""
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.missing or self.spurious or self.violations)

    def add(self, verdict: Verdict) -> None:
        self.missing += verdict.missing
        self.spurious += verdict.spurious
        self.records, self.sessions, self.delivered = verdict.records, verdict.sessions, verdict.delivered
        self.dead_letters += verdict.dead
        self.violations += verdict.violations

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def lines(self) -> list[str]:
        """For people."""
        figures = self.figures
        rss = self.rss_mib
        return [
            f"seed {self.seed}: {self.took_s:.0f} s, {self.legs} legs, {self.attacks.total()} attacks",
            f"kills survived        {figures['kills']}",
            f"system calls swept    {figures['syscalls_swept']} ({figures['syscalls_not_reached']} not reached)",
            f"errors injected       {figures['errors_injected']}",
            f"records               {self.records} in {self.sessions} sessions",
            f"batches by lines      {figures['batches']}, {figures['resent']} sent again",
            f"exports delivered     {self.delivered}, {self.dead_letters} of them dead letters first",
            f"missing, spurious     {self.missing}, {self.spurious}",
            f"RSS                   {rss['first']:.1f} MiB first, {rss['peak']:.1f} peak, {rss['last']:.1f} last",
            *([f"left out              {self.left_out}"] if self.left_out else []),
            *(f"  {name}: {number}" for name, number in sorted(self.attacks.items())),
            *(f"VIOLATION {each}" for each in self.violations),
            "all is there, once" if self.passed else "NOT KEPT",
        ]


@dataclass
class Plan:
    """``only`` names the attacks there are; ``say`` prints a line."""

    seconds: float
    seed: int
    say: Callable[[str], None]
    only: tuple[str, ...] = ()
    #: Every attack once, in an order of chance, before chance alone decides.
    each_once: bool = False
    leg_s: float = LEG_S
    keep: Path | None = None


def run(plan: Plan) -> Summary:
    """The whole campaign; it leaves nothing behind but what it returns."""
    folder = Path(tempfile.mkdtemp(prefix="xyb-"))
    summary = Summary(plan.seed)
    began_s = time.monotonic()
    try:
        with Receiver(key=RECEIVER_KEY) as receiver, Receiver() as collector:
            arena = Arena.build(folder, plan.seed, receiver, collector)
            try:
                arena.daemon.start()
                arena.look()
                Legs(plan, arena, summary, began_s).run()
            except Exception as error:
                summary.violations.append(f"{type(error).__name__}: {error}")
                if not isinstance(error, AssertionError):
                    raise
            finally:
                arena.end()
            summary.violations += arena.violations
            summary.figures = arena.figures
            if arena.memory.peak > arena.memory.first + MOST_GROWTH_MIB:
                summary.violations.append(f"the daemon's memory grew to {arena.memory.peak:.0f} MiB")
            summary.rss_mib = {name: round(value, 1) for name, value in asdict(arena.memory).items()}
    finally:
        if plan.keep is not None and not summary.passed:
            shutil.copytree(folder, plan.keep, ignore=lambda _, names: [name for name in names if name == "s"])
        shutil.rmtree(folder, ignore_errors=True)
    summary.took_s = time.monotonic() - began_s
    return summary


class Legs:
    def __init__(self, plan: Plan, arena: Arena, summary: Summary, began_s: float) -> None:
        self.plan = plan
        self.arena = arena
        self.summary = summary
        self.began_s = began_s
        attacks, self.summary.left_out = permitted()
        self.attacks = [attack for attack in attacks if not plan.only or attack.name in plan.only]
        self.due = random.Random(plan.seed).sample(self.attacks, len(self.attacks)) if plan.each_once else []

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self.began_s

    def run(self) -> None:
        while self.passed_s < self.plan.seconds or self.due:
            self.leg()
            self.summary.legs += 1
            if not self.summary.passed or self.arena.violations:
                return

    def leg(self) -> None:
        arena = self.arena
        first = len(arena.workers)
        for kind in KINDS:
            arena.hire(kind)
        until_s = min(self.passed_s + self.plan.leg_s, self.plan.seconds)
        while self.passed_s < until_s or self.due:
            self.attack(self.due.pop() if self.due else self.chosen())
            if arena.violations:
                break
        self.report("bringing home")
        arena.calm_receivers()
        self.bring_home(first)
        self.report("judging")
        self.summary.add(judge(arena))

    def chosen(self) -> Attack:
        return self.arena.chance.choices(self.attacks, [attack.weight for attack in self.attacks])[0]

    def attack(self, attack: Attack) -> None:
        arena = self.arena
        self.report(attack.name)
        arena.upset_receivers()
        attack.run(arena)
        self.summary.attacks[attack.name] += 1
        arena.revive()
        ledger = arena.daemon.status()["ledger"]
        if not ledger_balances(ledger):
            arena.violations.append(f"after {attack.name} the ledger does not balance: {ledger}")

    def bring_home(self, first: int) -> None:
        """Every producer of this leg, while the daemon is left in peace."""
        at_work = [worker for worker in self.arena.workers[first:] if worker.process is not None]
        running = [worker for worker in at_work if worker.process and worker.process.stdin]
        for worker in running:
            if worker.process is not None and worker.process.returncode is None:
                worker.call_home()
        for worker in running:
            if worker.process is None or worker.process.stdin is not None:
                continue
            report = worker.home()
            self.arena.violations += [f"{worker.kind} {worker.journal.stem}: {each}" for each in report["violations"]]
            for name in ("batches", "resent"):
                self.arena.figures[name] += report[name]
            self.arena.figures["acknowledged"] += report["records"]

    def report(self, now: str) -> None:
        figures = self.arena.figures
        self.plan.say(
            f"[{self.passed_s:5.0f} s of {self.plan.seconds:.0f}] {self.summary.attacks.total():4} attacks,"
            f" {figures['kills']} kills, {figures['errors_injected']} errors; {self.arena.memory.last:.0f} MiB | {now}"
        )


NAMES = tuple(attack.name for attack in ATTACKS)
