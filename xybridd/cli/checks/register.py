"""Every check, in the order in which it is shown; each is left behind when it hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xybridd.cli.checks import clients, clock, config, daemon, device, service, socket, storage, upload
from xybridd.cli.checks.scene import look_around
from xybridd.cli.checks.within import TooLong, within
from xybridd.core.health.finding import Finding, Topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.cli.checks.scene import Scene


class Check(NamedTuple):
    """``limit_s``: after so long it is left behind, and that is the finding."""

    name: str
    look: Callable[[Scene], list[Finding]]
    limit_s: float = 10.0


CHECKS: tuple[Check, ...] = (
    Check("daemon", daemon.look),
    Check("socket", socket.look),
    Check("clients", clients.look),
    Check("service", service.look),
    Check("data folder", storage.look_at_folder),
    Check("database", storage.look_at_database, 40.0),
    Check("clock", clock.look),
    Check("config", config.look),
    Check("upload", upload.look, 20.0),
    Check("spool", upload.look_at_spool),
    Check("GPU", device.look),
)


def examine() -> list[Finding]:
    """All findings, in the order of `CHECKS`."""
    scene = look_around()
    return [finding for check in CHECKS for finding in _carry_out(check, scene)]


def _carry_out(check: Check, scene: Scene) -> list[Finding]:
    topic = Topic(check.name, "what cannot be looked at may be what is wrong")
    try:
        return within(check.limit_s, lambda: check.look(scene))
    except TooLong:
        return [topic.problem(f"looking at it took more than {check.limit_s:g} s", "xybridd bugreport")]
    except Exception as error:  # noqa: BLE001 - one check that fails must not keep the others from being seen
        return [topic.unknown(f"could not be looked at: {type(error).__name__}: {error}", "xybridd bugreport")]
