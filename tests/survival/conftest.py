"""A daemon with upload on, and the receiver that it sends to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.survival.scene import config, give_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon
    from xybridd.testing import Receiver


@pytest.fixture
def make_sending(make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Make (not start) a daemon that has the key; the arguments are those of its config."""

    def make(url: str | None, env: dict[str, str] | None = None, **parts: str) -> Daemon:
        daemon = make_daemon(config(url, **parts), env)
        give_key(daemon)
        return daemon

    return make


@pytest.fixture
def sending(make_sending: Callable[..., Daemon], receiver: Receiver) -> Daemon:
    return make_sending(receiver.url).start()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print past pytest: a seed, a figure."""

    def aloud(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")  # noqa: T201

    return aloud
