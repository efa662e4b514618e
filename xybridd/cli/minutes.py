"""What was recorded, read from the daemon minute by minute; every command that adds it up begins here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xybridd.core.minute_json import from_json, read_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.client.connection import Connection
    from xybridd.core.minute import AppMinute

#: A page is read by the daemon in a few milliseconds, so that what it has to do meanwhile hardly waits.
_PAGE = 200


def read_minutes(
    connection: Connection,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    app: str | None = None,
    session_id: str | None = None,
) -> Iterator[AppMinute]:
    """Those that began in that time, in their order; the ones still open come last."""
    wanted = {"since_ms": since_ms, "until_ms": until_ms, "app": app, "session_id": session_id}
    params: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None} | {"limit": _PAGE}
    while True:
        page = read_result(connection.call("stats.minutes", params))
        yield from map(from_json, page.minutes)
        if page.next is None:
            return
        params["after"] = page.next
