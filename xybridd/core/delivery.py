"""What goes to a sink, and what came of it: the words that outbox, uploader and sender share.

A *job* is one request: a target and the items of one batch. The batch's ``key`` is its identity, kept across retries
and restarts; a job that is tried again is the same job, to the byte. An *outcome* says what came of one attempt and
judges nothing: `xybridd.core.retry` does.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SinkName = Literal["xybrid", "otlp", "file"]
ItemKind = Literal["session", "minute", "sample", "deletion"]

#: What a sink takes: whole sessions and the wish that they be deleted, or the aggregates of closed minutes.
TAKES: dict[SinkName, frozenset[ItemKind]] = {
    "xybrid": frozenset({"session", "deletion"}),
    "otlp": frozenset({"minute", "sample"}),
    "file": frozenset({"session", "deletion"}),
}

Failure = Literal[
    "dns",  # the name has no address, or nobody answered what it is
    "connect",  # refused, unreachable, or no answer to the connect
    "tls",  # the certificate is wrong, expired, or signed by nobody we trust
    "proxy",  # the proxy refused, or is not there
    "timeout",  # no whole answer in time; the receiver may have it
    "broken",  # the connection broke, or the answer was cut short; the receiver may have it
    "garbage",  # what came back is not HTTP
    "redirect",  # to another host, or in a loop
    "portal",  # a page for people where an answer was expected: a captive portal
    "partial",  # an OTLP receiver took some of it and threw the rest away for good
    "file",  # the file cannot be written
    "refused",  # we do not send: plain HTTP beyond loopback, a URL that is none
    "unsendable",  # what is in the batch cannot be put into a request; nothing was sent
    "sender",  # the sender's process could not be started, or died
]


class Item(msgspec.Struct, frozen=True):
    """One thing to deliver.

    ``body`` is the JSON of a TelemetryExport for ``session``, the MessagePack of a `xybridd.core.minute.Minute` for
    ``minute`` or of a `xybridd.core.minute.Sample` for ``sample``, and empty for ``deletion`` (of which ``session_id``
    "" means the whole device).
    ``revision`` is 0 for all but sessions.
    """

    kind: ItemKind
    session_id: str
    revision: int
    made_at_ms: int
    device_id: str
    platform: str
    app: str
    app_version: str
    body: bytes = b""


class Target(msgspec.Struct, frozen=True):
    """Where to, and how. ``endpoint`` is a base URL, or the path of a file; ``headers`` may hold secrets too."""

    sink: SinkName
    endpoint: str
    key: str | None = None
    headers: dict[str, str] = {}
    ca_bundle: str | None = None
    allow_insecure: bool = False
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    total_timeout_s: float = 30.0


class Job(msgspec.Struct, frozen=True):
    """``again``: it was sent before and what came of that is not known, so that it may be there already."""

    target: Target
    key: str
    items: list[Item]
    again: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What came of one attempt: an HTTP status, or a failure, or neither when a file was written.

    ``detail`` is one sentence for people, without a secret in it; ``retry_after`` is the header as it came;
    ``sent_bytes`` is the size of the body on the wire.
    """

    status: int | None = None
    failure: Failure | None = None
    retry_after: str | None = None
    detail: str = ""
    sent_bytes: int = 0
