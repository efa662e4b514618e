"""What a handler is given and what it answers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.config import Config
    from xybridd.daemon.refusals import Refusals
    from xybridd.services.clock import Clock
    from xybridd.services.device import Device
    from xybridd.services.forgetting import Forgetting
    from xybridd.services.recorder import Recorder, Ticket
    from xybridd.services.retention import Retention
    from xybridd.services.rings import Rings
    from xybridd.services.uploader import Uploader
    from xybridd.services.watching import Watching
    from xybridd.storage.store import Store


class Reply(NamedTuple):
    """What to answer, and what must be done before it may be said."""

    result: Any
    ticket: Ticket = None


class Services(NamedTuple):
    """Everything a handler may use."""

    recorder: Recorder
    rings: Rings
    device: Device
    store: Store
    retention: Retention
    uploader: Uploader
    forgetting: Forgetting
    watching: Watching
    refusals: Refusals
    clock: Clock
    config: Config
    started_s: float
    clock_moved_s: Callable[[], float]
    connections: Callable[[], int]
    watch_device: Callable[[], None]
