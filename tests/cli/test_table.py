"""Tables at every width: numbers stay whole, what is left out is named, what is cut says so."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from xybridd.cli.table import Column, Table, as_csv, fitted_lines, number, write

if TYPE_CHECKING:
    import pytest

TABLE = Table(
    ["model", "calls", "p50_ms", "gone", "tags"],
    [
        Column("model", lambda row: row["model"]),
        number("calls", lambda row: f"{row['calls']:,}"),
        number("p50 ms", lambda row: f"{row['p50_ms']:.1f}", 5),
        number("gone", lambda _row: "–", 4),
        Column("said", lambda row: row["said"], 3, folds=True),
    ],
)


def row(model: str = "whisper-tiny", calls: int = 1_234_567, said: str = "CUDA out of memory") -> dict[str, Any]:
    return {"model": model, "calls": calls, "p50_ms": 212.5, "gone": None, "tags": ["a", "b"], "said": said}


def printed(
    rows: list[dict[str, Any]], columns: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    write(rows, TABLE, None, empty="nothing; do this")
    return capsys.readouterr().out


def test_a_narrow_terminal_gets_the_columns_of_most_worth(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = printed([row()], 80, capsys, monkeypatch)
    assert wide.splitlines()[0].split() == ["model", "calls", "p50", "ms", "said"]
    narrow = printed([row()], 30, capsys, monkeypatch)
    assert narrow.splitlines()[1].split() == ["whisper-tiny", "1,234,567"]
    assert "too narrow for: p50 ms, said" in narrow.replace("\n", " ")


def test_a_name_that_is_cut_says_so_and_numbers_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (20, 30, 40, 60):
        shown = printed([row("a-name-longer-than-any-terminal-is-wide-and-then-some")], columns, capsys, monkeypatch)
        assert "1,234,567" in shown
        assert "…" in shown
        assert max(cell_len(line.rstrip()) for line in shown.splitlines()) <= columns


def test_a_pipe_gets_every_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 300
    shown = printed([row(long, said=long)], None, capsys, monkeypatch)
    assert shown.splitlines()[1].split() == [long, "1,234,567", "212.5", long]


def test_what_an_app_wrote_does_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed([row("[red]m\x1b[31m\n", said="é\u202eb")], 120, capsys, monkeypatch)
    assert "[red]m·[31m·" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_no_rows_are_words_for_people_and_nothing_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    write([], TABLE, None, empty="nothing; do this")
    assert capsys.readouterr().out == "nothing; do this\n"
    write([], TABLE, "json", empty="nothing; do this")
    assert capsys.readouterr().out == "[]\n"
    write([], TABLE, "csv", empty="nothing; do this")
    assert capsys.readouterr().out == "model,calls,p50_ms,gone,tags\n"


def test_csv_is_read_back_as_it_was() -> None:
    rows = [row('a "quoted", name'), row("two\nlines", 0)]
    read = list(csv.DictReader(io.StringIO(as_csv(rows, TABLE))))
    assert [each["model"] for each in read] == ['a "quoted", name', "two\nlines"]
    assert [each["calls"] for each in read] == ["1234567", "0"]
    assert {(each["p50_ms"], each["gone"], each["tags"]) for each in read} == {("212.5", "", "a;b")}


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(row, st.text(max_size=40), st.integers(0, 10**12), st.text(max_size=60)), min_size=1, max_size=3
    ),
    st.integers(24, 140),
)
@example([row("00000000", 100_000_000_000)], 24)
@example([row("00000000", 10**12)], 24)
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(rows: list[dict[str, Any]], room: int) -> None:
    lines = fitted_lines(rows, TABLE.columns, room)
    assert max(map(cell_len, lines)) <= room
    whole = " ".join(lines)
    assert all(f"{each['calls']:,}" in whole for each in rows)
