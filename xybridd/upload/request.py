"""What a sink makes of a job, what comes back, and what both have in common whatever the sink."""

from __future__ import annotations

import gzip
from urllib.parse import unquote, urlsplit

import msgspec

from xybridd import __version__
from xybridd.core.delivery import Job, Outcome, Target
from xybridd.core.redaction import redact

#: Of an answer's text a person needs the first sentence.
_SHOWN_CHARACTERS = 200

_HIDDEN = "[redacted]"

#: What is shorter keeps no secret, and taking it out would make sentences unreadable (``X-Fleet: 1``).
_SHORTEST_SECRET = 4


class Request(msgspec.Struct, frozen=True):
    """One POST. ``url`` may carry user info: it becomes basic authorization, and never goes on the wire as it is."""

    url: str
    headers: dict[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer, of its body the first 64 KiB. ``content_type`` is lower case, without parameters."""

    status: int
    content_type: str = ""
    retry_after: str | None = None
    body: bytes = b""


def url_below(endpoint: str, path: str) -> str:
    """The endpoint with the path at its end, once; a query string stays, a fragment goes."""
    base, asked, query = endpoint.partition("#")[0].partition("?")
    base = base.rstrip("/")
    if not base.endswith(path):
        base += path
    return base + asked + query


def post(job: Job, path: str, content_type: str, body: bytes) -> Request:
    """The request that brings the body there, compressed: its headers are the sink's, then the target's."""
    target = job.target
    ours = {
        "Content-Type": content_type,
        "Content-Encoding": "gzip",
        "Accept": "*/*",
        "User-Agent": f"xybridd/{__version__}",
        "Idempotency-Key": job.key,
    }
    if target.key:
        ours["Authorization"] = f"Bearer {target.key}"
    taken = {name.lower() for name in ours}
    theirs = {name: value for name, value in target.headers.items() if name.lower() not in taken}
    # No time in the gzip header, so that the same job gives the same bytes.
    return Request(url_below(target.endpoint, path), theirs | ours, gzip.compress(body, 6, mtime=0))


def outcome_of(answer: Answer) -> Outcome:
    """The status; where it is an error, with what the receiver says about it."""
    if 200 <= answer.status < 300:
        return Outcome(status=answer.status, retry_after=answer.retry_after)
    said = shown(answer.body)
    detail = f"the receiver answered {answer.status}" + (f": {said}" if said else "")
    return Outcome(status=answer.status, retry_after=answer.retry_after, detail=detail)


def shown(text: bytes) -> str:
    """The beginning of a stranger's text, on one line, without what could move a terminal or names a person."""
    decoded = text[: 16 * _SHOWN_CHARACTERS].decode("utf-8", "replace")
    line = " ".join("".join(each if each.isprintable() else " " for each in decoded).split())
    return redact(line)[:_SHOWN_CHARACTERS]


def without_secrets(outcome: Outcome, target: Target) -> Outcome:
    """The last gate before an outcome leaves the sender: what the target keeps secret is not in its sentence."""
    detail = outcome.detail
    for secret in sorted(_secrets(target), key=len, reverse=True):
        detail = detail.replace(secret, _HIDDEN)
    return msgspec.structs.replace(outcome, detail=detail)


def _secrets(target: Target) -> set[str]:
    found = {target.key or "", *target.headers.values()}
    found |= {word for value in target.headers.values() for word in value.split()[1:]}  # Bearer …, Basic …
    if target.sink != "file":
        try:
            parts = urlsplit(target.endpoint)
        except ValueError:
            return {each for each in found if len(each) >= _SHORTEST_SECRET}
        for name in (parts.username, parts.password):
            found |= {name or "", unquote(name or "")}
        found |= {parts.query, *(pair.partition("=")[2] for pair in parts.query.split("&"))}
    return {each for each in found if len(each) >= _SHORTEST_SECRET}
