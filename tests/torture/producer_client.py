"""A producer that records with our own client and keeps a journal.

``producer_client.py SOCKET JOURNAL KIND``: records bursts until its standard input ends, then brings them home and
prints one line of JSON. The kinds: ``steady`` begins another session now and then; ``forking`` has children that record
as well; ``leaving`` records a little and ends without a flush, as a script does, so that what it leaves is the
spool's.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from pathlib import Path

import xybridd
from tests.torture.journal import Journal, one_record

MOST_WAITING = 5000
PACE_S = 0.02
PATIENCE_S = 90.0


class Recording:
    def __init__(self, path: str, journal: Path) -> None:
        self.seed = int(journal.stem)
        self.random = random.Random(f"{self.seed}/{os.getpid()}")
        self.journal = Journal(journal)
        self.client = xybridd.connect(f"app-{self.seed}", socket=path)
        self.records = 0
        self.violations: list[str] = []
        self.children: list[int] = []

    def burst(self) -> None:
        records = [one_record(self.random) for _ in range(self.random.randint(1, 30))]
        self.journal.write(pid=os.getpid(), burst=records)
        self.records += len(records)
        for record in records:
            if record["type"] == "error":
                self.client.record_error(record["error"])
            else:
                self.client.record_inference(record["model_id"], record["version"], record["latency_ms"])

    def flush(self, timeout_s: float) -> bool:
        done = self.client.flush(timeout_s=timeout_s)
        if done:
            self.journal.write(pid=os.getpid(), flushed=True)
        return done

    def fork(self) -> None:
        """A child records what its parent does not know of, brings it home, and is gone."""
        pid = os.fork()
        if pid:
            self.children.append(pid)
            return
        code = 1
        try:
            self.random.seed(os.getpid())
            self.burst()
            code = 0 if self.flush(PATIENCE_S) else 2
        finally:
            os._exit(code)

    def go_home(self) -> None:
        self.bring_home()
        if not self.violations and self.client.close(PATIENCE_S):
            self.journal.write(ended=True)

    def bring_home(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.flush(5):
            if time.monotonic() > deadline:
                self.violations.append(f"flush does not succeed: {self.client.counters()}")
                return
        for child in self.children:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                self.violations.append(f"a forked child ended with {code}")
        counters = self.client.counters()
        if counters["acknowledged"] != self.records:
            self.violations.append(f"{self.records} records were made, and the client counts {counters}")

    def told(self) -> str:
        return json.dumps({"batches": 0, "records": self.records, "resent": 0, "violations": self.violations})


def main(path: str, journal: Path, kind: str) -> None:
    recording = Recording(path, journal)
    if kind == "leaving":
        for _ in range(recording.random.randint(1, 10)):
            recording.burst()
        # Whether by the daemon or by a spool: all of it comes home.
        recording.journal.write(pid=os.getpid(), flushed=True)
        print(recording.told())  # noqa: T201
        return
    while not select.select([sys.stdin], [], [], PACE_S)[0]:
        if recording.client.counters()["waiting"] < MOST_WAITING:
            recording.burst()
        if recording.random.random() < 0.1:
            recording.flush(0.05)
        if kind == "forking" and recording.random.random() < 0.02:
            recording.fork()
        if kind == "steady" and recording.random.random() < 0.02:
            recording.client.start_session()
    recording.go_home()
    print(recording.told())  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
