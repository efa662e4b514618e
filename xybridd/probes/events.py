"""Word from the kernel that something changed, so that nobody has to ask again and again.

Two netlink sockets: device events (a charger, a GPU, an NPU, something on USB, a thermal trip) and routes. What is in a
message matters little; that one of these kinds came wakes the sampler, and the probes read what is so. Linux only.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

#: linux/netlink.h, linux/rtnetlink.h: protocol families, multicast groups, message types.
_ROUTE, _KOBJECT_UEVENT = 0, 15
_KERNEL_UEVENTS = 1
_ROUTE_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_ROUTE_MESSAGES = {24: "route added", 25: "route removed"}

_SUBSYSTEMS = frozenset({"power_supply", "drm", "accel", "usb", "thermal"})
_HEAD = struct.Struct("=IHHII")


def parse_uevent(message: bytes) -> dict[str, str]:
    r"""The variables of a kernel's uevent: ``add@/devices/…\0ACTION=add\0SUBSYSTEM=usb\0…``."""
    fields = {}
    for part in message.split(b"\0")[1:]:
        name, equals, value = part.decode("utf-8", "replace").partition("=")
        if equals:
            fields[name] = value
    return fields


def parse_routes(message: bytes) -> Iterator[str]:
    """What each message of a datagram says of routes; other messages say nothing."""
    while len(message) >= _HEAD.size:
        length, kind, _flags, _seq, _pid = _HEAD.unpack_from(message)
        if length < _HEAD.size:
            return
        if kind in _ROUTE_MESSAGES:
            yield _ROUTE_MESSAGES[kind]
        message = message[(length + 3) & ~3 :]


class KernelEvents:
    """Sockets to wait on, and what came in."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def open(self) -> None:
        """Where the kernel gives no such socket, there are none, and only the clock wakes the sampler."""
        for family, groups in ((_KOBJECT_UEVENT, _KERNEL_UEVENTS), (_ROUTE, _ROUTE_GROUPS)):
            sock = None
            try:
                sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, family)
                sock.bind((0, groups))
            except (OSError, AttributeError) as error:
                log.info("no kernel events of family %d: %s", family, error)
                if sock is not None:
                    sock.close()
                continue
            self.sockets.append(sock)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def read(self, sock: socket.socket) -> list[str]:
        """What has happened that a probe would want to know; nothing for the rest."""
        seen: list[str] = []
        while True:
            try:
                message, (sender, _groups) = sock.recvfrom(2**16)
            except BlockingIOError:
                return seen
            except OSError as error:
                # So much came at once that the kernel dropped some: anything may have changed.
                return [*seen, f"events were lost: {error.strerror}"]
            if sender != 0:
                continue  # not from the kernel
            if sock.proto == _ROUTE:
                seen.extend(parse_routes(message))
            else:
                fields = parse_uevent(message)
                if fields.get("SUBSYSTEM") in _SUBSYSTEMS:
                    seen.append(f"{fields['SUBSYSTEM']} {fields.get('ACTION', 'change')}")
