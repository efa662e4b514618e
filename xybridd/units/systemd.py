"""What systemd is asked for, as plans.

The order matters in two places. The user and the group must be there before the socket is made for them; and the
service stops before its socket does, or systemd would start it again for a client that comes meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from xybridd.units.plan import Facts, Plan, Remove, RemoveFolder, Run, Step, reconcile, removable, unstamped
from xybridd.units.shipped import shipped, unit_for

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "xybridd.service"
SOCKET = "xybridd.socket"
ACCOUNT = "xybridd"
GROUP = "xybrid"
CONFIG_FOLDER = "/etc/xybridd"
KEY_FILE = f"{CONFIG_FOLDER}/api-key"
_RUNTIME_FOLDER = "/run/xybridd"
_SYSUSERS = "/etc/sysusers.d/xybridd.conf"

Verb = Literal["start", "stop", "restart"]


def unit_folder(facts: Facts) -> str:
    return "/etc/systemd/system" if facts.scope == "system" else f"{facts.home}/.config/systemd/user"


def wanted(facts: Facts) -> dict[str, str]:
    """Every file that an installation has, without the line that says who wrote it."""
    from_folder = "systemd" if facts.scope == "system" else "systemd/user"
    folder = unit_folder(facts)
    files = {
        f"{folder}/{SOCKET}": shipped(f"{from_folder}/{SOCKET}"),
        f"{folder}/{SERVICE}": unit_for(shipped(f"{from_folder}/{SERVICE}"), facts.command),
    }
    if facts.scope == "system":
        files[_SYSUSERS] = shipped("systemd/xybridd.sysusers.conf")
    return files


def install(facts: Facts, *, force: bool = False) -> Plan:
    files = wanted(facts)
    writes, kept = reconcile(files, facts, force=force)
    if kept:
        return Plan(kept=tuple(kept))
    steps: list[Step] = [*writes]
    if facts.scope == "system" and (writes or not facts.account):
        steps.append(Run(("systemd-sysusers", _SYSUSERS)))
    if writes:
        steps.append(_systemctl(facts, "daemon-reload"))
    steps.append(_systemctl(facts, "enable", "--quiet", SOCKET, SERVICE))
    steps.append(_brought_up(facts, {write.path for write in writes}, files))
    return Plan(tuple(steps), notes=_notes_on_install(facts))


def _brought_up(facts: Facts, written: set[str], files: Mapping[str, str]) -> Run:
    """The new service behind the old socket where that can be, so that no client notices."""
    socket_path, service_path = (f"{unit_folder(facts)}/{name}" for name in (SOCKET, SERVICE))
    socket_there = facts.files.get(socket_path)
    if socket_there is not None and unstamped(socket_there)[0] != files[socket_path]:
        return _systemctl(facts, "restart", SOCKET, SERVICE)
    if service_path in written and service_path in facts.files:
        return _systemctl(facts, "restart", SERVICE)
    return _systemctl(facts, "start", SOCKET, SERVICE)


def _notes_on_install(facts: Facts) -> tuple[str, ...]:
    if facts.scope == "system":
        return (
            f"who may record: root, and the members of the group {GROUP}: usermod -aG {GROUP} USER",
            f"to send it on: the API key in {KEY_FILE}, chmod 600, then: xybridd service restart --system",
            f"the config, if there is to be one: {CONFIG_FOLDER}/config.toml; the data: {facts.data}",
        )
    if facts.lingers is False:
        return (f"it stops when you log out; to have it run from boot on: loginctl enable-linger {facts.user}",)
    return ()


def uninstall(facts: Facts, *, force: bool = False) -> Plan:
    removals, kept = removable(wanted(facts), facts, force=force)
    there = bool(removals or kept)
    steps: list[Step] = []
    if there:
        steps.append(_systemctl(facts, "disable", "--now", "--quiet", SERVICE, SOCKET, may_fail=True))
    steps += removals
    if facts.scope == "system":
        steps += _traces_of_system(facts, there=there, kept=bool(kept))
    elif there:
        folder = unit_folder(facts)
        socket = f"/run/user/{facts.uid}/xybridd"
        steps += [Remove(f"{socket}/xybridd.sock"), RemoveFolder(socket)]
        steps += [RemoveFolder(f"{folder}/{name}.wants") for name in ("default.target", "sockets.target")]
        steps += [RemoveFolder(path) for path in (folder, folder.removesuffix("/user"), f"{facts.home}/.config")]
    if removals:
        steps += [
            _systemctl(facts, "daemon-reload", may_fail=True),
            _systemctl(facts, "reset-failed", SERVICE, SOCKET, may_fail=True),
        ]
    return Plan(tuple(steps), tuple(kept), _notes_on_uninstall(facts, there=there or facts.account, steps=steps))


def _traces_of_system(facts: Facts, *, there: bool, kept: bool) -> list[Step]:
    steps: list[Step] = []
    if there:
        steps += [Remove(f"{_RUNTIME_FOLDER}/xybridd.sock"), Remove(f"{_RUNTIME_FOLDER}/xybridd.sock.lock")]
        steps += [RemoveFolder(_RUNTIME_FOLDER), RemoveFolder(CONFIG_FOLDER), RemoveFolder("/etc/sysusers.d")]
    if facts.account and not kept:
        if facts.data_there:
            # The next user with that number must not find the data its own.
            steps.append(Run(("chown", "-R", "-h", "root:root", facts.data)))
        steps.append(Run(("userdel", ACCOUNT)))
        # Where userdel took the group of the same name along, there is none any more.
        steps += [Run(("groupdel", ACCOUNT), may_fail=True), Run(("groupdel", GROUP), may_fail=True)]
    return steps


def _notes_on_uninstall(facts: Facts, *, there: bool, steps: list[Step]) -> tuple[str, ...]:
    notes = [] if there else ["it is not installed"]
    if facts.data_there:
        notes.append(f"the data stays: {facts.data}; to delete it: rm -r {_quoted(facts.data)}")
    if facts.others and there:
        notes.append(f"these are yours and stay: {', '.join(facts.others)}")
    if facts.members and any(isinstance(step, Run) and step.command[0] == "groupdel" for step in steps):
        notes.append(f"the group {GROUP} had these members: {', '.join(facts.members)}")
    return tuple(notes)


def steer(facts: Facts, verb: Verb) -> Plan:
    """Stopping stops the socket too: else the next client would start the service again."""
    units = (SERVICE, SOCKET) if verb == "stop" else (SOCKET, SERVICE) if verb == "start" else (SERVICE,)
    return Plan((_systemctl(facts, verb, *units),))


def logs(facts: Facts, lines: int, *, follow: bool) -> tuple[str, ...]:
    # --user-unit reads wherever the journal has it; --user only the user's own files, which there are not always.
    unit = ("--unit", SERVICE) if facts.scope == "system" else ("--user-unit", SERVICE)
    return ("journalctl", *unit, "--lines", str(lines), *(("--follow",) if follow else ("--no-pager",)))


#: What `systemctl show` is asked for.
PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result", "FragmentPath",
    "MemoryCurrent", "ActiveEnterTimestamp", "StatusText",
)  # fmt: skip


def question(facts: Facts, unit: str) -> tuple[str, ...]:
    return (*_systemctl(facts, "show", unit, "--property", ",".join(PROPERTIES)).command,)


def answer(text: str) -> dict[str, str]:
    """What `systemctl show` prints: a ``Name=value`` a line."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if equals}


def _systemctl(facts: Facts, *words: str, may_fail: bool = False) -> Run:
    return Run(("systemctl", *(("--user",) if facts.scope == "user" else ()), *words), may_fail)


def _quoted(path: str) -> str:
    return path if path.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum() else f"'{path}'"
