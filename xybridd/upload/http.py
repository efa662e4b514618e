"""One POST with requests: an answer, or the failure that came instead.

requests' sessions are left out, and with them what they do unasked: cookies, ~/.netrc (which would replace our
authorization), redirects as GET to wherever a server says. What is wanted of them is done here:

- Proxies come from the environment as with requests. What goes to loopback goes there directly, since plain HTTP is
  allowed there only because it does not leave the machine.
- A redirect to the same scheme, host and port is followed with the same POST, three times at most. Any other is a
  failure: nobody else gets the key or the data.
- Beside the time limits of connecting and reading there is one for the whole attempt, which an answer that comes a byte
  a second does not move. It is the interval timer's signal, so it works in a process's main thread alone.
- Of an answer's body the first 64 KiB are read.
"""

from __future__ import annotations

import os
import re
import signal
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
from requests.utils import get_environ_proxies

from xybridd.core.address import is_loopback, origin, place, why_refused, without_user_info
from xybridd.core.delivery import Failure, Outcome, Target
from xybridd.upload.blame import blamed
from xybridd.upload.request import Answer, Request
from xybridd.upload.trust import adapter, bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests.adapters import HTTPAdapter

MAX_BODY_BYTES = 64 * 1024
MAX_REDIRECTS = 3

#: Most of these http.client would send as they are.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_REDIRECTS = frozenset({301, 302, 307, 308})
_PROXY_WANTS_A_PASSWORD = 407

#: Failures after which the receiver has nothing: nothing was sent, or not to it.
_NOT_SENT = frozenset({"dns", "connect", "tls", "proxy", "refused"})

_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<script", b"<meta")


class _Deadline(BaseException):
    """The whole attempt took too long. Not an Exception, so that no library takes it for an error of its own."""


class _Failed(Exception):
    """The attempt is over; carries the outcome."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.outcome = Outcome(failure=failure, detail=detail)


class Transport:
    """Keeps connections open between the jobs of one sender, one pool for each set of certificates."""

    def __init__(self) -> None:
        self._adapters: dict[str | None, HTTPAdapter] = {}

    def close(self) -> None:
        for each in self._adapters.values():
            each.close()
        self._adapters.clear()

    def perform(self, request: Request, target: Target) -> Answer | Outcome:
        """An answer that is worth reading, or the outcome when there was none."""
        outcome = self._perform(request, target)
        if isinstance(outcome, Outcome) and outcome.failure not in _NOT_SENT:
            return msgspec.structs.replace(outcome, sent_bytes=len(request.body))
        return outcome

    def _perform(self, request: Request, target: Target) -> Answer | Outcome:
        refusal = why_refused(request.url, allow_insecure=target.allow_insecure)
        if refusal is not None:
            return Outcome(failure="refused", detail=refusal)
        where = place(request.url)
        try:
            with _deadline(target.total_timeout_s):
                return self._follow(request, target)
        except _Deadline:
            self.close()
            return Outcome(failure="timeout", detail=f"{where} did not answer in full in time")
        except _Failed as failed:
            return failed.outcome
        except Exception as error:  # noqa: BLE001 - whatever it was, the attempt failed, and blame knows what it means
            self.close()
            return blamed(error, where)

    def _follow(self, request: Request, target: Target) -> Answer | Outcome:
        url, login = without_user_info(request.url)
        headers = dict(request.headers)
        if login and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = "Basic " + b64encode(":".join(login).encode()).decode()
        if any(_CONTROL.search(value) for value in headers.values()):
            raise _Failed("refused", "the key or a header holds a control character; check [upload] in the config")
        for _ in range(MAX_REDIRECTS + 1):
            answer, location = self._post(url, headers, request.body, target)
            if not 300 <= answer.status < 400:
                return _weighed(answer, place(url))
            url = _next(url, answer.status, location)
        raise _Failed("redirect", f"{place(url)} redirects in a loop; check upload.endpoint")

    def _post(self, url: str, headers: dict[str, str], body: bytes, target: Target) -> tuple[Answer, str | None]:
        prepared = requests.Request("POST", url, headers=headers, data=body).prepare()
        assert prepared.url is not None  # noqa: S101
        ca_bundle = bundle(target.ca_bundle)
        if ca_bundle and url.startswith("https:") and not os.access(ca_bundle, os.R_OK):
            raise _Failed("tls", f"the certificates in {ca_bundle} cannot be read; check upload.ca_bundle")
        response = self._adapter(ca_bundle).send(
            prepared,
            stream=True,
            timeout=(target.connect_timeout_s, target.read_timeout_s),
            verify=ca_bundle or True,
            proxies=_proxies(prepared.url),
        )
        try:
            answer_body = _read(response)
        finally:
            response.close()
        said = response.headers
        answer = Answer(
            status=response.status_code,
            content_type=said.get("Content-Type", "").partition(";")[0].strip().lower(),
            retry_after=said.get("Retry-After"),
            body=answer_body,
        )
        return answer, said.get("Location")

    def _adapter(self, ca_bundle: str | None) -> HTTPAdapter:
        if ca_bundle not in self._adapters:
            self._adapters[ca_bundle] = adapter(ca_bundle)
        return self._adapters[ca_bundle]


def _proxies(url: str) -> dict[str, str]:
    return {} if is_loopback(urlsplit(url).hostname or "") else get_environ_proxies(url)


def _read(response: requests.Response) -> bytes:
    """The body, or as much of it as we want; a connection of which all was read can be used again."""
    parts: list[bytes] = []
    left = MAX_BODY_BYTES
    while left > 0 and (part := response.raw.read(left, decode_content=True)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)[:MAX_BODY_BYTES]


def _next(url: str, status: int, location: str | None) -> str:
    if status not in _REDIRECTS or not location:
        detail = f"{place(url)} answered {status}, which does not say whether it took what was sent"
        raise _Failed("redirect", f"{detail}; check upload.endpoint")
    try:
        following = urljoin(url, location)
        if origin(following) == origin(url):
            return without_user_info(following)[0]
        elsewhere = place(following)
    except ValueError:
        elsewhere = "an address that is none"
    raise _Failed("redirect", f"{place(url)} redirects to {elsewhere}, where we were not told to send")


def _weighed(answer: Answer, where: str) -> Answer | Outcome:
    if answer.status == _PROXY_WANTS_A_PASSWORD:
        return Outcome(failure="proxy", detail="the proxy wants a name and a password; put them into HTTPS_PROXY")
    if 200 <= answer.status < 300 and _is_page(answer):
        return Outcome(
            failure="portal",
            detail=f"a web page came instead of an answer from {where}; is there a network that wants a login first?",
        )
    return answer


def _is_page(answer: Answer) -> bool:
    start = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:32].lower()
    return answer.content_type in _PAGE_TYPES or start.startswith(_PAGE_STARTS)


@contextmanager
def _deadline(after_s: float) -> Iterator[None]:
    def expired(*_: object) -> NoReturn:
        raise _Deadline

    signal.signal(signal.SIGALRM, expired)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(after_s, 0.001))  # 0 would mean none
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
