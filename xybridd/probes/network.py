"""Whether there is a way out, a default route of IPv4 or IPv6, and whether it is metered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xybridd.probes.metered import Metered
from xybridd.probes.probe import Probe, Quantity, sure, unknown

if TYPE_CHECKING:
    from xybridd.core.capabilities import Reading
    from xybridd.probes.tree import Tree

_METERED = Metered()
_IPV4 = "/proc/net/route"
_ROUTE_GET = ("/sbin/route", "-n", "get", "default")
_IPV6 = "/proc/net/ipv6_route"

#: Flags of a route (linux/route.h): up, and rejecting.
_UP, _REJECT = 0x1, 0x200


def parse_ipv4_routes(text: str) -> list[str]:
    """The interfaces with a default route that is up, those with the smallest metric first."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        flags, metric = _hex(fields[3]), int(fields[6]) if fields[6].isdigit() else 0
        if flags & _UP and not flags & _REJECT:
            found.append((metric, fields[0]))
    return [interface for _, interface in sorted(found)]


def parse_ipv6_routes(text: str) -> list[str]:
    """Likewise, from a file without a head: destination, its length, …, metric, …, flags, interface."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[0].strip("0") or fields[1] != "00" or fields[9] == "lo":
            continue
        flags = _hex(fields[8])
        if flags & _UP and not flags & _REJECT:
            found.append((_hex(fields[5]), fields[9]))
    return [interface for _, interface in sorted(found)]


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def parse_route_get(text: str) -> str:
    """The interface that macOS's ``route -n get default`` names; "" when it names none."""
    found = re.search(r"^ *interface: (\S{1,32})$", text, re.MULTILINE)
    return found[1] if found else ""


def _route_of_a_mac(tree: Tree, now_s: float) -> Reading:
    told = tree.output(*_ROUTE_GET)
    interface = parse_route_get((told.value or b"").decode(errors="replace"))
    return sure(interface, now_s, told.path) if interface else unknown(now_s, told.problem or "no interface", told.path)


def read_network(tree: Tree, now_s: float) -> dict[str, Reading]:
    """``default_route``: the interface it leads through, "" when there is none; ``metered``: whether it is."""
    if tree.platform == "darwin":
        metered = unknown(now_s, "macOS does not say it to a daemon")
        return {"default_route": _route_of_a_mac(tree, now_s), "metered": metered}
    route = _route(tree, now_s)
    if not tree.live:
        return {"default_route": route, "metered": unknown(now_s, "a recorded tree has no bus to ask")}
    return {"default_route": route, "metered": _METERED.read(route.value, now_s)}


def _route(tree: Tree, now_s: float) -> Reading:
    ipv4, ipv6 = tree.text(_IPV4), tree.text(_IPV6)
    problem = ipv4.problem or ipv6.problem
    interfaces = [*parse_ipv4_routes(ipv4.value or ""), *parse_ipv6_routes(ipv6.value or "")]
    if interfaces:
        return sure(interfaces[0], now_s, _IPV4 if parse_ipv4_routes(ipv4.value or "") else _IPV6)
    if problem or (ipv4.value is None and ipv6.value is None):
        return unknown(now_s, problem or f"there is neither {_IPV4} nor {_IPV6}")
    return sure("", now_s, _IPV4)


NETWORK = Probe("network", (Quantity("default_route", "", "state"), Quantity("metered", "", "state")), read_network)
