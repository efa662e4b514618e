"""Whether the network is metered: NetworkManager's words, over a real bus of the test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import environment, until
from xybridd.core.capabilities import Confidence, Reading
from xybridd.probes import metered
from xybridd.probes.metered import Metered, ask_network_manager, parse_metered
from xybridd.probes.network import read_network
from xybridd.probes.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HIGH, MEDIUM, UNKNOWN = Confidence.HIGH, Confidence.MEDIUM, Confidence.UNKNOWN


@pytest.mark.parametrize(
    ("value", "expected", "confidence"),
    [
        (1, True, HIGH), (2, False, HIGH), (3, True, MEDIUM), (4, False, MEDIUM),
        (0, None, UNKNOWN), (5, None, UNKNOWN), (-1, None, UNKNOWN), ("1", None, UNKNOWN), (True, None, UNKNOWN),
    ],
)  # fmt: skip
def test_what_the_number_means(value: object, expected: bool | None, confidence: Confidence) -> None:
    reading = parse_metered(value, 1.0)
    assert (reading.value, reading.confidence) == (expected, confidence)
    assert (reading.reason is None) == (confidence is HIGH)


def test_it_is_asked_again_when_the_route_changed_or_after_five_minutes() -> None:
    asked: list[float] = []

    def ask(now_s: float) -> Reading:
        asked.append(now_s)
        return parse_metered(1, now_s)

    known = Metered(ask)
    for now_s, route in ((0, "eth0"), (10, "eth0"), (299, "eth0"), (300, "eth0"), (310, "wlan0"), (320, "wlan0")):
        assert known.read(route, now_s).taken_s == asked[-1]
    assert asked == [0, 300, 310]


_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
  <allow send_requested_reply="true"/><allow receive_requested_reply="true"/></policy>
</busconfig>"""


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trying:
        return not trying.connect_ex(str(path))


@pytest.fixture
def bus(folder: Path) -> Iterator[str]:
    """A bus for this test alone; `DBUS_SYSTEM_BUS_ADDRESS` names it."""
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("there is no dbus-daemon (Debian's package dbus)")
    pytest.importorskip("jeepney", reason="jeepney is not installed (the extra network)")
    (folder / "bus.conf").write_text(_CONFIG.format(socket=folder / "bus"))
    daemon = subprocess.Popen([program, f"--config-file={folder}/bus.conf", "--nofork", "--nopidfile"])
    until(lambda: listens(folder / "bus"), "the bus")
    address = f"unix:path={folder}/bus"
    with environment(DBUS_SYSTEM_BUS_ADDRESS=address):
        yield address
    daemon.terminate()
    daemon.wait(30)


class Manager:
    """Owns NetworkManager's name and answers what it is told to; `mute` answers nothing."""

    def __init__(self, address: str, value: Any, *, mute: bool = False) -> None:
        from jeepney.bus_messages import message_bus  # noqa: PLC0415 - an extra
        from jeepney.io.blocking import Proxy, open_dbus_connection  # noqa: PLC0415

        self.value, self.mute = value, mute
        self.asked: list[Any] = []
        self._connection = open_dbus_connection(address)
        Proxy(message_bus, self._connection).RequestName("org.freedesktop.NetworkManager")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        from jeepney import HeaderFields, MessageType, new_method_return  # noqa: PLC0415

        while not self._over.is_set():
            try:
                message = self._connection.receive(timeout=0.05)
            except TimeoutError:
                continue
            if message.header.message_type is not MessageType.method_call:
                continue
            self.asked.append((message.header.fields[HeaderFields.member], *message.body))
            if not self.mute:
                self._connection.send(new_method_return(message, "v", (self.value,)))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()


@pytest.mark.parametrize(
    ("value", "expected", "confidence"),
    [
        (("u", 1), True, HIGH), (("u", 4), False, MEDIUM), (("u", 0), None, UNKNOWN),
        (("s", "yes"), None, UNKNOWN), (("ai", [1, 2]), None, UNKNOWN),
    ],
)  # fmt: skip
def test_network_manager_is_asked(bus: str, value: Any, expected: bool | None, confidence: Confidence) -> None:
    manager = Manager(bus, value)
    reading = ask_network_manager(1.0)
    manager.close()
    assert (reading.value, reading.confidence) == (expected, confidence)
    assert manager.asked == [("Get", "org.freedesktop.NetworkManager", "Metered")]


def test_the_network_probe_of_this_machine_tells_it(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xybridd.probes.network._METERED", Metered())
    manager = Manager(bus, ("u", 3))
    readings = [read_network(Tree(), now_s)["metered"] for now_s in (1.0, 11.0)]
    manager.close()
    assert [(reading.value, reading.taken_s) for reading in readings] == [(True, 1.0)] * 2
    assert len(manager.asked) == 1


def test_a_manager_that_is_not_there_is_not_started_and_said(bus: str) -> None:
    reading = ask_network_manager(1.0)
    assert bus
    assert reading.confidence is UNKNOWN
    assert "does not answer" in (reading.reason or "")


def test_a_manager_that_does_not_answer_costs_little(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "_ANSWER_S", 0.01)
    manager = Manager(bus, ("u", 1), mute=True)
    reading = ask_network_manager(1.0)
    manager.close()
    assert reading.confidence is UNKNOWN
    assert "the system bus" in (reading.reason or "")


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "junk", ""])
def test_a_bus_that_is_not_there_is_said(address: str) -> None:
    with environment(DBUS_SYSTEM_BUS_ADDRESS=address):
        reading = ask_network_manager(1.0)
    assert reading.confidence is UNKNOWN
    assert reading.reason


def test_without_jeepney_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with environment(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere/bus"):
        assert ask_network_manager(1.0).reason == metered.NO_JEEPNEY


def test_without_a_bus_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(metered, "_SOCKET", "/nowhere")
    monkeypatch.setattr(metered, "_ask", None)
    assert ask_network_manager(1.0).reason == metered.NO_BUS
