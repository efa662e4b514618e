"""Whether the way out is metered, as NetworkManager says over D-Bus (the extra ``network``, jeepney).

NetworkManager's ``Metered``: 0 unknown, 1 yes, 2 no, 3 it guesses yes, 4 it guesses no (a phone's hotspot tells, by
DHCP). Asking is a connection to the bus and back, so it is done when the route has changed, or after five minutes. A
NetworkManager that does not run is not started for it.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes.probe import unknown

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = "org.freedesktop.NetworkManager.Metered"
NO_JEEPNEY = "NetworkManager is asked with jeepney: pip install 'xybridd[network]'"
NO_BUS = "there is no system bus"

_ASK_EVERY_S = 300.0
#: Both together within the network probe's limit.
_CONNECT_S, _ANSWER_S = 0.3, 0.4
_SOCKET = "/run/dbus/system_bus_socket"

_MEANINGS: dict[int, tuple[bool, Confidence, str | None]] = {
    1: (True, Confidence.HIGH, None),
    2: (False, Confidence.HIGH, None),
    3: (True, Confidence.MEDIUM, "NetworkManager guesses"),
    4: (False, Confidence.MEDIUM, "NetworkManager guesses"),
}


def parse_metered(value: object, now_s: float) -> Reading:
    """The reading of NetworkManager's number."""
    if isinstance(value, int) and not isinstance(value, bool) and value in _MEANINGS:
        metered, confidence, reason = _MEANINGS[value]
        return Reading(metered, confidence, SOURCE, now_s, reason)
    reason = "NetworkManager does not know" if value == 0 else f"NetworkManager says {str(value)[:40]!r}"
    return unknown(now_s, reason, SOURCE)


def ask_network_manager(now_s: float) -> Reading:
    """Ask over the system's bus. Never raises."""
    if "DBUS_SYSTEM_BUS_ADDRESS" not in os.environ and not os.path.exists(_SOCKET):  # noqa: PTH110
        return unknown(now_s, NO_BUS, SOURCE)
    if importlib.util.find_spec("jeepney") is None:
        return unknown(now_s, NO_JEEPNEY, SOURCE)
    try:
        return _ask(now_s)
    except Exception as error:  # noqa: BLE001 - a bus may answer anything, and jeepney raises a dozen kinds
        return unknown(now_s, f"the system bus: {str(error) or type(error).__name__}"[:200], SOURCE)


def _ask(now_s: float) -> Reading:
    from jeepney import DBusAddress, MessageFlag, MessageType, Properties  # noqa: PLC0415 - an extra
    from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415

    manager = DBusAddress(
        "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "org.freedesktop.NetworkManager"
    )
    question = Properties(manager).get("Metered")
    question.header.flags |= MessageFlag.no_auto_start
    with open_dbus_connection("SYSTEM", auth_timeout=_CONNECT_S) as connection:
        answer = connection.send_and_get_reply(question, timeout=_ANSWER_S)
    if answer.header.message_type is MessageType.error:
        said = answer.body[0] if answer.body else "an error"
        return unknown(now_s, f"NetworkManager does not answer: {said}"[:200], SOURCE)
    _signature, value = answer.body[0]
    return parse_metered(value, now_s)


class Metered:
    """What was answered last, and for which route."""

    def __init__(self, ask: Callable[[float], Reading] = ask_network_manager) -> None:
        self._ask = ask
        self._route: str | None = None
        self._known: Reading | None = None

    def read(self, route: str | None, now_s: float) -> Reading:
        """The last answer with its age, or a new one."""
        known = self._known
        if known is None or route != self._route or now_s - known.taken_s >= _ASK_EVERY_S:
            known = self._ask(now_s)
            self._route, self._known = route, msgspec.structs.replace(known, taken_s=now_s)
        return known
