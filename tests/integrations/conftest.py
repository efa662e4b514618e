"""A client of a real daemon, and what the daemon holds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import xybridd
from tests.support import PATIENCE_S
from xybridd.integrations.register import INTEGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[xybridd.Client]:
    with xybridd.connect(app="test", socket=daemon.socket) as made:
        yield made
        for name, _ in INTEGRATIONS:
            xybridd.uninstrument(name)


@pytest.fixture
def held(daemon: Daemon, client: xybridd.Client) -> Callable[[], Any]:
    """The session as the daemon has it, with everything recorded so far."""

    def read() -> Any:
        assert client.flush(PATIENCE_S)
        assert client.counters()["invalid"] == 0
        with daemon.wire() as wire:
            return wire.call("session.get", session_id=client.session_id)

    return read
