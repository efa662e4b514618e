"""A producer that speaks lines, keeps a journal, and can be killed: its successor goes on where it was.

``producer_raw.py SOCKET JOURNAL``: numbers batches and keeps each until its answer, ends its session now and then and
begins another, sends again more than it must. Unlike `tests.daemon.raw_producer`, on which it stands, it takes it as it
is when the daemon's disk refuses, and when its session ended while it was away. When its standard input ends it brings
everything home and prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.daemon.raw_producer import PATIENCE_S, Broken, Producer
from tests.torture.journal import Journal, Standing, id_of, records_of

#: What a daemon may say while its disk or its memory is short; the batch is sent again.
LATER = {"storage_unavailable", "overloaded"}

#: s between two batches: a producer is an app at work, and the others want the processor too.
PACE_S = 0.02

#: Batches in one session, about.
SESSION_BATCHES = 60


class SessionOver(Exception):
    """The session that was to be gone on in has ended."""


class Journalled(Producer):
    def __init__(self, path: str, journal: Path) -> None:
        standing = Standing.read(journal)
        super().__init__(path, standing.seed)
        # Not the same chances again: only what is sent follows from the seed alone.
        self.random.seed(f"{standing.seed}/{standing.last_seq}/{len(standing.kept)}")
        self.journal = Journal(journal)
        self.seed = standing.seed
        self.client_id = id_of(self.seed, "client")
        self.seq = standing.last_seq
        self.acknowledged = max(standing.kept, default=0)
        self.session_of = standing.session_of
        self.kept = {seq: records_of(self.seed, seq) for seq in standing.session_of if seq not in standing.kept}
        self.sessions = standing.sessions
        self.session_id = standing.session_id
        self.left = self.random.randint(1, SESSION_BATCHES)
        if not self.session_id or self.session_id in standing.ended:
            self.next_session()

    # Sessions

    def next_session(self) -> None:
        self.session_id = id_of(self.seed, "session", self.sessions)
        self.sessions += 1
        self.left = self.random.randint(1, SESSION_BATCHES)
        self.journal.write(session=self.session_id)

    def begin(self) -> None:
        try:
            super().begin()
        except SessionOver:
            # It ended by itself while we were away, or our end came through unheard. Late batches are taken still.
            if not self.kept:
                self.journal.write(ended=self.session_id)
                self.next_session()
                super().begin()

    def end_session(self) -> None:
        """With nothing under way; an end that came through unheard is found to have been."""
        self.send("end", "session.end", session_id=self.session_id)
        with contextlib.suppress(SessionOver):
            self.answer_to("end")
        self.journal.write(ended=self.session_id)

    # One connection

    def send_batch(self, seq: int) -> None:
        flush = self.random.random() < 0.5
        params = {"seq": seq, "records": self.kept[seq], "session_id": self.session_of[seq], "flush": flush}
        self.send(seq, "record.batch", **params)
        if self.random.random() < 0.02:
            self.resent += 1
            self.send(seq, "record.batch", **params)

    def refused(self, error: dict[str, Any]) -> NoReturn:
        code = error["data"]["code"]
        if code == "session_ended":
            raise SessionOver
        if code in LATER:
            raise Broken
        super().refused(error)

    # What it records

    def record(self) -> None:
        if self.left <= 0:
            if self.kept:
                self.hear()
                return
            self.end_session()
            self.next_session()
            self.begin()
        self.left -= 1
        self.seq += 1
        self.session_of[self.seq] = self.session_id
        self.kept[self.seq] = records_of(self.seed, self.seq)
        self.journal.write(sent=self.seq, session=self.session_id)
        self.send_batch(self.seq)
        time.sleep(PACE_S)

    def keep(self, seq: int) -> None:
        if seq in self.kept:
            self.journal.write(kept=seq)
        super().keep(seq)

    def run(self) -> None:
        try:
            super().run()
        except SessionOver:
            self.violations.append("a batch was refused since its session had been ended, and no end had been sent")

    def go_home(self) -> None:
        """End the last session, however often that takes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if self.sock is None:
                    self.connect()
                self.end_session()
                return
            except (OSError, Broken):
                self.disconnect()
                time.sleep(0.05)
        self.violations.append("its session could not be ended")


def main(path: str, journal: Path) -> None:
    producer = Journalled(path, journal)
    producer.run()
    if not producer.violations:
        producer.go_home()
    report = producer.report()
    print(json.dumps({name: report[name] for name in ("batches", "records", "resent", "violations")}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
