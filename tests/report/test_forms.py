"""What is written, looked at as text: nothing hostile gets through, nothing is asked of anybody, it fits in a mail."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.core import given as some
from tests.core.given import NOW_MS, call, chunks, error
from tests.core.test_report import COOL, HOT, calls, recorded, sample
from tests.report.given import HOSTILE, facts, session_line, week_report
from xybridd.core.minute import AppMinute
from xybridd.core.report.facts import DAY_MS
from xybridd.core.report.figures import CallInProgress
from xybridd.core.report.make import MOST_INTERRUPTED, make_report
from xybridd.protocol.records import CancelledRecord, InferenceRecord
from xybridd.report import text
from xybridd.report.axes import TimeAxis, ValueAxis
from xybridd.report.markdown import markdown
from xybridd.report.page import page, policy
from xybridd.report.table import COLUMNS, table

if TYPE_CHECKING:
    from xybridd.core.report.figures import Report
    from xybridd.protocol.records import Record


class Seen(HTMLParser):
    """Every element with its attributes, and the text of each; complains about what is not closed."""

    _VOID = frozenset({"meta", "link", "line", "rect", "path"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile_report() -> Report:
    """Wherever an app, a device or a server may put text of its own."""
    records: list[Record] = [*[call(HOSTILE, HOSTILE, 10) for _ in range(40)], error(HOSTILE, HOSTILE, HOSTILE)]
    minutes = [AppMinute(HOSTILE, HOSTILE, each.minute) for each in recorded((COOL, records), (HOT, records))]
    minutes += recorded((COOL, calls(10, 3)), app="second")
    status = {
        "version": HOSTILE, "state": HOSTILE, "device_id": HOSTILE,
        "ledger": {"received": 1, "rejected": {HOSTILE: 1}, "removed": {HOSTILE: 2}, "exports": {HOSTILE: {"made": 1}}},
    }  # fmt: skip
    details = {"machine": {"value": HOSTILE}, "platform": {"value": HOSTILE}, "gpu": {"value": [{"name": HOSTILE}]}}
    interrupted = [CallInProgress(HOSTILE, HOSTILE, 14_000)]
    line = session_line(HOSTILE, app=HOSTILE, end_reason=HOSTILE, models_used=[HOSTILE], calls_in_progress=interrupted)
    return make_report(
        facts(
            minutes,
            [sample(0, thermal_state=HOSTILE, power_source=HOSTILE, battery_percent=50.0)],
            [line],
            app=HOSTILE,
            status=status,
            capabilities={"details": details},
        )
    )


def test_the_page_is_whole_and_has_no_address_in_it() -> None:
    seen = Seen(page(week_report()))
    for tag, attributes in seen.tags:
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "data", "srcset"):
            address = attributes.get(name)
            assert address is None or address.startswith("#") or address == "data:,", (tag, attributes)
    assert '"></th>' not in page(week_report())
    assert {tag for tag, _ in seen.tags} >= {"title", "h1", "main", "nav", "svg", "table", "caption", "button"}


def test_every_reference_of_the_page_leads_somewhere_and_no_id_is_there_twice() -> None:
    tags = Seen(page(week_report())).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        wanted = (attributes.get("aria-labelledby") or "").split()
        if (address := attributes.get("href") or "").startswith("#"):
            wanted.append(address[1:])
        assert set(wanted) <= set(ids)


def test_what_is_hostile_is_text_and_nothing_else() -> None:
    html = page(hostile_report())
    seen = Seen(html)
    assert "img" not in {tag for tag, _ in seen.tags}
    assert sum(tag == "script" for tag, _ in seen.tags) == 1
    assert not {"\u202e", "\x1b"} & set(html)
    shown = text.plain(HOSTILE)
    assert sum(shown in each for each in seen.texts) >= 10


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    assert policy().startswith("default-src 'none'; ")
    assert "unsafe" not in policy(live=True)
    assert ("connect-src" in policy(), "connect-src 'self'" in policy(live=True)) == (False, True)


def test_a_week_is_less_than_half_a_megabyte() -> None:
    assert len(page(week_report()).encode()) < 500_000


def test_the_most_that_a_week_can_hold_is_less_than_half_a_megabyte() -> None:
    """As many models as are shown, each called in every hour under every condition."""
    minutes = []
    for hour in range(7 * 24):
        at_ms = NOW_MS - 7 * DAY_MS + hour * 3_600_000
        records: list[Record] = [call(f"model-{number:02}", "1.0", 10.0 + hour + number) for number in range(45)]
        minutes += recorded((COOL if hour % 2 else HOT, records), at_ms=at_ms)
    samples = [
        sample(-60 * hour, temperature_c=50.0, thermal_state="hot", cpu_percent=1.0) for hour in range(7 * 24, 0, -1)
    ]
    lines = [session_line(str(number)) for number in range(100)]
    report = make_report(facts(minutes, samples, lines, since_ms=NOW_MS - 7 * DAY_MS))
    assert len(page(report).encode()) < 500_000


def test_nothing_recorded_is_said_with_what_to_do() -> None:
    html = page(make_report(facts(app="kiosk")))
    Seen(html)
    assert "Nothing was recorded by the app kiosk in this time" in html
    assert "xybridd record inference" in html
    assert "Nothing was recorded" in markdown(make_report(facts()))
    assert table(make_report(facts())).splitlines() == [",".join(COLUMNS)]


def test_what_the_device_does_not_say_is_said_to_be_unknown() -> None:
    html = page(make_report(facts(recorded((COOL, calls(10, 3, None))), [sample(0)])))
    assert "does not say what each call ran on" in html
    assert "Energy: not known on this device" in html
    assert "Throttling: not known on this device" in html
    assert "too few calls" in page(make_report(facts(recorded((COOL, calls(10, 40)), (HOT, calls(20, 3))))))


def test_interrupted_calls_stand_below_the_errors() -> None:
    interrupted = CallInProgress("llama-3.2-3b", "1.0", 14_000)
    lost = session_line("0123456789", app="kiosk", end_reason="client_lost", calls_in_progress=[interrupted])
    active = session_line(app="kiosk", ended_at=None, calls_in_progress=[interrupted] * MOST_INTERRUPTED)
    report = make_report(facts(sessions=[lost, active]))
    assert len(report.interrupted_calls) == MOST_INTERRUPTED
    assert (report.interrupted_calls[0].app, report.interrupted_calls[0].running_ms) == ("kiosk", 14_000)
    html, written = page(report), markdown(report)
    Seen(html)
    assert "No errors in this time.</p><h3>Interrupted calls</h3>" in html
    assert "1 more are not listed" in html
    assert "| llama-3.2-3b 1.0 | kiosk | 14 s | 2023-11-14 22:12 | 01234567 |" in written
    assert "| llama-3.2-3b 1.0 | kiosk | 14 s | still active | s |" in written
    assert "1 more are not listed" in written
    assert "Interrupted calls" not in page(week_report()) + markdown(week_report())


def test_cancelled_calls_are_counted_by_model() -> None:
    cancelled = CancelledRecord("m", "1", 14_000)
    report = make_report(facts(recorded((COOL, [*calls(10, 3), cancelled, cancelled]))))
    assert sum(model.cancelled for model in report.models) == 2
    assert '<th scope="col">Cancelled</th>' in page(report)
    assert "| Cancelled |" in markdown(report)
    assert "Cancelled" not in page(week_report()) + markdown(week_report())


def test_the_ledger_stands_there_as_its_equations() -> None:
    html = page(week_report())
    assert "120 records received = 100 counted + 15 duplicates + 5 rejected (invalid_params 5)" in html
    assert "9 exports made for otlp = 5 delivered + 1 queued + 1 superseded + 1 dead + 1 evicted + 0 forgotten" in html
    assert "7 of the counted were removed since (retention 7)" in html


@settings(max_examples=25)
@given(some.records, some.cuts)
def test_whatever_was_recorded_becomes_a_whole_page_whose_numbers_add_up(
    records: list[Record], cuts: list[int]
) -> None:
    parts = chunks(records, cuts)
    made = recorded(*((HOT if number % 2 else COOL, list(part)) for number, part in enumerate(parts)))
    report = make_report(facts(made, since_ms=NOW_MS - DAY_MS))
    calls_made = sum(isinstance(record, InferenceRecord) for record in records)
    cancelled = sum(isinstance(record, CancelledRecord) for record in records)
    assert (report.totals.calls, report.totals.errors) == (calls_made, len(records) - calls_made - cancelled)
    assert sum(model.cancelled for model in report.models) == cancelled
    for model in report.models:
        for dimension in model.dimensions:
            assert sum(state.calls for state in dimension.states) == model.calls
        assert sum(step.calls for step in model.over_time) == model.calls
    assert sum(model.calls for model in report.models) == sum(step.calls for step in report.over_time) == calls_made
    html = page(report)
    Seen(html)
    assert not {"nan", "inf"} & set(
        re.findall(r"[a-z]+", " ".join(re.findall(r'(?:d|x|y|x1|x2|y1|width|height)="([^"]*)"', html)))
    )
    markdown(report)
    table(report)


# The other forms


def test_markdown_keeps_hostile_names_in_their_cell() -> None:
    written = markdown(hostile_report())
    tables = [line for line in written.splitlines() if line.startswith("|")]
    for line in tables:
        cells = line.replace("\\|", "").count("|")
        assert cells in {5, 8, 7, 6, 3}, line
    assert "<img" not in written.replace("\\<", "")
    assert "](javascript" not in written.replace("\\]", "").replace("\\(", "")


def test_csv_is_one_table_that_spreadsheets_take_for_text() -> None:
    rows = list(csv.DictReader(io.StringIO(table(hostile_report()))))
    assert {row["dimension"] for row in rows} == {"all", "thermal_state", "power_source", "hardware_used", "time"}
    assert all(row["model_id"][0] in "'m" for row in rows)
    whole = [row for row in csv.DictReader(io.StringIO(table(week_report()))) if row["model_id"] == "whisper-tiny"]
    (everything,) = (row for row in whole if row["dimension"] == "all")
    by_heat = sum(int(row["calls"]) for row in whole if row["dimension"] == "thermal_state")
    by_time = sum(int(row["calls"]) for row in whole if row["dimension"] == "time")
    assert int(everything["calls"]) == by_heat == by_time
    hot = next(row for row in whole if row["value"] == "hot")
    assert (hot["compared_with"], float(hot["factor"]) > 1.4) == ("normal", True)


# Forms and measures


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0.00 ms"), (0.004, "4 µs"), (5.213, "5.21 ms"), (52.13, "52.1 ms"), (999.4, "999 ms"), (999.6, "1.00 s"), (1234.5, "1.23 s"),
     (12_345.0, "12.3 s"), (1_234_567.0, "1,235 s")],
)  # fmt: skip
def test_latencies_have_three_digits_that_matter(value: float | None, shown: str) -> None:
    assert text.ms(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0 %"), (100.0, "100 %"), (99.999, "> 99.99 %"), (0.001, "< 0.01 %"), (0.61, "0.61 %"),
     (99.9, "99.90 %"), (50.0, "50.0 %")],
)  # fmt: skip
def test_a_percentage_is_never_rounded_to_none_or_all(value: float | None, shown: str) -> None:
    assert text.percent(value) == shown


def test_an_axis_begins_at_zero_or_is_logarithmic_where_values_spread() -> None:
    near = ValueAxis([90.0, 210.0], may_be_log=True)
    assert (near.log, near.values, near.share(0), near.share(near.top)) == (False, [100, 200, 300], 0, 1)
    far = ValueAxis([4.0, 700.0], may_be_log=True)
    assert (far.log, far.bottom, far.top) == (True, 2, 1000)
    assert 0 < far.share(4) < far.share(20) < far.share(700) < 1
    assert len(far.values) <= 5
    assert not ValueAxis([], may_be_log=True).log


def test_times_are_those_of_the_readers_clock() -> None:
    report = week_report()
    clock = text.Clock(report)
    assert clock.name == "UTC+01:00"
    assert clock.full(NOW_MS) == "2023-11-14 23:13"
    axis = TimeAxis(report, clock)
    assert (axis.start_ms + clock.offset_ms) % report.step_ms == 0
    ticks = axis.ticks()
    assert [tick.label for tick in ticks][:2] == ["Wed 8", "Thu 9"]
    assert clock.clock(axis.start_ms + int(ticks[0].share * (axis.end_ms - axis.start_ms))) == "00:00"
    assert text.Clock(make_report(facts())).name == "UTC"
