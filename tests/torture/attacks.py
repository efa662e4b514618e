"""Every attack, in one table: its name, how often it comes, and what it does.

An attack leaves the daemon in whatever state it likes; the campaign revives it, and then all must be well again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.torture import on_clients, on_copies, on_disk, on_process, tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.arena import Arena


@dataclass(frozen=True)
class Attack:
    name: str
    #: How often it comes, beside the others.
    weight: int
    run: Callable[[Arena], None]
    #: Whether it needs to trace the daemon.
    traces: bool = False


ATTACKS = (
    Attack("kill", 6, on_process.kill),
    Attack("kill while starting", 3, on_process.kill_while_starting),
    Attack("kill at a call of a commit", 8, on_process.kill_at_commit_call, traces=True),
    Attack("kill at a call of an opening", 4, on_process.kill_at_opening_call, traces=True),
    Attack("senders killed", 2, on_process.kill_senders),
    Attack("freeze", 2, on_process.freeze),
    Attack("restart storm", 2, on_process.restart_storm),
    Attack("two daemons", 2, on_process.two_daemons),
    Attack("kill while it forgets and vacuums", 3, on_process.kill_while_forgetting, traces=True),
    Attack("kill in a migration", 2, on_copies.kill_in_migration, traces=True),
    Attack("kill in a salvage", 2, on_copies.kill_in_salvage, traces=True),
    Attack("disk errors", 8, on_disk.errors, traces=True),
    Attack("disk errors, and a kill", 4, on_disk.errors_and_kill, traces=True),
    Attack("disk errors while it opens", 3, on_disk.errors_while_opening, traces=True),
    Attack("clients killed", 4, on_clients.killed),
    Attack("clients frozen", 2, on_clients.frozen),
    Attack("clients that leave", 3, on_clients.leaving),
    Attack("frozen in the middle of a line", 2, on_clients.half_lines),
    Attack("a thousand connections", 1, on_clients.thousand),
    Attack("slow readers", 2, on_clients.slow_readers),
    Attack("flood", 2, on_clients.flood),
    Attack("hostile client", 3, on_clients.hostile),
)


def permitted() -> tuple[list[Attack], str]:
    """Those that may be carried out here, and why the others may not."""
    why = tracing.permitted()
    return [attack for attack in ATTACKS if not (why and attack.traces)], why
