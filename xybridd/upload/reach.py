"""Can an endpoint be reached? An address, a connection, trust: and then it is closed again, with nothing sent.

What is tried is what a request would try: the proxy of the environment where there is one, and the certificates that
the sender believes.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from xybridd.core.address import is_loopback, origin
from xybridd.upload.trust import bundle, system_context

if TYPE_CHECKING:
    from typing import Literal


class Reached(NamedTuple):
    """How far it got; ``detail`` says what stopped it there. ``by_proxy``: the proxy's host, when there is one."""

    stage: Literal["resolve", "connect", "tls", "done"]
    detail: str = ""
    by_proxy: str | None = None


def reach(url: str, ca_bundle: str | None, limit_s: float) -> Reached:
    """Every wait is limited but that for an address, which no limit reaches: run it where it can be left behind."""
    scheme, host, port = origin(url)
    deadline_s = time.monotonic() + limit_s
    proxy = _proxy(url, host)
    if proxy is not None:
        _scheme, host, port = origin(proxy)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Reached("resolve", _why(error), proxy and host)
    try:
        connection = socket.create_connection((host, port), _left_s(deadline_s))
    except OSError as error:
        return Reached("connect", _why(error), proxy and host)
    with closing(connection):
        if proxy is not None or scheme == "http":
            return Reached("done", "", proxy and host)
        return _trusted(connection, host, ca_bundle, deadline_s)


def _trusted(connection: socket.socket, host: str, ca_bundle: str | None, deadline_s: float) -> Reached:
    try:
        named = bundle(ca_bundle)
        context = ssl.create_default_context(cafile=named) if named else system_context()
        connection.settimeout(_left_s(deadline_s))
        with closing((context or ssl.create_default_context()).wrap_socket(connection, server_hostname=host)):
            return Reached("done")
    except ssl.SSLCertVerificationError as error:
        return Reached("tls", error.verify_message or _why(error))
    except OSError as error:
        return Reached("tls", _why(error))


def _proxy(url: str, host: str) -> str | None:
    # What goes to loopback goes there directly, as in `http`.
    if is_loopback(host):
        return None
    found = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    return found if found is None or urlsplit(found).scheme else f"http://{found}"


def _left_s(deadline_s: float) -> float:
    return max(0.1, deadline_s - time.monotonic())


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error)
