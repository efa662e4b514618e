"""Compares what is there to the journals: by the wire, in the file itself, and at the receiver.

*Missing* is a record that was acknowledged and is not there; *spurious* is one that is there and was never sent, or is
there twice. Of a producer that came home both bounds are the same, so that one record more or less is found.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.daemon.scenes import database
from tests.support import WireFailure, ledger_balances
from tests.survival.scene import drained
from tests.torture.journal import Sums, Wanted
from xybridd.core import names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Wire
    from tests.torture.arena import Arena

#: An interpreter that ended because its own code could not be read, without a word of the daemon's about it.
_INJECTED = re.compile(
    r"(?s)Fatal Python error.*OSError: \[Errno (5|28)\]|OSError: \[Errno (5|28)\].*Fatal Python error"
    r"|cannot open shared object file: (No space left on device|Input/output error)"
)

#: Longer than a session without its producer lasts, and a minute, at whose end sessions are looked at.
LOST_WITHIN_S = 65.0

ENDS = ("delivered", "queued", "superseded", "dead", "evicted", "forgotten")


@dataclass
class Verdict:
    """``violations`` is whatever went against the promise, a sentence each."""

    missing: int = 0
    spurious: int = 0
    sessions: int = 0
    records: int = 0
    delivered: int = 0
    dead: int = 0
    violations: list[str] = field(default_factory=list)

    def say(self, what: str) -> None:
        self.violations.append(what)

    def compare(self, where: str, scope: str, found: Sums, wanted: Wanted) -> None:
        """One session, or one app, against both bounds."""
        for name in ("calls", "errors", "latency_ms"):
            least, most, there = (getattr(each, name) for each in (wanted.least, wanted.most, found))
            short, over = sum((least - there).values()), sum((there - most).values())
            if name != "latency_ms":
                self.missing += short
                self.spurious += over
            if short or over:
                self.say(f"{where}: {scope} {name}: {short} missing, {over} spurious")


# Both bounds, from the journals


def wanted_of(arena: Arena) -> dict[str, Wanted]:
    """By session, for producers that name it with each batch; by app, for our client: when a session of its ended by
    itself meanwhile, it goes on in another one."""
    found: dict[str, Wanted] = {}
    for worker in arena.workers:
        for session_id, wanted in worker.wanted().items():
            if worker.whole:
                wanted.least = wanted.most
            found[session_id] = wanted
    return found


def by_scope(sessions: dict[str, Sums], apps: dict[str, str], wanted: dict[str, Wanted]) -> dict[str, Sums]:
    """What was found, under the names under which it is wanted."""
    found: dict[str, Sums] = {}
    for session_id, sums in sessions.items():
        scope = session_id if session_id in wanted else apps.get(session_id, "")
        found.setdefault(scope, Sums()).merge(sums)
    return found


# What is found


def sums_of(session: dict[str, Any]) -> Sums:
    """Of what ``session.get`` or an export says."""
    models = session["by_model"]
    rows = models.values() if isinstance(models, dict) else models
    sums = Sums()
    for row in rows:
        sums.calls[row["model_id"]] += row["call_count"]
        sums.latency_ms[row["model_id"]] += row["total_latency_ms"]
    for row in session.get("errors", []):
        sums.errors[row["message"]] += row["count"]
    return sums


def by_wire(arena: Arena, wanted: dict[str, Wanted], verdict: Verdict) -> None:
    with arena.daemon.wire() as wire:
        for scope, each in wanted.items():
            found = Sums()
            for session_id in sessions_in(wire, scope):
                try:
                    found.merge(sums_of(wire.call("session.get", session_id=session_id)))
                except WireFailure as failure:
                    if failure.code != "unknown_session":
                        raise  # begun, and nothing of it acknowledged: else it counts as missing
            verdict.compare("session.get", scope, found, each)
        status = wire.call("daemon.status")
    ledger = status["ledger"]
    if not ledger_balances(ledger):
        verdict.say(f"records of the ledger do not balance: {ledger}")
    if ledger["missing_batches"] or ledger["dropped_by_clients"]:
        verdict.say(f"the ledger knows of batches that never came, or of dropped records: {ledger}")
    for sink, tally in ledger["exports"].items():
        if tally["made"] != sum(tally[end] for end in ENDS):
            verdict.say(f"exports of the ledger do not balance: {sink} {tally}")


def sessions_in(wire: Wire, scope: str) -> list[str]:
    if not scope.startswith("app-"):
        return [scope]
    return [each["session_id"] for each in wire.call("session.list", app=scope, limit=1000)["sessions"]]


def by_file(arena: Arena, wanted: dict[str, Wanted], verdict: Verdict) -> None:
    """With no daemon in between. The daemon does not run."""
    with closing(sqlite3.connect(f"{database(arena.daemon).as_uri()}?mode=ro", uri=True)) as connection:
        if (said := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            verdict.say(f"the file is damaged: {said}")
        found = stored(connection)
        apps = dict(connection.execute("SELECT session_id, app FROM session"))
        ledger = Counter(dict(connection.execute("SELECT name, amount FROM ledger")))
        salvages = connection.execute("SELECT count(*) FROM salvage").fetchone()[0]
    scopes = by_scope(found, apps, wanted)
    for scope, each in wanted.items():
        verdict.compare("the file", scope, scopes.get(scope, Sums()), each)
    verdict.sessions, verdict.records = len(found), sum(each.records for each in found.values())
    strangers(arena, wanted, found, apps, verdict)
    removed = sum(amount for name, amount in ledger.items() if name.startswith("removed."))
    rejected = sum(amount for name, amount in ledger.items() if name.startswith("rejected."))
    if ledger["counted"] != verdict.records + removed:
        verdict.say(f"counted {ledger['counted']} is not {verdict.records} in sessions and {removed} removed")
    if ledger["received"] != ledger["counted"] + ledger["duplicates"] + rejected:
        verdict.say(f"the ledger in the file does not balance: {dict(ledger)}")
    if removed != ledger["removed.forgotten"] or salvages:
        verdict.say(f"records were removed that nobody removed, or a sound file was salvaged: {dict(ledger)}")


def stored(connection: sqlite3.Connection) -> dict[str, Sums]:
    """Every session of the file."""
    found = {session_id: Sums() for (session_id,) in connection.execute("SELECT session_id FROM session")}
    models = "SELECT session_id, model_id, call_count, total_latency_ms FROM model"
    for session_id, model_id, calls, latency_ms in connection.execute(models):
        found.setdefault(session_id, Sums()).calls[model_id] += calls
        found[session_id].latency_ms[model_id] += latency_ms
    for session_id, message, count in connection.execute("SELECT session_id, message, count FROM error"):
        found.setdefault(session_id, Sums()).errors[message] += count
    return found


def strangers(
    arena: Arena, wanted: dict[str, Wanted], found: dict[str, Sums], apps: dict[str, str], verdict: Verdict
) -> None:
    """Sessions that are in no journal: those of the noise, by their sums; those to be forgotten; and no others."""
    noise: Counter[str] = Counter()
    for session_id in found.keys() - wanted.keys():
        app, records = apps.get(session_id, ""), found[session_id].records
        if session_id in arena.doomed:
            if session_id in arena.forgotten or records != arena.doomed[session_id]:
                verdict.spurious += records
                verdict.say(f"session {session_id} was forgotten, or half of it: {records} records")
        elif app in wanted:
            pass  # compared above
        elif app in arena.noise:
            noise[app] += records
        else:
            verdict.spurious += records
            verdict.say(f"session {session_id} of {app!r}, {records} records, was begun by nobody")
    for session_id in arena.doomed.keys() - arena.forgotten - found.keys():
        if session_id in arena.asked_to_forget:
            arena.forgotten.add(session_id)  # it died before it answered; what is gone once stays gone
        else:
            verdict.missing += arena.doomed[session_id]
            verdict.say(f"session {session_id} is gone, and nobody asked for that")
    for app, oracle in arena.noise.items():
        short, over = max(0, oracle.acknowledged - noise[app]), max(0, noise[app] - oracle.sent)
        verdict.missing += short
        verdict.spurious += over
        if short or over:
            verdict.say(f"records of {app}: {noise[app]}, acknowledged {oracle.acknowledged}, sent {oracle.sent}")


# What arrived


def at_receivers(arena: Arena, wanted: dict[str, Wanted], verdict: Verdict) -> None:
    """With a receiver that behaves: all is delivered; what became a dead letter has a reason, and then goes as well."""
    arena.calm_receivers()
    drain(arena)
    with arena.daemon.wire() as wire:
        letters = wire.call("upload.dead.list")["dead"]
        verdict.dead += len(letters)
        for letter in letters:
            if not letter["reason"]:
                verdict.say(f"a dead letter without a reason: {letter}")
            wire.call("upload.dead.replay", export_id=letter["export_id"])
    # A session whose producer was killed has its last export when it is given up as lost, some seconds later.
    deadline = time.monotonic() + LOST_WITHIN_S
    while True:
        drain(arena)
        arrived: list[Arrived | Measured] = [
            Arrived("the receiver", received(arena), wanted),
            Arrived("the exports' file", written(arena), wanted),
            Measured(arena, wanted),
        ]
        if all(each.complete for each in arrived) or time.monotonic() > deadline:
            break
        arena.pause(0.3, 0.6)
    for each in arrived:
        each.judge(wanted, verdict)
    verdict.delivered = sum(each.delivered for each in arrived)


def drain(arena: Arena) -> None:
    for sink in ("xybrid", "file", "otlp"):
        drained(arena.daemon, sink)


class Arrived:
    """What one sink has: the newest export of each session, under the names under which it is wanted."""

    def __init__(self, where: str, exports: list[dict[str, Any]], wanted: dict[str, Wanted]) -> None:
        self.where = where
        self.exports = Counter((each["session"]["session_id"], each["extensions"]["revision"]) for each in exports)
        last = {
            each["session"]["session_id"]: each
            for each in sorted(exports, key=lambda each: each["extensions"]["revision"])
        }
        sums = {session_id: sums_of({**each["metrics"], "errors": each["errors"]}) for session_id, each in last.items()}
        apps = {session_id: each["extensions"]["app"] for session_id, each in last.items()}
        self.found = by_scope(sums, apps, wanted)
        self.delivered = len(self.exports)
        self.complete = not self.judge(wanted, Verdict()).violations

    def judge(self, wanted: dict[str, Wanted], verdict: Verdict) -> Verdict:
        for (session_id, revision), count in self.exports.items():
            if count != 1:
                verdict.spurious += count - 1
                verdict.say(f"{self.where} has revision {revision} of {session_id} {count} times")
        for scope, each in wanted.items():
            if each.ended:
                verdict.compare(self.where, scope, self.found.get(scope, Sums()), each)
        return verdict


class Measured:
    """What the collector has, in batches by their keys: points of minutes, which know of apps and of no sessions."""

    def __init__(self, arena: Arena, wanted: dict[str, Wanted]) -> None:
        batches = arena.collector.seen()["batches"]
        self.delivered = len(batches)
        self.found = measured(batches)
        self.wanted: dict[str, Wanted] = {}
        for worker in arena.workers:
            of_app = self.wanted.setdefault(worker.app, Wanted(ended=True))
            for scope in worker.wanted():
                each = wanted[scope]
                # Of a session that goes on, the last minute does so as well.
                of_app.least.merge(without_texts(each.least if each.ended else Sums()))
                of_app.most.merge(without_texts(each.most))
        self.complete = not self.judge(wanted, Verdict()).violations

    def judge(self, _: dict[str, Wanted], verdict: Verdict) -> Verdict:
        for app, each in self.wanted.items():
            verdict.compare("the collector", app, self.found.get(app, Sums()), each)
        return verdict


def without_texts(sums: Sums) -> Sums:
    """What a collector is told of errors is how many there were."""
    return Sums(sums.calls, sums.latency_ms, Counter({"": sums.errors.total()}))


def measured(batches: list[dict[str, Any]]) -> dict[str, Sums]:
    """By app; `Taken.metrics` is OTLP as JSON has it, where whole numbers are texts."""
    found: dict[str, Sums] = {}
    for resource in (each for batch in batches for each in batch["metrics"]):
        sums = found.setdefault(attribute(resource["resource"], "service.name"), Sums())
        for metric in (each for scope in resource["scopeMetrics"] for each in scope["metrics"]):
            if metric["name"] == names.OPERATION_DURATION.name:
                for point in metric["exponentialHistogram"]["dataPoints"]:
                    model_id = attribute(point, names.REQUEST_MODEL)
                    sums.calls[model_id] += int(point["count"])
                    sums.latency_ms[model_id] += round(1000 * point["sum"])
            elif metric["name"] == names.ERRORS.name:
                sums.errors[""] += sum(int(point["asInt"]) for point in metric["sum"]["dataPoints"])
    return found


def attribute(of: dict[str, Any], key: str) -> str:
    return str(next(each["value"]["stringValue"] for each in of["attributes"] if each["key"] == key))


def received(arena: Arena) -> list[dict[str, Any]]:
    """By the receiver's own count: one export as often as it was counted."""
    return [
        event["payload"]
        for batch in arena.receiver.seen()["batches"]
        for event in batch["events"]
        if event["event_type"] == "SessionExport"
    ]


