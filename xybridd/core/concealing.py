"""What is taken out of a report before anybody else gets to see it.

Three nets, one behind the other: what redaction knows by its looks (`xybridd.core.redaction`), what is known here to be
a secret (a key, a header, a password in a URL), and names that tell whose machine it is. The second is applied to the
finished text again, so that a secret in a place where nobody expected one is found too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from xybridd.core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECRET = "[redacted]"  # noqa: S105 - what stands in place of one

#: Shorter ones would take harmless words with them.
_LEAST_CHARACTERS = 4

#: What is written as NAME=value or NAME = "value" under such a name is a secret, whatever it looks like.
_NAMED = re.compile(
    r"(?im)^(?P<name>[ \t#;-]*(?:[\w.-]+[ \t]*=[ \t]*[\"']?)?"
    r"[\w.-]*(?:key|token|secret|passw(?:or)?d|authorization|cookie)[\w.-]*[ \t]*[:=][ \t]*)"
    r"(?P<value>\S[^\r\n]*)$"
)
#: Under these names stands where a secret is, not what it is.
_PLACES = re.compile(r"(?i)(?:file|path)\s*[:=]\s*$")


class Concealer:
    """``secrets``: what must not be seen. ``names``: a name and what is written in its place."""

    def __init__(self, secrets: Iterable[str], names: Mapping[str, str]) -> None:
        known = {part for secret in secrets for part in _forms(secret)}
        # The longer first: a part of one may be another.
        self._secrets = sorted(known, key=len, reverse=True)
        self._names = [
            (re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])"), instead)
            for name, instead in sorted(names.items(), key=lambda each: -len(each[0]))
            if len(name) > 1
        ]

    def text(self, text: str) -> str:
        """Line by line, as redaction looks at a message at a time."""
        lines = _NAMED.sub(_named, self._known(text)).splitlines()
        return self._known("".join(f"{self._names_gone(redact(line))}\n" for line in lines))

    def value(self, value: Any) -> Any:
        """The strings of a JSON value, its keys too."""
        match value:
            case str():
                return self._names_gone(redact(self._known(value)))
            case dict():
                return {self.value(str(key)): self.value(each) for key, each in value.items()}
            case list() | tuple():
                return [self.value(each) for each in value]
            case _:
                return value

    def finished(self, data: bytes) -> bytes:
        """The last look, at what is about to be written."""
        for secret in self._secrets:
            data = data.replace(secret.encode("utf-8", "surrogateescape"), SECRET.encode())
        return data

    def _known(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, SECRET)
        return text

    def _names_gone(self, text: str) -> str:
        for pattern, instead in self._names:
            text = pattern.sub(lambda _, instead=instead: instead, text)  # type: ignore[misc]
        return text


def _named(match: re.Match[str]) -> str:
    if _PLACES.search(match["name"]):
        return match[0]
    return f"{match['name']}{SECRET}"


def _forms(secret: str) -> set[str]:
    """A secret as it is, and as it may stand in a URL."""
    forms = {secret, quote(secret, safe=""), unquote(secret)}
    return {form for form in forms if len(form) >= _LEAST_CHARACTERS}


def secrets_in_url(url: str) -> list[str]:
    """The password, the user's name, and the values of the query."""
    try:
        parts = urlsplit(url)
        found = [parts.password, parts.username]
    except ValueError:
        return [url]
    values = [pair.partition("=")[2] or pair for pair in parts.query.split("&")]
    return [each for each in (*found, *values, parts.fragment) if each]
