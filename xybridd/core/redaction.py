"""Take out of an error message what must not leave the device, before anything of it is stored.

Error texts are written by libraries and carry paths, URLs and headers. What goes: home directories, e-mail and IP
addresses, bearer tokens and API keys, the user info and the query string of URLs. The rest stays readable, since a
message nobody can recognise is of no use to the person who mends the app.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

#: A message is kept to this many bytes of UTF-8.
MAX_MESSAGE_BYTES = 1024

#: Only so much of a message is looked at: eight times what is kept, so that what redaction shortens still fills it.
_LOOKED_AT = 8 * MAX_MESSAGE_BYTES

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # https://user:secret@host/path?token=… keeps its host and path.
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/@?#\"'<>]{1,512}@"), r"\1"),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s?#\"'<>]{1,2048})\?[^\s#\"'<>]{0,2048}"), r"\1"),
    # Authorization: Bearer …, api_key=…, "token": "…"
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 [redacted]"),
    (
        re.compile(
            r"(?i)\b((?:api|access|secret|private|auth)?[_-]?(?:key|token|secret|password|passwd))"
            r"(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)(?!\[redacted)[^\s\"',;&\\]{4,}"
        ),
        r"\1\2[redacted]",
    ),
    # Keys that give themselves away by their prefix, and JSON web tokens.
    (
        re.compile(
            r"\b(?:sk|pk|rk|xyb|xybrid)[-_][A-Za-z0-9_-]{12,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
            r"|\bhf_[A-Za-z0-9]{16,}|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bA[KS]IA[A-Z0-9]{12,}|\bAIza[\w-]{20,}"
            r"|\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"
        ),
        "[redacted]",
    ),
    (re.compile(r"[\w.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"), "[email]"),
    # /home/ada/models, /Users/ada/…, C:\Users\ada\…, /root/… → ~/…
    (re.compile(r"(?<![\w.~-])(?:/(?:home|Users)/[^/\s\"':;,)\]]{1,128}|/root(?=[/\s\"':;,)\]]|$))"), "~"),
    (re.compile(r"(?i)\b[A-Z]:\\{1,2}Users\\{1,2}[^\\\s\"':;,)\]]{1,128}"), "~"),
)

_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\.\d)|(?=[0-9A-Fa-f:]*\d)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?!\w)"
)


def _address(match: re.Match[str]) -> str:
    try:
        ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def redact(message: str) -> str:
    """The message without what identifies a person or opens a door, cut to `MAX_MESSAGE_BYTES`."""
    text = message[:_LOOKED_AT]
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _ADDRESS.sub(_address, text)
    if len(text) * 4 <= MAX_MESSAGE_BYTES:
        return text
    return text.encode()[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
