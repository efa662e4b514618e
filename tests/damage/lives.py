"""Lives of a real recorder over a real store, to be watched by strace: ``python -m tests.damage.lives FOLDER TOLD LIFE``.

After each thing that was acknowledged a line says so in the file TOLD. Batch n of a client is an inference of 2**n
milliseconds, so that the sum of its model says which batches are in it, and an error.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.core.given import call, error
from tests.services.far_end import DOWN, Desk, desk
from tests.services.given import DAY_S, ManualClock
from tests.storage.given import connection_of
from xybridd.core.capabilities import DeviceState, HardwareCapabilities
from xybridd.services.forgetting import Forgetting
from xybridd.services.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.protocol.records import Record
    from xybridd.services.sessions import Link

#: The write-ahead log is moved into the file, and begun anew, after so many pages: often, within a short life.
CHECKPOINT_PAGES = 60
CLIENTS = ("ann", "ben", "cyd")


def id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


class App:
    """One client in a session of its own."""

    def __init__(self, d: Desk, name: str, tell: Callable[[str], None]) -> None:
        self.name = name
        self._d = d
        self._tell = tell
        self._seq = 0
        self.link: Link | None = None

    async def start(self) -> App:
        self.link = await self._d.b.producer(client_id=id_of(self.name))
        self._seq = self.link.producer.durable_seq if self.link.producer is not None else 0
        _, ticket = await self._d.b.recorder.start(self.link, id_of(f"session of {self.name}"), None, {"of": self.name})
        if ticket is not None:
            await ticket
        self._tell(f"started {self.name}")
        return self

    async def batch(self) -> None:
        assert self.link is not None
        self._seq += 1
        records: list[Record] = [call(f"model of {self.name}", latency_ms=2**self._seq), error(f"of {self.name}")]
        await self._d.b.batch(self.link, self._seq, records)
        self._tell(f"batch {self.name} {self._seq}")

    async def end(self) -> None:
        assert self.link is not None
        _, ticket = await self._d.b.recorder.end(self.link, None)
        assert ticket is not None
        await ticket
        self._tell(f"ended {self.name}")


async def whole(folder: Path, tell: Callable[[str], None]) -> None:
    """An older database is migrated; records, minutes, exports, deliveries, a session forgotten; stopped, started, killed."""
    clock = ManualClock()
    async with desk(folder, "xybrid", "otlp", clock=clock) as d:
        connection_of(d.b.store).execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        apps = [await App(d, name, tell).start() for name in CLIENTS]
        for round_number in range(4):
            await asyncio.gather(*[app.batch() for app in apps])  # these share commits
            await apps[0].batch()
            clock.move(60)
            d.b.recorder.close_minute(DeviceState(HardwareCapabilities(), {}))
            if round_number == 1:
                await apps[1].end()
                apps.pop(1)
        await d.at_rest()
        for sink in ("xybrid", "otlp"):
            tell(f"delivered {sink} {(await d.tally(sink)).delivered}")
        d.xybrid.says = lambda _job: DOWN
        await apps[1].end()
        await d.at_rest()
        gone = await App(d, "gone", tell).start()
        await gone.batch()
        assert gone.link is not None
        forgetting = Forgetting(d.b.store, d.b.recorder, d.uploader, clock)
        tell("forgetting gone")
        await forgetting.session(gone.link, id_of("session of gone"))
        tell("forgotten gone")
        clock.move(3 * DAY_S)
        await Retention(d.b.store, d.b.recorder, clock, 30, 2**26).run()
        await apps[0].batch()
    tell("closed")
    await _second(folder, tell, clock)


async def _second(folder: Path, tell: Callable[[str], None], clock: ManualClock) -> None:
    """Started again after a clean end, and killed."""
    async with desk(folder, "xybrid", "otlp", clock=clock) as d:
        late = await App(d, "late", tell).start()
        for _ in range(3):
            await late.batch()
        await late.end()
        await d.at_rest()
        os._exit(0)


async def salvaged(folder: Path, tell: Callable[[str], None]) -> None:
    """A damaged database is salvaged, recorded into, and killed."""
    async with desk(folder, "xybrid", clock=ManualClock()) as d:
        tell("salvaged")
        app = await App(d, "ann", tell).start()
        for _ in range(4):
            await app.batch()
        os._exit(0)


LIVES = {"whole": whole, "salvaged": salvaged}


def main() -> None:
    folder, told, life = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    descriptor = os.open(told, os.O_WRONLY | os.O_APPEND)

    def tell(text: str) -> None:
        os.write(descriptor, f"{text}\n".encode())

    asyncio.run(LIVES[life](folder, tell))


if __name__ == "__main__":
    main()
