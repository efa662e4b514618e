from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.upload.given import KEY
from xybridd.testing import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_THE_MACHINE = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_proxies_and_certificates_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def one_receiver() -> Iterator[Receiver]:
    with Receiver(key=KEY) as receiver:
        yield receiver


@pytest.fixture
def receiver(one_receiver: Receiver) -> Receiver:
    """One for all tests, since starting it takes longer than most of them: each has sessions and keys of its own."""
    one_receiver.misbehave()
    return one_receiver
