"""What the kernel says, on recorded messages and on this machine's own kernel."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from shutil import which

import pytest

from tests.support import until
from xybridd.probes.events import KernelEvents, parse_routes, parse_uevent

CHARGER = (
    b"change@/devices/LNXSYSTM:00/LNXSYBUS:00/PNP0C0A:00/power_supply/BAT0\0ACTION=change\0"
    b"DEVPATH=/devices/LNXSYSTM:00/LNXSYBUS:00/PNP0C0A:00/power_supply/BAT0\0SUBSYSTEM=power_supply\0SEQNUM=4711\0"
)


def route(kind: int, body: bytes = b"\0" * 12) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_uevent_is_its_variables() -> None:
    fields = parse_uevent(CHARGER)
    assert (fields["ACTION"], fields["SUBSYSTEM"]) == ("change", "power_supply")
    assert parse_uevent(b"") == {}
    assert parse_uevent(b"junk\0\xff\xfe=\0=") == {"\ufffd\ufffd": "", "": ""}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (route(24), ["added"]),
        (route(25) + route(16) + route(24, b"\0" * 13) + b"\0\0\0" + route(25), ["removed", "added", "removed"]),
        (b"", []),
        (b"\0" * 16, []),
        (b"short", []),
    ],
)
def test_routes_are_told_of_and_other_messages_are_not(message: bytes, said: list[str]) -> None:
    assert list(parse_routes(message)) == [f"route {word}" for word in said]


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_a_real_change_of_routes_is_heard() -> None:
    if os.getuid() != 0 or which("ip") is None:
        pytest.skip("needs root and iproute2 to change a route of its own")
    events = KernelEvents()
    events.open()
    try:
        routes = [sock for sock in events.sockets if sock.proto == 0]
        assert routes
        for verb in ("add", "del"):
            done = subprocess.run(
                ["ip", "route", verb, "blackhole", "198.51.100.0/24"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"routes cannot be changed here: {done.stderr.strip()}")
        seen: list[str] = []

        def both() -> bool:
            seen.extend(events.read(routes[0]))
            return len(seen) >= 2

        until(both, "both to be told")
        assert seen[:2] == ["route added", "route removed"]
    finally:
        events.close()


@pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
def test_what_does_not_come_from_the_kernel_is_not_believed() -> None:
    events = KernelEvents()
    events.open()
    try:
        assert all(isinstance(sock, socket.socket) for sock in events.sockets)
        assert all(events.read(sock) == [] for sock in events.sockets)
    finally:
        events.close()
    assert events.sockets == []
