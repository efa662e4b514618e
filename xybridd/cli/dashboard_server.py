"""The server of ``xybridd dashboard``: on loopback, for whoever has the token, while the command runs.

Anybody on this machine can reach a port of loopback, and so can any page in a browser, by a name of its own that it
lets point here (DNS rebinding). So the path begins with a random token, compared in constant time, the Host header has
to be this address, and what is answered may neither be framed nor read by another origin, nor kept.
"""

from __future__ import annotations

import hmac
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

from xybridd.errors import XybriddError
from xybridd.report.page import page, policy
from xybridd.report.text import Clock

if TYPE_CHECKING:
    from xybridd.cli.dashboard_feed import Feed, Shown

#: How often a page that is looked at asks.
EVERY_MS = 2000

#: A browser that opens a connection and says nothing is let go of.
_PATIENCE_S = 10.0

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": policy(live=True) + "; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server(ThreadingHTTPServer):
    """Raises OSError when the port is taken."""

    daemon_threads = True

    def __init__(self, port: int, feed: Feed) -> None:
        self.feed = feed
        self.token = secrets.token_urlsafe(32)
        super().__init__(("127.0.0.1", port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, *_: Any) -> None:
        """A browser that went away in the middle is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "xybridd"
    sys_version = ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        given, _, rest = self.path.removeprefix("/").partition("/")
        known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.server.token.encode())
        if not known or self.headers.get("Host") not in self.server.hosts:
            self._answer(403, "text/plain", b"open the whole address that `xybridd dashboard` printed\n")
        elif rest == "":
            self._answer(200, "text/html", self._page())
        elif rest == "live.json":
            self._answer(200, "application/json", self._live())
        else:
            self._answer(404, "text/plain", b"there is nothing here\n")

    def _page(self) -> bytes:
        """What is known; the page asks by itself how it is now."""
        try:
            shown: Shown | None = self.server.feed.now()
        except XybriddError:
            shown = self.server.feed.last
        return b"" if shown is None else page(shown.report, EVERY_MS).encode()

    def _live(self) -> bytes:
        try:
            report, parts = self.server.feed.now()
        except XybriddError as error:
            return msgspec.json.encode({"gone": str(error)})
        return msgspec.json.encode({"at": Clock(report).second(report.made_at_ms), "sections": parts})

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the path holds the token."""
