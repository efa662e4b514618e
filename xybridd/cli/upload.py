"""``xybridd upload``: what leaves this device, whether it does, and why not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from xybridd.cli.output import call, console, daemon, json_option, plain, print_json, progress, span
from xybridd.cli.upload_dead import dead
from xybridd.errors import XybriddError
from xybridd.paths import config_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xybridd.client.connection import Connection


@click.group()
def upload() -> None:
    """What leaves this device: see it, steer it.

    It is off until there is a key, a collector or a file to send to.

    \b
    Example:  xybridd upload status
    """


upload.add_command(dead)


@upload.command()
@json_option
def status(*, as_json: bool) -> None:
    """Say whether it is on, where it goes, what waits, and why.

    \b
    Example:  xybridd upload status --json
    """
    found = call("upload.status")
    if as_json:
        print_json(found)
        return
    from xybridd.cli.upload_page import page

    console().print(page(found, _config_path()))


def _config_path() -> str:
    files = config_files()
    return str(next((file for file in files if file.exists()), files[0]))


@upload.command()
@json_option
def pause(*, as_json: bool) -> None:
    """Send nothing until `xybridd upload resume`, also after a restart.

    What is to be sent is kept.

    \b
    Example:  xybridd upload pause
    """
    found = call("upload.pause")
    if as_json:
        print_json(found)
    elif found["state"] == "off":
        click.echo("paused; upload is off anyway")
    else:
        click.echo(f"paused; {_waiting(found)} exports wait; go on with: xybridd upload resume")


@upload.command()
@json_option
def resume(*, as_json: bool) -> None:
    """Send again after `xybridd upload pause`.

    \b
    Example:  xybridd upload resume
    """
    found = call("upload.resume")
    if as_json:
        print_json(found)
    elif found["state"] == "off":
        click.echo(f"not paused any more, but upload is off: {found['reason']}")
    else:
        click.echo(f"goes on; {_waiting(found)} exports wait; see: xybridd upload status")


def _waiting(found: dict[str, Any]) -> str:
    return f"{sum(sink['queued'] for sink in found['sinks']):,}"


# Now


@upload.command()
@click.option("--no-wait", is_flag=True, help="Say so to the daemon, and do not wait for what comes of it.")
@json_option
def now(*, no_wait: bool, as_json: bool) -> int:
    """Send what waits, whatever it waits for, until all was tried.

    Exit code 1 when something could not be delivered. Ctrl-C ends the waiting, not the sending.

    \b
    Example:  xybridd upload now
    """
    connection = daemon()
    try:
        before = connection.call("upload.status")
        _check_on(before)
        connection.call("upload.now")
        if no_wait:
            if as_json:
                print_json(before)
            else:
                click.echo(f"{_waiting(before)} exports are being sent; see: xybridd upload status")
            return 0
        drains = [_Drain(sink) for sink in before["sinks"] if sink["queued"]]
        after = _wait(connection, drains, quiet=as_json) if drains else before
    finally:
        connection.close()
    return _sum_up(drains, after, as_json=as_json)


def _check_on(found: dict[str, Any]) -> None:
    if found["state"] == "off":
        raise XybriddError(f"upload is off: {found['reason']}; see: xybridd upload status")
    if found["state"] == "paused":
        raise XybriddError("upload is paused; go on with: xybridd upload resume")


class _Drain:
    """What waited for one sink when the command began, and what has become of it."""

    def __init__(self, before: dict[str, Any]) -> None:
        self.sink: str = before["sink"]
        self.total: int = before["queued"]
        self.left = self.total
        self.delivered = self.dead = 0
        self.done = False
        self.failure: str | None = None
        self.doing = ""
        self._before = before

    def look(self, found: dict[str, Any]) -> None:
        """By the status as it is now."""
        now = next((each for each in found["sinks"] if each["sink"] == self.sink), None)
        if now is None:
            self._fail("it is not on any more")
            return
        self.delivered = now["delivered"] - self._before["delivered"]
        self.dead = max(0, now["dead"] - self._before["dead"])
        # What is made meanwhile stands behind it, and is not waited for.
        self.left = max(0, min(now["queued"], self._before["made"] - (now["made"] - now["queued"])))
        self.doing = "waits for its turn" if now["state"] == "waiting" and now["next_attempt_in_s"] else now["state"]
        failed = now["failures"] > 0 and now["last_error_at_ms"] != self._before["last_error_at_ms"]
        if self.left == 0:
            self.done = True
        elif now["state"] == "paused":
            self._fail("it was paused")
        elif now["state"] == "blocked" or (failed and now["state"] != "sending"):
            self._fail(now["last_error"], now["next_attempt_in_s"])

    def _fail(self, reason: str, next_in_s: float | None = None) -> None:
        again = "" if next_in_s is None else f"; tried again by itself in {span(next_in_s + 0.999)}"
        self.done, self.failure = True, f"{reason}{again}"


def _looks(connection: Connection) -> Iterator[dict[str, Any]]:
    """The status again and again, at first often: most of the time there is little to send."""
    pause_s = 0.05
    while True:
        yield connection.call("upload.status")
        time.sleep(pause_s)
        pause_s = min(1.0, pause_s * 1.3)


def _wait(connection: Connection, drains: list[_Drain], *, quiet: bool) -> dict[str, Any]:
    """Until each is drained or has failed; the last status."""
    found: dict[str, Any] = {}
    with progress() as bar:
        tasks = {each.sink: bar.add_task(each.sink, total=each.total, visible=not quiet) for each in drains}
        said: dict[str, int] = {}
        for found in _looks(connection):
            for each in drains:
                if each.done:
                    continue
                each.look(found)
                doing = f"{each.sink}: {each.doing}"
                bar.update(tasks[each.sink], description=doing, completed=each.total - each.left)
                if bar.disable and not quiet and said.get(each.sink, each.total) != each.left:
                    click.echo(f"{each.sink}: {each.total - each.left:,} of {each.total:,}")
                said[each.sink] = each.left
            if all(each.done for each in drains):
                break
    return found


def _sum_up(drains: list[_Drain], after: dict[str, Any], *, as_json: bool) -> int:
    ill = any(each.failure or each.dead for each in drains)
    if as_json:
        told = [
            {
                "sink": each.sink,
                "delivered": each.delivered,
                "dead": each.dead,
                "left": each.left,
                "failure": each.failure,
            }
            for each in drains
        ]
        print_json({"sinks": told, "status": after})
        return int(ill)
    out = console()
    if not drains:
        out.print("nothing waits to be sent")
    for each in drains:
        line = f"[{'red' if each.failure else 'green'}]●[/] {each.sink}: {each.delivered:,} delivered"
        if each.dead:
            line += f", [red]{each.dead:,} refused for good[/], see: xybridd upload dead list"
        if each.failure:
            line += f", {each.left:,} left: {plain(each.failure)}"
        out.print(line)
    return int(ill)
