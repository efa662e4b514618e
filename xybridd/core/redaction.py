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

_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'<>]*")

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Authorization: Bearer …; a plain word after it ("basic authentication failed") is no token.
    (
        re.compile(r"\b((?i:bearer|basic))\s{1,8}(?=\S*[0-9=._~+/-]|\S*[a-z][A-Z]|\S{20})[A-Za-z0-9._~+/=-]{6,}"),
        r"\1 [redacted]",
    ),
    # api_key=…, "token": "…", CLIENT_SECRET: …; a mere number ("max token: 4096") is none.
    (
        re.compile(
            r"(?i)(?<![\w-])([\w-]{0,40}?(?:(?:api|access|secret|private|auth)[_-]?key|token|secret|password|passwd))"
            r"(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)(?!\[redacted|\d+\b)[^\s\"',;&\\]{4,}"
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
    # The last label is letters alone: wav2vec2@1.0 is a model, not an address.
    (re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,63}"), "[email]"),
    # /home/ada/models, /var/home/ada, /Users/ada/…, C:\Users\Ada Lovelace\…, /root/… → ~/…
    (re.compile(r"(?<![\w.~-])(?:(?:/var)?/(?:home|Users)/[^/\s\"':;,)\]]{1,128}|/root(?=[/\s\"':;,)\]]|$))"), "~"),
    (re.compile(r"(?i)\b[A-Z]:\\{1,2}Users\\{1,2}(?:[^\\\r\n\"':;,)\]]{1,64}(?=\\)|[^\\\s\"':;,)\]]{1,128})"), "~"),
)

_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_ADDRESSES = (
    re.compile(rf"(?<![\w.:])(?=[0-9A-Fa-f:]*\d)(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:{_IPV4}|[0-9A-Fa-f]{{0,4}})(?![\w:])"),
    re.compile(rf"(?<![\w.]){_IPV4}(?!\w|\.\d)"),
)


def _bare_url(match: re.Match[str]) -> str:
    """Without user info and query: https://user:secret@host/path?token=…#part → https://host/path#part."""
    scheme, _, rest = match[0].partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    rest = authority.rpartition("@")[2] + rest[len(authority) :]
    path, asked, query = rest.partition("?")
    part = "#" + query.partition("#")[2] if asked and "#" in query else ""
    return f"{scheme}://{path}{part}"


def _address(match: re.Match[str]) -> str:
    try:
        ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def redact(message: str) -> str:
    """The message without what identifies a person or opens a door, cut to `MAX_MESSAGE_BYTES`."""
    text = message[:_LOOKED_AT]
    if len(message) > _LOOKED_AT and (spaces := re.search(r"\s\S*$", text)):
        text = text[: spaces.start()]  # half a secret would not be known for one
    text = _URL.sub(_bare_url, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    for pattern in _ADDRESSES:
        text = pattern.sub(_address, text)
    if len(text) * 4 <= MAX_MESSAGE_BYTES:
        return text
    return text.encode()[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
