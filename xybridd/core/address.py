"""Which addresses we send to: HTTPS, or plain HTTP that does not leave the machine."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}

#: What parsers of URLs disagree about: with these, the host that is checked might not be the one that is spoken to.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 and the name localhost; no other name, whatever it stands for."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def leads_here(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def why_refused(url: str, *, allow_insecure: bool) -> str | None:
    """Why nothing is sent to this URL, as a sentence that shows nothing of it but its scheme and host."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "the endpoint is not a URL; write it as https://host or https://host:port"
    if parts.scheme not in _PORTS or not host or _AMBIGUOUS.search(url):
        return "the endpoint is not a URL that can be sent to; write it as https://host or https://host:port"
    if parts.scheme == "http" and not allow_insecure and not is_loopback(host):
        return (
            f"http://{host} would be readable for anybody on the way; use https, or set upload.allow_insecure "
            "if that network is yours"
        )
    return None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError when it is no URL."""
    parts = urlsplit(url)
    if _AMBIGUOUS.search(url) or not parts.hostname:
        raise ValueError("no host")
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)


def place(url: str) -> str:
    """Host and port for a sentence: no user info, no path, no query."""
    try:
        _scheme, host, port = origin(url)
    except ValueError:
        return "an address that is none"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown_url(url: str) -> str:
    """A URL as it may be told: without user info, query and fragment, which may hold secrets."""
    try:
        scheme, path = origin(url)[0], urlsplit(url).path
    except ValueError:
        return "a URL that is none"
    return f"{scheme}://{place(url) if urlsplit(url).port else place(url).rpartition(':')[0]}{path}"


def without_user_info(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL as it goes on the wire, and the name and password that were in it."""
    parts = urlsplit(url)
    bare = urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    if parts.username is None and parts.password is None:
        return bare, None
    return bare, (unquote(parts.username or ""), unquote(parts.password or ""))
