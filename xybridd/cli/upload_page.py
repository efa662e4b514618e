"""How uploading looks: each sink with what it does, why, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xybridd.cli.output import clock_time, plain, span

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

#: What has become of an export, in the order in which it is told; the first two always are.
_ENDS = ("delivered", "queued", "superseded", "dead", "evicted", "forgotten")

_COLOURS = {"idle": "green", "sending": "green", "blocked": "red", "retrying": "yellow"}

_NOW = "xybridd upload now"


def balance(tally: dict[str, Any]) -> str:
    """A sink's line of the ledger; what is nothing is left out."""
    parts = [f"{tally[name]:,} {name}" for name in _ENDS if tally[name] or name in _ENDS[:2]]
    return f"{tally['made']:,} made = {' + '.join(parts)}"


def in_a_line(upload: dict[str, Any]) -> str:
    """On and where to, or off and why."""
    if not upload["sinks"]:
        return f"{upload['state']}: {plain(upload['reason'] or 'nothing is configured')}"
    lines = []
    for sink in upload["sinks"]:
        dead = f", [red]{sink['dead']:,} dead[/]" if sink["dead"] else ""
        trouble = "red" if sink["state"] == "blocked" else "yellow" if sink["state"] == "retrying" else ""
        state = f"[{trouble}]{sink['state']}[/]" if trouble else sink["state"]
        lines.append(f"{state}, {sink['queued']:,} to send{dead} → {sink['sink']} {plain(sink['endpoint'])}")
    return "\n".join(lines)


def page(upload: dict[str, Any], config_path: str) -> Group:
    from rich.console import Group
    from rich.text import Text

    state = upload["state"]
    colour = {"on": "green", "paused": "yellow"}.get(state, "dim")
    reason = f": {plain(upload['reason'])}" if upload["reason"] and not upload["problems"] else ""
    parts: list[Any] = [Text.from_markup(f"[{colour}]●[/] upload is [{colour}]{state}[/]{reason}")]
    if state == "paused":
        parts.append("It goes on with: xybridd upload resume")
    parts += [Text.from_markup(f"[red]{plain(problem)}[/]") for problem in upload["problems"]]
    if not upload["sinks"]:
        parts += ["Nothing leaves this device.", *_how_to_switch_on(config_path, upload["reason"] or "")]
    for sink in upload["sinks"]:
        parts += ["", _block(sink)]
    for name, tally in upload["not_configured"].items():
        parts.append(
            Text.from_markup(
                f"\n[yellow]{tally['queued']:,} exports wait for {name}, which is not on[/]; they go when it is"
            )
        )
    return Group(*parts)


def _block(sink: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(overflow="fold")
    table.add_row(f"[not dim bold]{sink['sink']}[/]", plain(sink["endpoint"]))
    colour = _COLOURS.get(sink["state"], "bold")
    table.add_row("", f"[{colour}]{sink['state']}[/]: {_why(sink)}")
    if sink["last_error"]:
        at = clock_time(sink["last_error_at_ms"])
        table.add_row("last error", f"[red]{plain(sink['last_error'])}[/] [dim]at {at}[/]")
    if sink["last_success_at_ms"]:
        table.add_row("last sent", clock_time(sink["last_success_at_ms"]))
    table.add_row("exports", balance(sink))
    for advice in _advice(sink):
        table.add_row("to do", advice)
    return table


def _why(sink: dict[str, Any]) -> str:
    """After the word for its state."""
    next_in = "" if sink["next_attempt_in_s"] is None else f"next try in {span(sink['next_attempt_in_s'] + 0.999)}"
    reason, many = plain(sink["reason"] or ""), ""
    if sink["failures"] > 1:
        many = f", {sink['failures']} failures in a row"
    says = {
        "idle": "everything was sent" if sink["made"] else "nothing was made to send yet",
        "paused": f"{sink['queued']:,} to send",
        "sending": f"{sink['in_flight']:,} of {sink['queued']:,}",
        "holding": f"{sink['queued']:,} to send, but {reason}",
        "waiting": f"{sink['queued']:,} to send; " + (f"{reason}; {next_in}" if next_in else "at once"),
    }
    return says.get(sink["state"], f"{sink['queued']:,} to send, {next_in}{many}")


def _advice(sink: dict[str, Any]) -> list[str]:
    """What a person can do about it, each with a command."""
    advice = []
    match sink["state"]:
        case "holding":
            advice.append(f"to send all the same: {_NOW}")
        case "blocked" | "retrying":
            advice.append(_mending(sink))
        case _:
            pass
    if sink["dead"]:
        letters = "an export was" if sink["dead"] == 1 else f"{sink['dead']:,} exports were"
        advice.append(f"{letters} refused for good; look: xybridd upload dead list")
    return advice


def _mending(sink: dict[str, Any]) -> str:
    """What the error's own sentence does not say."""
    status = sink["last_status"]
    if status in {401, 403}:
        where = "\\[otlp] headers_file" if sink["sink"] == "otlp" else "the API key"
        return f"check {where}, and that the receiver knows it; then: {_NOW}"
    if status == 404:
        return f"check the endpoint: the receiver has no such address; then: {_NOW}"
    if sink["state"] == "blocked":
        return f"mend that; then: {_NOW}"
    return f"nothing; or, to try at once: {_NOW}"


def _how_to_switch_on(config_path: str, reason: str) -> list[Any]:
    from rich.table import Table
    from rich.text import Text

    if "environment" in reason:
        return ["To switch it on, take the variable out of the daemon's environment and start it again."]
    if "enabled" in reason:
        return [Text(f"To switch it on, set enabled = true under [upload] in {config_path}.\n{_APPLY}")]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    beside = config_path.rpartition("/")[0]
    table.add_row("xybrid", plain(f"put your API key into {beside}/api-key and run: chmod 600 {beside}/api-key"))
    table.add_row("otlp", plain('[otlp] endpoint = "http://localhost:4318"  (an OpenTelemetry Collector)'))
    table.add_row("file", plain('[file] path = "/media/stick/exports.jsonl"  (for a device without a network)'))
    return [Text(f"To switch it on, one or more of these; the last two go into {config_path}:"), table, _APPLY]


_APPLY = "The daemon applies it when it is started again, or sent SIGHUP. To look first: xybridd export --preview"
