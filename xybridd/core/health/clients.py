"""Whether apps reach the daemon and are refused: which, why, and what to do."""

from __future__ import annotations

from typing import Any

import msgspec

from xybridd.core.health.finding import Finding, Topic
from xybridd.core.words import many, span

CLIENTS = Topic("clients", "the daemon counts no record of an app whose requests it refuses")

#: A refusal that is older than this was probably corrected since.
RECENT_S = 3600.0

_UPGRADE = "upgrade the xybridd of this app: pip install --upgrade xybridd"
_BY_CODE = {
    "invalid_params": "correct in this app what the message names (app, labels, session id)",
    "permission_denied": "run this app as the user whose session it names, or without a session id",
    "unknown_session": "let this app start a session of its own: without a session id",
    "session_ended": "let this app start another session: without a session id",
}


class ClientFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``refused``: `refused_clients` of `daemon.status`, None without a daemon. ``now_ms``: UTC milliseconds."""

    refused: list[dict[str, Any]] | None
    now_ms: int


def recent(refused: list[dict[str, Any]], now_ms: int) -> list[dict[str, Any]]:
    """The clients that were refused within `RECENT_S`, the latest first."""
    return [each for each in refused if now_ms - each["last_at_ms"] <= RECENT_S * 1000]


def judge(facts: ClientFacts) -> list[Finding]:
    if facts.refused is None:
        return [CLIENTS.unknown("only the daemon knows")]
    found = recent(facts.refused, facts.now_ms)
    return [_refused(each, facts.now_ms) for each in found] or [CLIENTS.ok("no app was refused in the last hour")]


def _refused(client: dict[str, Any], now_ms: int) -> Finding:
    ago = span((now_ms - client["last_at_ms"]) / 1000)
    says = f"{in_a_line(client)}, {ago} ago: {client['message']}"
    return CLIENTS.warning(says, advice(client))


def in_a_line(client: dict[str, Any]) -> str:
    """``kiosk (user 1000): session.start was refused 3 times``."""
    times = many(client["count"], "time")
    return f"{client['app']} (user {client['uid']}): {client['method']} was refused {times}"


def advice(client: dict[str, Any]) -> str:
    """What to do. The ring is written by the client library: its errors are not the app's."""
    if client["method"].startswith("ring."):
        return _UPGRADE
    return _BY_CODE.get(client["code"], _UPGRADE)
