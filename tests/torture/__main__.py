"""``python -m tests.torture``: the campaign for as long as one likes. Ends with 1 when something was not kept."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from tests.torture.campaign import LEG_S, NAMES, Plan, run


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long it is attacked; judging comes on top")
    parser.add_argument("--seed", type=int, help="of an earlier run: the same attacks in the same order")
    parser.add_argument("--leg", type=float, default=LEG_S, metavar="S", help="s until the judge is called in between")
    parser.add_argument("--only", action="append", default=[], choices=NAMES, metavar="ATTACK", help=", ".join(NAMES))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to put what is left of a failure")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    say(f"seed {seed}")
    plan = Plan(given.minutes * 60, seed, say, tuple(given.only), leg_s=given.leg, keep=given.keep)
    summary = run(plan)
    sys.stdout.write(json.dumps(summary.as_json(), indent=2) if given.json else "\n".join(summary.lines()))
    sys.stdout.write("\n")
    return 0 if summary.passed else 1


if __name__ == "__main__":
    sys.exit(main())
