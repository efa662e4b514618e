"""``xybridd test``: a synthetic record end to end, with the time of each step.

It is recorded under an app and a model of its own, so that nobody's figures are touched, and deleted again. Without
``--upload`` it never leaves the device: where an upload is configured, the session is deleted while it is still open,
so that no export of it is ever made.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from xybridd import __version__
from xybridd.cli.output import daemon, json_option, ms, print_json
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xybridd.client.connection import Connection

APP = "xybridd-test"

_POLL_S = 0.05

#: What may be done about a step that failed.
_RESTART = "see xybridd status; if the daemon is of another version than this command: xybridd service restart"
_DISK = "see xybridd status: it says what the disk refuses"
_LEDGER = "see xybridd status for the ledger, and send: xybridd bugreport"
_UPLOAD = "see xybridd upload status: it says why, and what mends it"


class Step(NamedTuple):
    """``took_ms`` is None when it failed; then ``said`` is why and ``do`` what to do."""

    name: str
    took_ms: float | None
    said: str
    do: str | None = None


class _Failed(Exception):
    """What was found is not what it should be."""


@click.command()
@click.option("--upload", is_flag=True, help="Have it sent to where it is configured, too.")
@click.option("--keep", is_flag=True, help="Leave the session there, to look at.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=30.0, show_default=True,
    help="Seconds that an upload may take.",
)  # fmt: skip
@json_option
def test(*, upload: bool, keep: bool, timeout_s: float, as_json: bool) -> int:
    """Send a synthetic record end to end, and show the time of each step.

    It is recorded as the app xybridd-test, so that nobody's figures are touched, and deleted again unless --keep. With
    --upload it is sent too (its deletion, afterwards, asks the receiver to delete it); without, it stays here.

    \b
    Example:  xybridd test --upload
    """
    started_s = time.monotonic()
    connection = daemon()
    steps = [Step("connect", _ms_since(started_s), "")]
    if not as_json:
        _show(steps[0])
    trial = _Trial(connection, upload=upload, keep=keep, timeout_s=timeout_s)
    try:
        for step in trial.run():
            steps.append(step)
            if not as_json:
                _show(step)
    finally:
        connection.close()
    failed = steps[-1] if steps[-1].took_ms is None else None
    if as_json:
        print_json(
            {
                "ok": failed is None,
                "app": APP,
                "session_id": trial.session_id,
                "kept": trial.is_there,
                "steps": [
                    {"step": each.name, "ok": each.took_ms is not None, "ms": each.took_ms, "said": each.said,
                     "do": each.do}
                    for each in steps
                ],
            }
        )  # fmt: skip
    elif failed is None:
        where = (
            f"it is kept: xybridd sessions show {trial.session_id[:8]}" if trial.is_there else "nothing of it is left"
        )
        durable = next(each.took_ms for each in steps if each.name == "record")
        click.echo(f"all is well: a record is on disk in {ms(durable)} ms; {where}")
    return 0 if failed is None else 1


def _ms_since(started_s: float) -> float:
    return round((time.monotonic() - started_s) * 1000, 3)


def _show(step: Step) -> None:
    failed = step.took_ms is None
    mark = click.style("✗", fg="red") if failed else click.style("✓", fg="green")
    click.echo(f"{mark} {step.name:<11}{'' if failed else ms(step.took_ms) + ' ms':>12}  {step.said}".rstrip())
    if step.do is not None:
        click.echo(f"  what to do: {step.do}")


class _Trial:
    """The steps behind the connection, in their order."""

    def __init__(self, connection: Connection, *, upload: bool, keep: bool, timeout_s: float) -> None:
        self._connection = connection
        self._upload = upload
        self._keep = keep
        self._timeout_s = timeout_s
        self._configured = False
        self._made_before: dict[str, int] = {}
        self.session_id = str(uuid.uuid4())
        #: Whether the session is in the daemon now.
        self.is_there = False

    def run(self) -> Iterator[Step]:
        """Each step when it is done; one that fails is the last, and what was made is deleted."""
        for name, carry_out, do in self._steps():
            started_s = time.monotonic()
            try:
                said = carry_out()
            except (XybriddError, _Failed) as error:
                self._clear_away()
                yield Step(name, None, str(error), do)
                return
            yield Step(name, _ms_since(started_s), said)

    def _steps(self) -> Iterator[tuple[str, Callable[[], str], str]]:
        yield "hello", self._hello, _RESTART
        if self._upload:
            yield "configured", self._is_on, _UPLOAD
        yield "session", self._start, _DISK
        yield "record", self._record, _DISK
        yield "read back", self._read_back, _LEDGER
        yield "ledger", self._ledger, _LEDGER
        yield "export", self._export, _LEDGER
        if self._upload or self._keep or not self._configured:
            yield "end", self._end, _DISK
        if self._upload:
            yield "upload", self._sent, _UPLOAD
        if not self._keep:
            yield "forget", self._forget, _DISK

    def _call(self, method: str, **params: Any) -> Any:
        return self._connection.call(method, params)

    def _hello(self) -> str:
        found = self._call("hello", app=APP, app_version=__version__, client_id=str(uuid.uuid4()))
        self._configured = bool(self._call("upload.status")["sinks"])
        version = found["daemon_version"]
        other = f", this command is {__version__}" if version != __version__ else ""
        return f"daemon {version}{other}, protocol {found['protocol']}"

    def _is_on(self) -> str:
        upload = self._call("upload.status")
        if upload["state"] != "on":
            raise _Failed(f"upload is {upload['state']}: {upload['reason'] or 'xybridd upload resume lets it go on'}")
        self._made_before = {each["sink"]: each["made"] for each in upload["sinks"]}
        return ", ".join(f"{each['sink']} {each['endpoint']}" for each in upload["sinks"])

    def _start(self) -> str:
        self._call("session.start", session_id=self.session_id, labels={"synthetic": "true"})
        self.is_there = True
        return f"{self.session_id[:8]}, app {APP}"

    def _record(self) -> str:
        record = {"type": "inference", "model_id": APP, "version": "1", "latency_ms": 1.0}
        self._call("record.batch", seq=1, records=[record], flush=True)
        return "on disk"

    def _read_back(self) -> str:
        found = self._call("session.get", session_id=self.session_id)
        if found["total_inferences"] != 1 or f"{APP}@1" not in found["by_model"]:
            raise _Failed(f"1 call was recorded, and {found['total_inferences']} are there")
        return "1 call, as it was sent"

    def _ledger(self) -> str:
        ledger = self._call("daemon.status")["ledger"]
        told = ledger["counted"] + ledger["duplicates"] + sum(ledger["rejected"].values())
        if told != ledger["received"]:
            raise _Failed(f"{ledger['received']:,} records were received, and {told:,} are accounted for")
        return f"{ledger['received']:,} received, all accounted for"

    def _export(self) -> str:
        found = self._call("session.export", session_id=self.session_id)
        if found["metrics"]["total_inferences"] != 1:
            raise _Failed("the export does not hold the call")
        return f"a TelemetryExport {found['version']} of it is sound"

    def _end(self) -> str:
        self._call("session.end", session_id=self.session_id)
        return "" if self._upload or not self._configured else "its export waits to be sent, as any other"

    def _sent(self) -> str:
        """Wait until every sink that is on has what was queued for it, this session's export with it."""
        self._call("upload.now")
        ends_s = time.monotonic() + self._timeout_s
        while True:
            sinks = self._call("upload.status")["sinks"]
            dead = [each for each in self._call("upload.dead.list")["dead"] if each["session_id"] == self.session_id]
            if dead:
                raise _Failed(f"{dead[0]['sink']} will never take it: {dead[0]['reason']}")
            waiting = [each for each in sinks if each["queued"]]
            if not waiting and any(each["made"] > self._made_before.get(each["sink"], 0) for each in sinks):
                return "; ".join(f"accepted by {each['sink']} {each['endpoint']}" for each in sinks)
            if time.monotonic() >= ends_s:
                why = "; ".join(
                    f"{each['sink']} is {each['state']}: {each['last_error'] or each['reason'] or 'it takes longer'}"
                    for each in waiting
                )
                raise _Failed(f"not accepted within {self._timeout_s:g} s; {why}")
            time.sleep(_POLL_S)

    def _forget(self) -> str:
        asked = self._call("data.forget", session_id=self.session_id)["deletion_requests"]
        self.is_there = False
        if asked:
            return "deleted here; who has it is asked to delete it"
        return "deleted"

    def _clear_away(self) -> None:
        """After a failure: nothing of it should stay."""
        if not self.is_there or self._keep:
            return
        try:
            self._forget()
        except XybriddError:
            return
