"""``xybridd service``: installed, started and looked at as a service of the system or of one user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from xybridd.cli.output import json_option, print_json, say_done
from xybridd.errors import PermissionDenied, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xybridd.units.plan import Facts, Kept, Plan, Scope
    from xybridd.units.systemd import Verb


def _scope_option(command: Callable[..., Any]) -> Callable[..., Any]:
    system = click.option("--system", "scope", flag_value="system", help="One for the whole system; as root.")
    user = click.option("--user", "scope", flag_value="user", default="user", help="One for you alone (the default).")
    return user(system(command))


_dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be written and run.")
_force_option = click.option("--force", is_flag=True, help="Also replace or remove files that were changed by hand.")


@click.group()
def service() -> None:
    """Have the daemon run as a service, of yours or of the system.

    \b
    Example:  xybridd service install                  (on a laptop, for you)
              sudo xybridd service install --system    (on a device, for all)
    """


@service.command()
@_scope_option
@_dry_run_option
@_force_option
@json_option
def install(scope: Scope, *, dry_run: bool, force: bool, as_json: bool) -> None:
    """Write the units, start the daemon, and have it start at boot (or at your login).

    Doing it again changes nothing; after an upgrade it puts the new version in place. A unit that was changed by hand
    is kept, and the difference shown.

    \b
    Example:  xybridd service install --dry-run
    """
    from xybridd.units import launchd, systemd
    from xybridd.units.observed import observe, obstacle_to_install, on_mac, surroundings

    facts = observe(scope)
    plan = (launchd if on_mac() else systemd).install(facts, force=force)
    if not dry_run and not on_mac() and (found := obstacle_to_install(scope, surroundings())):
        _permitted(scope, "install")
        raise ServiceError(found)
    if not dry_run and facts.key_is_open:
        raise ServiceError(f"others may read the key in {systemd.KEY_FILE}; run: chmod 600 {systemd.KEY_FILE}")
    if _carried_out(facts, plan, "install", dry_run=dry_run, as_json=as_json):
        where = " --system" if scope == "system" else ""
        say_done(f"xybridd runs as a service; see: xybridd service status{where}")


@service.command()
@_scope_option
@_dry_run_option
@_force_option
@json_option
def uninstall(scope: Scope, *, dry_run: bool, force: bool, as_json: bool) -> None:
    """Stop the daemon and take away all that was installed, but for the data.

    \b
    Example:  xybridd service uninstall
    """
    from xybridd.units import launchd, systemd
    from xybridd.units.observed import observe, on_mac

    facts = observe(scope)
    plan = (launchd if on_mac() else systemd).uninstall(facts, force=force)
    _carried_out(facts, plan, "uninstall", dry_run=dry_run, as_json=as_json)


@service.command()
@_scope_option
def start(scope: Scope) -> None:
    """Start it, and its socket.

    \b
    Example:  xybridd service start
    """
    _steer(scope, "start")


@service.command()
@_scope_option
def stop(scope: Scope) -> None:
    """Stop it, and its socket: nothing listens any more, until it is started or the machine boots.

    \b
    Example:  xybridd service stop
    """
    _steer(scope, "stop")


@service.command()
@_scope_option
def restart(scope: Scope) -> None:
    """Start it anew, as after an upgrade; the socket stays, and clients wait without an error.

    \b
    Example:  sudo xybridd service restart --system
    """
    _steer(scope, "restart")


@service.command()
@_scope_option
@json_option
def status(scope: Scope, *, as_json: bool) -> int:
    """Say whether it runs, since when, and whether its files are as they were written. Exit code 3: it does not run.

    \b
    Example:  xybridd service status --json
    """
    from xybridd.cli import service_page
    from xybridd.units.observed import on_mac, surroundings

    found = service_page.gather(scope) if not on_mac() else service_page.gather_on_mac(scope)
    if as_json:
        print_json(found)
    else:
        service_page.show(found, surroundings())
    return 0 if found["running"] else 3


@service.command()
@_scope_option
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="The last so many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they come.")
def logs(scope: Scope, lines: int, *, follow: bool) -> int:
    """Show what the daemon logged.

    \b
    Example:  xybridd service logs -f
    """
    from pathlib import Path

    from xybridd.units import launchd, systemd
    from xybridd.units.carry_out import hand_over
    from xybridd.units.observed import environment, observe, obstacle, on_mac, surroundings

    around = surroundings()
    env = environment(scope, around)
    if on_mac():
        return hand_over(launchd.logs(observe(scope), lines, follow=follow), env)
    if found := obstacle("system", around):
        raise ServiceError(found)
    if not any(Path(folder).is_dir() for folder in ("/var/log/journal", "/run/log/journal")):
        raise ServiceError("there is no journal here; is it running? systemctl status systemd-journald")
    return hand_over(systemd.logs(observe(scope), lines, follow=follow), env)


def _steer(scope: Scope, verb: Verb) -> None:
    from xybridd.units import launchd, systemd
    from xybridd.units.observed import observe, on_mac

    facts = observe(scope)
    if not facts.files:
        raise ServiceError(f"it is not installed; run: {_again('install', scope)}")
    _carried_out(facts, (launchd if on_mac() else systemd).steer(facts, verb), verb, dry_run=False, as_json=False)


def _carried_out(facts: Facts, plan: Plan, verb: str, *, dry_run: bool, as_json: bool) -> bool:
    """Whether it was done. What was changed by hand ends the command with exit code 1, when all else is done."""
    from xybridd.units.carry_out import carry_out
    from xybridd.units.observed import environment, obstacle, on_mac, surroundings

    if dry_run:
        _show_plan(plan, as_json=as_json)
    else:
        _permitted(facts.scope, verb)
        around = surroundings()
        if plan.steps and not on_mac() and (found := obstacle(facts.scope, around)):
            raise ServiceError(found)
        carry_out(plan, environment(facts.scope, around), click.echo)
    if plan.kept and not (dry_run and as_json):
        for kept in plan.kept:
            _show_kept(kept)
        _end_kept(facts.scope, verb)
    if not dry_run:
        for note in plan.notes:
            click.echo(note)
    return not dry_run


def _permitted(scope: Scope, verb: str) -> None:
    from xybridd.units.observed import surroundings

    if scope == "system" and surroundings().uid != 0:
        raise PermissionDenied(f"the system's service is root's; run: sudo {_again(verb, scope)}")


def _again(verb: str, scope: Scope) -> str:
    from xybridd.units.observed import command

    return " ".join((*command(), "service", verb, *(("--system",) if scope == "system" else ())))


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    import msgspec

    from xybridd.units.plan import Run, Write

    if as_json:
        print_json(msgspec.to_builtins(plan))
        return
    for step in plan.steps:
        if isinstance(step, Run):
            click.echo(f"run {' '.join(step.command)}")
        elif isinstance(step, Write):
            click.echo(f"write {step.path}\n")
            click.echo("".join(f"    {line}" if line.strip() else line for line in step.text.splitlines(keepends=True)))
        else:
            click.echo(f"remove {step.path}")
    for note in plan.notes:
        click.echo(f"say {note}")


def _show_kept(kept: Kept) -> None:
    click.echo(f"kept, since it was changed by hand: {kept.path}")
    click.echo(kept.difference, nl=False)


def _end_kept(scope: Scope, verb: str) -> NoReturn:
    raise ServiceError(
        f"what was changed by hand is kept; to have it gone: {_again(verb, scope)} --force (changes that last go into "
        f"a file of their own: systemctl {'--user ' if scope == 'user' else ''}edit xybridd)"
    )
