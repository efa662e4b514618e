"""A made-up week of a kiosk, recorded through the real aggregate: what reports are looked at with.

By day it works, in the afternoon it gets warm, on one day too hot; one morning the mains fail, and the app moves a model
from the GPU to the CPU when it is critical; two sessions are lost. Everything is drawn from a seed.

    python -m tests.report.week FOLDER      # a data folder, for: XYBRIDD_DATA_DIR=FOLDER xybridd run
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from tests.core.given import head
from tests.storage.given import opened
from xybridd.core.changes import Changes
from xybridd.core.conditions import Surroundings
from xybridd.core.ledger import COUNTED, RECEIVED
from xybridd.core.minute import HOUR_MS, MINUTE_MS, AppMinute, Sample
from xybridd.core.session import Session, SessionLimits
from xybridd.protocol.records import ErrorRecord, InferenceRecord, InferenceStats, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.core.conditions import Surroundings as _Surroundings

DAY_MS = 24 * HOUR_MS
_HEAT = {"normal": 1.0, "warm": 1.12, "hot": 1.6, "critical": 2.5}
_DEGREES = {"normal": 48.0, "warm": 68.0, "hot": 79.0, "critical": 91.0}
_SLOWER = {"gpu": 1.0, "npu": 0.8, "cpu": 2.9}

#: App, model, version, median on the GPU, calls in a minute, tokens a second or none.
_MODELS = (
    ("kiosk", "whisper-tiny", "1.0", 210.0, 4, None),
    ("kiosk", "magika", "3.3", 5.2, 9, None),
    ("assistant", "llama-3.2-1b", "q4_k_m", 1350.0, 2, 42.0),
    ("assistant", "kokoro-82m", "1.0", 480.0, 2, None),
)


class Week(NamedTuple):
    """``minutes`` in the order in which they began; ``changes`` are what a daemon would have written."""

    minutes: list[AppMinute]
    samples: list[Sample]
    changes: Changes
    records: int


class Moment(NamedTuple):
    at_ms: int
    lasting_ms: int
    around: _Surroundings
    battery: float


def moments(now_ms: int) -> Iterator[Moment]:
    """Of seven days the hours from 8 to 20: by the hour until two days ago, by the minute from then on."""
    start_ms = (now_ms - 7 * DAY_MS) // HOUR_MS * HOUR_MS
    battery, at_ms = 100.0, start_ms
    while at_ms < now_ms:
        hour, day = at_ms // HOUR_MS % 24, (at_ms - start_ms) // DAY_MS
        fine = at_ms >= now_ms - 2 * DAY_MS
        lasting_ms = MINUTE_MS if fine else HOUR_MS
        if 8 <= hour < 20:
            afternoon = 13 <= hour < 17
            heat = "normal" if not afternoon else ("critical" if hour == 15 else "hot") if day in {3, 6} else "warm"
            if fine and afternoon and day == 5 and hour >= 15:
                heat = "hot"
            on_battery = (day == 2 and hour >= 15) or (fine and 9 <= hour < 12 and day == 6)
            battery = max(15.0, battery - 0.2 * lasting_ms / MINUTE_MS) if on_battery else min(100.0, battery + 1)
            yield Moment(at_ms, lasting_ms, Surroundings(heat, "battery" if on_battery else "ac"), battery)
        at_ms += lasting_ms


def make_week(now_ms: int, seed: int = 7) -> Week:
    chance = random.Random(seed)
    made, changes = Week([], [], Changes(), 0), Changes()
    open_: dict[str, Session] = {}
    records = 0
    for moment in moments(now_ms):
        made.samples.append(_sample(moment, chance))
        for app in ("kiosk", "assistant"):
            day = moment.at_ms // DAY_MS
            session = open_.get(app)
            if session is None or session.head.started_at_ms // DAY_MS != day:
                if session is not None:
                    _end(session, "client_lost" if chance.random() < 0.15 else "ended", changes)
                open_[app] = session = _begin(app, moment.at_ms, chance)
            found = list(_records(app, moment, chance))
            records += len(found)
            session.apply(found, moment.at_ms, moment.around)
            session.close_minute(moment.at_ms + moment.lasting_ms)
            before = len(changes.minutes)
            session.take_changes(changes)
            made.minutes.extend(AppMinute(app, "2.1", minute) for minute in changes.minutes[before:])
    for session in open_.values():
        _end(session, "ended", changes)
    changes.samples.extend(made.samples)
    changes.ledger.update({RECEIVED: records + 12, COUNTED: records, "duplicates": 12})
    return made._replace(changes=changes, records=records)


def _begin(app: str, at_ms: int, chance: random.Random) -> Session:
    session_id = str(UUID(int=chance.getrandbits(128), version=4))
    labels = {"site": "42"} if app == "kiosk" else {}
    return Session(head(session_id, app=app, app_version="2.1", started_at_ms=at_ms, labels=labels), SessionLimits())


def _end(session: Session, reason: str, changes: Changes) -> None:
    session.end(reason, session.last_heard_at_ms() + MINUTE_MS)
    session.take_changes(changes)


def _records(app: str, moment: Moment, chance: random.Random) -> Iterator[Record]:
    heat, power = moment.around
    busy = 1.0 if moment.lasting_ms == MINUTE_MS else 25.0
    for owner, model, version, middle_ms, calls, tokens in _MODELS:
        if owner != app:
            continue
        for _ in range(int(calls * busy * chance.uniform(0.5, 1.5))):
            used = "cpu" if heat == "critical" or chance.random() < 0.04 else "npu" if model == "magika" else "gpu"
            slower = _HEAT[heat] * (1.3 if power == "battery" else 1.0) * _SLOWER[used]
            latency_ms = middle_ms * slower * chance.lognormvariate(0, 0.22)
            stats = InferenceStats(hardware_used=used, execution_target="local", memory_peak_mb=int(middle_ms))  # type: ignore[arg-type]
            if tokens is not None:
                stats = InferenceStats(
                    hardware_used=used,  # type: ignore[arg-type]
                    tokens_per_second=tokens / slower,
                    input_tokens=chance.randrange(40, 400),
                    output_tokens=chance.randrange(20, 180),
                    time_to_first_token_ms=latency_ms * 0.15,
                )
            yield InferenceRecord(model, version, round(latency_ms, 3), None, stats)
        if chance.random() < 0.02 * busy * _HEAT[heat]:
            message, named = chance.choice(_ERRORS)
            yield ErrorRecord(message, named, version if named == model else None)


_ERRORS = (
    ("CUDA out of memory", "whisper-tiny"),
    ("connection refused by models.example", None),
    ("failed to load model: no such file", "kokoro-82m"),
    ("inference failed: timeout", "llama-3.2-1b"),
)


def _sample(moment: Moment, chance: random.Random) -> Sample:
    heat, power = moment.around
    busy = chance.uniform(35, 75)
    return Sample(
        at_ms=moment.at_ms + MINUTE_MS - 1,
        mono_ms=moment.at_ms % (10 * DAY_MS),
        boot_id="boot",
        thermal_state=heat,
        temperature_c=round(_DEGREES[heat] + chance.uniform(-4, 4), 1),
        throttled=heat == "critical",
        power_source=power,
        battery_percent=round(moment.battery, 1),
        charging=power == "ac" and moment.battery < 100,
        battery_w=round(chance.uniform(14, 19), 2) if power == "battery" else 0.0,
        cpu_percent=round(busy, 1),
        memory_available_bytes=3_000_000_000,
        gpus=[{"name": "Orin", "utilization_percent": round(busy * 0.8, 1), "power_w": round(busy / 6, 2)}],
    )


async def write_week(folder: Path, week: Week) -> None:
    """Through the store of a daemon that does not run."""
    async with opened(folder) as store:
        await store.write(week.changes)


def main() -> None:
    folder = Path(sys.argv[1])
    week = make_week(int(time.time() * 1000))
    asyncio.run(write_week(folder, week))
    sys.stdout.write(f"{folder}: {week.records:,} records in {len(week.minutes):,} minutes\n")


if __name__ == "__main__":
    main()
