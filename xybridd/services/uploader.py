"""Everything that leaves the device, by its lanes: what is on, what waits, and what its owner says to them.

Each sink has a `Lane` of its own, so that one that is dead or slow holds up no other.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.core.address import shown_url
from xybridd.core.advice import LOW_BATTERY
from xybridd.core.delivery import TAKES, Job, SinkName, Target
from xybridd.core.holding import facts_of
from xybridd.core.outbox import KEPT, Tally
from xybridd.services.lane import Lane, Sender, Settings, SinkState, UploadContext
from xybridd.storage import outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from xybridd.core.capabilities import DeviceState

#: The name under which is kept that the owner paused all of it.
_ALL = "*"


class Uploader:
    """All lanes, and what their owner says to them."""

    def __init__(self, around: UploadContext, make_sender: Callable[[], Sender]) -> None:
        self.settings = Settings()
        self.paused = False
        self.tallies: dict[str, Tally] = {}
        self.lanes: dict[SinkName, Lane] = {}
        self._around = around
        self._make_sender = make_sender
        self._seen: tuple[Any, ...] | None = None
        self._still = 0
        self._one_at_a_time = asyncio.Lock()
        self._over = False

    @property
    def on(self) -> tuple[SinkName, ...]:
        """The sinks that are on."""
        return tuple(self.lanes)

    @property
    def takes_sessions(self) -> bool:
        return any("session" in TAKES[sink] for sink in self.lanes)

    async def configure(self, settings: Settings) -> None:
        """Start, or start again, by these settings: what waited for another configuration is tried at once.

        One after the other, however fast they come: a lane that nobody knows any more would go on sending.
        """
        async with self._one_at_a_time:
            await self._configure(settings)

    async def _configure(self, settings: Settings) -> None:
        await self._end_lanes()
        # What was being sent to a sink that is off now waits like the rest of it.
        await self._around.store.transact(outbox.release)
        kept = await self._around.store.query(outbox.sink_states)
        if self._over:  # meanwhile
            return
        if settings.targets:
            # A batch's key needs it. Fetched later, while the disk fails for a moment, it would stay broken for good.
            import hashlib  # noqa: F401, PLC0415 - of no use without a sink

        self.paused = _ALL in kept and msgspec.json.decode(kept[_ALL], type=bool)
        self.settings = settings
        for target in settings.targets:
            lane = Lane(target, settings, self._around, self._make_sender(), lambda: not self._still, self.refresh)
            state = _state_from(kept.get(target.sink))
            if state.blocked:
                state.wait, state.blocked = None, False
            lane.start(state, paused=self.paused)
            self.lanes[target.sink] = lane
        await self.refresh()

    async def stop(self) -> None:
        """For good: a configuration that is still being applied starts nothing any more."""
        self._over = True
        await self._end_lanes()

    async def _end_lanes(self) -> None:
        lanes, self.lanes = self.lanes, {}
        await asyncio.gather(*(lane.stop() for lane in lanes.values()))

    def wake(self) -> None:
        """Something was queued."""
        for lane in self.lanes.values():
            lane.wake()

    def look(self, state: DeviceState) -> None:
        """The device as it is now; what waits for it to change is told when it has."""
        facts = facts_of(state, local=False, quiet_s=0)
        route = state.readings.get("default_route")
        network = (None if route is None else route.value, facts.metered)
        low = facts.battery_percent is not None and facts.battery_percent < LOW_BATTERY
        seen = (network, facts.charging, low, facts.thermal_state)
        before, self._seen = self._seen, seen
        if before != seen:
            for lane in self.lanes.values():
                lane.reconsider(network=before is not None and before[0] != network)

    def retry_at_once(self) -> None:
        """What failed by the network may have failed for the clock's sake, which is right now."""
        for lane in self.lanes.values():
            lane.reconsider(network=True)

    async def refresh(self) -> None:
        """Count again: for a status, and when a lane has sent all or failed, so that exports carry what is so."""
        self.tallies = await self._around.store.query(outbox.tallies)

    def ledger(self) -> dict[str, Any]:
        """By sink, for every one that was ever on."""
        return {sink: msgspec.to_builtins(tally) for sink, tally in sorted(self.tallies.items())}

    async def pause(self, *, paused: bool) -> None:
        """Until the owner says otherwise, also over a restart."""
        await self._around.store.transact(partial(outbox.put_sink_state, sink=_ALL, body=msgspec.json.encode(paused)))
        self.paused = paused
        for lane in self.lanes.values():
            lane.pause(paused=paused)

    def send_now(self) -> None:
        for lane in self.lanes.values():
            lane.send_now()

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """Nothing is sent meanwhile; what is in flight at its beginning is waited for."""
        self._still += 1
        try:
            for lane in list(self.lanes.values()):
                await lane.settled()
            yield
        finally:
            self._still -= 1
            self.wake()

    async def preview(self) -> list[dict[str, Any]]:
        """What would go next, sink by sink: a job without its secrets, and whether it was sent before."""
        out = []
        for lane in self.lanes.values():
            batch, _lost = await self._around.store.query(
                partial(
                    outbox.next_batch,
                    sink=lane.sink,
                    device_id=self._around.device_id,
                    most_items=self.settings.most_items,
                    most_bytes=self.settings.most_bytes,
                    aside=lane.aside,
                )
            )
            if batch is not None:
                out.append(msgspec.to_builtins(Job(_shown(lane.target), batch.key, batch.items, batch.again)))
        return out

    async def status(self) -> dict[str, Any]:
        """The state of all of it, each sink's, and its side of the ledger."""
        await self.refresh()
        states = await self._around.store.query(outbox.states)
        empty = Tally()
        sinks = [lane.shown(queued=self.tallies.get(sink, empty).queued > 0) for sink, lane in self.lanes.items()]
        ledger = self.ledger()
        for shown in sinks:
            shown.update(ledger.get(shown["sink"]) or msgspec.to_builtins(empty))
            shown["outbox"] = states.get(shown["sink"], {})
        errors = [shown for shown in sinks if shown["last_error"] is not None]
        waits = [shown["next_attempt_in_s"] for shown in sinks if shown["next_attempt_in_s"] is not None]
        state = "off" if not sinks else "paused" if self.paused else "on"
        return {
            "state": state,
            "reason": self.settings.off_reason if state == "off" else None,
            "problems": list(self.settings.problems),
            "outbox": _summed(states.values()),
            "next_attempt_in_s": min(waits, default=None),
            "last_error": max(errors, key=lambda shown: shown["last_error_at_ms"])["last_error"] if errors else None,
            "sinks": sinks,
            "not_configured": {
                sink: tally for sink, tally in ledger.items() if sink not in self.lanes and tally["queued"]
            },
        }


def _shown(target: Target) -> Target:
    """Without its secrets."""
    endpoint = target.endpoint if target.sink == "file" else shown_url(target.endpoint)
    return msgspec.structs.replace(target, endpoint=endpoint, key=None, headers={})


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = {state.value: 0 for state in KEPT}
    for each in counts:
        for state, count in each.items():
            total[state] = total.get(state, 0) + count
    return total


def _state_from(text: str | None) -> SinkState:
    if text is None:
        return SinkState()
    try:
        return msgspec.json.decode(text, type=SinkState)
    except (msgspec.MsgspecError, RecursionError):
        return SinkState()