def written(arena: Arena) -> list[dict[str, Any]]:
    lines = arena.exports.read_bytes().splitlines() if arena.exports.exists() else []
    events = [json.loads(line) for line in lines]
    return [event["payload"] for event in events if event["event_type"] == "SessionExport"]


def complaints(log: Path) -> list[str]:
    """Mistakes of the daemon's that its log tells of.

    Not those of an interpreter that could not read its own files, for we made those calls fail: a sender's, say.
    """
    blocks = re.split(r"^(?=\d{4}-\d\d-\d\dT)", log.read_text("utf-8", "replace"), flags=re.MULTILINE)
    found = [block for block in blocks if "Traceback" in block and not _INJECTED.search(block)]
    return [f"the log has a traceback: {block[:3000]}" for block in found]


def judge(arena: Arena) -> Verdict:
    """All producers are home. The daemon is restarted once in passing."""
    verdict = Verdict()
    arena.revive()
    wanted = wanted_of(arena)
    at_receivers(arena, wanted, verdict)
    by_wire(arena, wanted, verdict)
    if (code := arena.daemon.stop()) != 0:
        verdict.say(f"the daemon ended with {code}")
    by_file(arena, wanted, verdict)
    arena.daemon.start()
    by_wire(arena, wanted, verdict)
    arena.revive()
    verdict.violations += complaints(arena.daemon.log)
    return verdict
