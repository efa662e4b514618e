"""The sections of the page: figures in, HTML out. Each has a key, by which a live page replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xybridd.report import charts, conditions_section, device_section, history, text
from xybridd.report.text import esc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from xybridd.core.report.figures import Report

#: The columns of interrupted calls.
_INTERRUPTED = ("Model", "App", "Running for", "Session ended", "Session")

#: What a whole table shows of models and errors of one category.
_MODELS_NAMED = 4


def sections(report: Report) -> dict[str, str]:
    """By key, in the order of the page; ``covers`` and ``links`` stand above the others."""
    parts: dict[str, Callable[[Report], str]] = {"covers": covers, "links": links}
    parts |= {key: drawn for key, (_, drawn) in SECTIONS.items()} if not report.empty else {"empty": nothing_recorded}
    return {key: drawn(report) for key, drawn in parts.items()}


def links(report: Report) -> str:
    if report.empty:
        return ""
    return "".join(f'<li><a href="#{key}">{esc(name)}</a></li>' for key, (name, _) in SECTIONS.items() if name)


def covers(report: Report) -> str:
    """What the report is about."""
    clock, device = text.Clock(report), report.device
    length_ms = round((report.until_ms - report.since_ms) / 60_000) * 60_000
    machine = " · ".join(esc(each) for each in (device.machine, device.platform) if each)
    hardware = [f"{device.cpu_cores} CPU cores" if device.cpu_cores else None]
    hardware += [text.size(device.memory_total_bytes) + " memory" if device.memory_total_bytes else None]
    hardware += device.gpus + device.npus
    parts = [esc(each) for each in hardware if each]
    only = f" · only the app <strong>{esc(report.app)}</strong>" if report.app is not None else ""
    return (
        f"<p><strong>{clock.full(report.since_ms)}</strong> to <strong>{clock.full(report.until_ms)}</strong> "
        f"({text.span(length_ms)}, times in {esc(clock.name)}){only}</p>"
        f"<p>{machine or 'A device'}{' · ' if parts else ''}{' · '.join(parts)}</p>"
        f'<p class="dim">Device {esc(device.device_id)} · xybridd {esc(report.daemon_version)}, '
        f"{esc(report.daemon_state)} · made {clock.full(report.made_at_ms)}</p>"
    )


def nothing_recorded(report: Report) -> str:
    which = f" by the app {esc(report.app)}" if report.app is not None else ""
    return (
        f"<h2>Nothing was recorded{which} in this time</h2>"
        "<p>An app records with <code>xybridd.connect(app=…)</code>, without a change of its code with "
        "<code>xybridd.instrument(…)</code>, or a shell with:</p>"
        "<pre>xybridd record inference whisper-tiny 1.0 212</pre>"
        "<p>A longer time is asked for with <code>--since 30d</code>; <code>xybridd doctor</code> says whether the "
        "daemon is well.</p>"
    )


# Numbers


def numbers(report: Report) -> str:
    totals, latency = report.totals, report.totals.latency
    lost = f"{totals.lost:,} of {totals.sessions - totals.active:,} lost" if totals.lost else "none lost"
    cards = [
        ("Sessions", text.count(totals.sessions), f"{totals.active:,} still active"),
        ("Crash-free", text.percent(totals.crash_free_percent), lost),
        ("Calls", text.count(totals.calls), f"{totals.models:,} models"),
        ("Errors", text.percent(totals.error_percent), f"{totals.errors:,} errors"),
        ("Median", text.ms(latency.p50_ms if latency else None), "latency of all models"),
        ("p99", text.ms(latency.p99_ms if latency else None), "1 call in 100 took longer"),
    ]
    if totals.input_tokens is not None or totals.output_tokens is not None:
        into, out = text.count(totals.input_tokens), text.count(totals.output_tokens)
        cards.append(("Tokens out", out, f"{into} in"))
    cards += [("Energy", f"{text.number(energy.watt_hours)} Wh", energy.what) for energy in report.device.energy[:1]]
    return (
        '<h2 class="unseen">In numbers</h2><dl class="numbers">'
        + "".join(
            f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd><dd class='dim'>{esc(note)}</dd></div>"
            for name, value, note in cards
        )
        + "</dl>"
    )


# Errors, tokens, tables


def errors(report: Report) -> str:
    head = "<h2>Errors by category</h2>"
    if not report.errors:
        return f"{head}<p>No errors in this time.</p>" + _interrupted(report)
    most = max(each.count for each in report.errors)
    rows = []
    for each in report.errors:
        named = [
            f"{model or 'no model named'} ({amount:,})" for model, amount in list(each.models.items())[:_MODELS_NAMED]
        ]
        rest = len(each.models) - len(named)
        named += [f"{rest} more"] if rest > 0 else []
        rows.append(
            f'<tr><th scope="row">{esc(each.category)}</th><td class="bar">{charts.bar(each.count / most, "bad")}</td>'
            f'<td>{each.count:,}</td><td class="words">{esc(", ".join(named))}</td></tr>'
        )
    return (
        head
        + charts.scrolling(
            _table(("Category", "", "Errors", "Models that they named"), rows, words=True), "Errors by category"
        )
        + _interrupted(report)
    )


def _interrupted(report: Report) -> str:
    """The calls that were in progress when their process disappeared; nothing where there were none."""
    if not report.interrupted_calls:
        return ""
    clock, left = text.Clock(report), report.interrupted_left_out
    rows = [
        _row(
            text.model_name(each.model_id, each.version),
            each.app,
            text.running(each.running_ms),
            "still active" if each.ended_at is None else clock.full(each.ended_at),
            each.session_id[:8],
        )
        for each in report.interrupted_calls
    ]
    more = f"<p class='dim'>{left:,} more are not listed.</p>" if left else ""
    return (
        "<h3>Interrupted calls</h3><p class='dim'>Calls that had started when their process disappeared.</p>"
        + charts.scrolling(_table(_INTERRUPTED, rows), "Interrupted calls")
        + more
    )


def tokens(report: Report) -> str:
    head = "<h2>Tokens</h2>"
    saying = [model for model in report.models if model.input_tokens is not None or model.output_tokens is not None]
    if not saying:
        return f"{head}<p>No app said how many tokens went in or out (<code>input_tokens</code>, …).</p>"
    rows = [
        _row(
            model.name,
            text.count(model.input_tokens),
            text.count(model.output_tokens),
            text.number(model.tokens_per_second),
            text.ms(model.time_to_first_token.p50_ms if model.time_to_first_token else None),
            text.ms(model.time_to_first_token.p90_ms if model.time_to_first_token else None),
        )
        for model in saying
    ]
    columns = ("Model", "Tokens in", "Tokens out", "Tokens/s, mean", "First token, p50", "First token, p90")
    return head + history.tokens_chart(report) + charts.scrolling(_table(columns, rows), "Tokens by model")


def models(report: Report) -> str:
    cancelled = any(model.cancelled for model in report.models)
    rows = []
    for model in report.models:
        latency = model.latency
        used = ", ".join(f"{text.label(name)} {amount:,}" for name, amount in _most(model.hardware_used))
        where = ", ".join(f"{text.plain(name)} {amount:,}" for name, amount in _most(model.execution_target))
        rows.append(
            _row(
                model.name,
                f"{model.calls:,}",
                f"{model.errors:,}",
                text.percent(model.error_percent),
                *([f"{model.cancelled:,}"] if cancelled else []),
                *(
                    text.ms(getattr(latency, name) if latency else None)
                    for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")
                ),
                text.count(model.memory_peak_mb),
                used or text.NOT_KNOWN,
                where or text.NOT_KNOWN,
            )
        )
    columns = (
        "Model",
        "Calls",
        "Errors",
        "Error rate",
        *(["Cancelled"] if cancelled else []),
        "p50",
        "p90",
        "p99",
        "Max",
        "Memory, MB",
        "Hardware",
        "Ran where",
    )
    more = (
        f"<p class='dim'>{report.models_left_out:,} models with {report.calls_left_out:,} calls are not listed.</p>"
        if report.models_left_out
        else ""
    )
    return "<h2>Models</h2>" + charts.scrolling(_table(columns, rows), "Models") + more + _apps(report)


def _apps(report: Report) -> str:
    if len(report.apps) < 2:
        return ""
    rows = [_row(one.app, f"{one.calls:,}", f"{one.errors:,}") for one in report.apps]
    return "<h3>Apps</h3>" + charts.scrolling(_table(("App", "Calls", "Errors"), rows), "Apps")


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


_ENDS = {
    "client_lost": "lost: the app vanished", "ended": "ended", "idle": "idle", "rollover": "went on after a day",
    "reset": "reset", "device_restarted": "the device restarted",
}  # fmt: skip


def sessions(report: Report) -> str:
    clock = text.Clock(report)
    rows = []
    for one in report.sessions:
        ended = one.ended_at
        rows.append(
            _row(
                one.session_id[:8],
                one.app,
                clock.full(one.started_at),
                text.span((report.made_at_ms if ended is None else ended) - one.started_at),
                "active" if ended is None else _ENDS.get(one.end_reason or "", one.end_reason or ""),
                f"{one.total_inferences:,}",
                f"{one.error_count:,}",
                text.ms(float(one.avg_latency_ms)) if one.total_inferences else text.NOT_KNOWN,
                ", ".join(one.models_used[:_MODELS_NAMED]) + (", …" if len(one.models_used) > _MODELS_NAMED else ""),
            )
        )
    columns = ("Session", "App", "Started", "Lasted", "How it ended", "Calls", "Errors", "Mean", "Models")
    left = report.sessions_left_out
    which = (
        f"The latest {len(rows):,} of {len(rows) + left:,}"
        if left
        else f"All {len(rows):,}"
        if len(rows) > 1
        else "The only one"
    )
    order = ", newest first" if len(rows) > 1 else ""
    note = f"<p class='dim'>{which}{order}; calls and errors are those of the whole session.</p>"
    if not rows:
        return "<h2>Sessions</h2><p>None was open in this time.</p>"
    return "<h2>Sessions</h2>" + note + charts.scrolling(_table(columns, rows), "Sessions")


def _table(columns: Sequence[str], rows: Iterable[str], *, words: bool = False) -> str:
    """``words``: the last column holds words, which begin at the left."""
    unseen = '<span class="unseen">Share</span>'  # of a column of bars
    head = "".join(f'<th scope="col">{esc(each) or unseen}</th>' for each in columns[:-1])
    style = ' class="words"' if words else ""
    head += f'<th scope="col"{style}>{esc(columns[-1])}</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(*cells: str) -> str:
    return (
        f'<tr><th scope="row">{esc(cells[0])}</th>' + "".join(f"<td>{esc(cell)}</td>" for cell in cells[1:]) + "</tr>"
    )


# How it is made


def ledger(report: Report) -> str:
    found = report.ledger
    if not found:
        return "<h2>The ledger: nothing is lost unsaid</h2><p>The ledger was not read.</p>"
    rejected, removed = _amounts(found.get("rejected")), _amounts(found.get("removed"))
    records = (
        f"<p class='equation'>{_n(found, 'received')} records received = {_n(found, 'counted')} counted "
        f"+ {_n(found, 'duplicates')} duplicates + {sum(rejected.values()):,} rejected{_reasons(rejected)}</p>"
    )
    lines = [records]
    exports = found.get("exports")
    for sink, tally in exports.items() if isinstance(exports, dict) else ():
        terms = " + ".join(
            f"{_n(tally, name)} {name}"
            for name in ("delivered", "queued", "superseded", "dead", "evicted", "forgotten")
        )
        lines.append(f"<p class='equation'>{_n(tally, 'made')} exports made for {esc(sink)} = {terms}</p>")
    extra = [f"{sum(removed.values()):,} of the counted were removed since{_reasons(removed)}"] if removed else []
    for name, words in (
        ("missing_batches", "batches never came"),
        ("dropped_by_clients", "records were dropped by apps before they came"),
    ):
        extra += [f"{_n(found, name)} {words}"] if found.get(name) else []
    more = f"<p class='dim'>{esc('; '.join(extra))}.</p>" if extra else ""
    return (
        "<h2>The ledger: nothing is lost unsaid</h2><p>Of this device, since it was installed. Both sides are equal at "
        "any time, or it is a defect.</p>" + "".join(lines) + more
    )


def _amounts(given: object) -> dict[str, int]:
    return {str(name): int(amount) for name, amount in given.items()} if isinstance(given, dict) else {}


def _n(of: object, name: str) -> str:
    return f"{int(of.get(name, 0)):,}" if isinstance(of, dict) else "0"


def _reasons(amounts: dict[str, int]) -> str:
    named = ", ".join(f"{esc(name)} {amount:,}" for name, amount in amounts.items() if amount)
    return f" ({named})" if named else ""


def made_of(report: Report) -> str:
    return (
        "<h2>How these numbers are made</h2><ul>"
        "<li>Every call is counted, none is sampled. Latencies go into exponential histograms (OpenTelemetry's, "
        "scale 5), which merge without loss: a percentile here is that of all calls, within 1.1 %.</li>"
        f"<li>Heat, power source and hardware are those at the time of the call. A state with fewer than "
        f"{report.enough_calls} calls is not compared. Differences within 5 % count as none.</li>"
        "<li>“With all else alike” compares calls that were alike in the two other conditions, so that a charger "
        "pulled or a model moved to the CPU is not blamed on heat.</li>"
        "<li>What is older than two days is kept by the hour. The device is sampled once a minute while something is "
        "recorded; of older samples one an hour is kept.</li>"
        "<li>Crash-free: of the sessions that ended, the share whose app did not vanish without ending it "
        "(<code>client_lost</code>, most often the kernel's out-of-memory killer).</li>"
        "<li>Error rate: errors in a hundred attempts, an attempt being a call or an error.</li>"
        "</ul>"
    )


#: Key, the word that leads to it, and what draws it; in the order of the page.
SECTIONS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "numbers": ("", numbers),
    "conditions": ("Heat, power, hardware", conditions_section.conditions),
    "latency": ("Latency", history.latency),
    "calls": ("Calls", history.calls),
    "errors": ("Errors", errors),
    "tokens": ("Tokens", tokens),
    "device": ("Device", device_section.device),
    "models": ("Models", models),
    "sessions": ("Sessions", sessions),
    "ledger": ("Ledger", ledger),
    "made": ("How it is made", made_of),
}
