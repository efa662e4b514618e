"""One writer for every table: text for people, ``--json`` and ``--csv`` for programs.

- JSON is the rows as they are. CSV has a header of the same names and a line a row: numbers bare, times in UTC
  milliseconds, nothing where nobody knows, several values in one cell with ``;`` between them.
- Text never wraps a number. Where it is too narrow the columns of least worth are left out, and the line below says
  which; a name that is cut ends with ``…``. A column in which nothing is known is not shown.
- A pipe has no width: it gets every column, unless COLUMNS says otherwise.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from xybridd.cli.output import on_terminal, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table as Grid
    from rich.text import Text

    Row = dict[str, Any]

F = TypeVar("F", bound="Callable[..., Any]")

#: A column of this worth is never left out.
ALWAYS = 9

UNKNOWN = "–"

_GAP = 2

#: A name may be cut to this before a column is left out for it; text that folds wants a little more.
_NAME_CELLS = 20
_FOLDED_CELLS = 28
_LEAST_CELLS = 4


def _same(row: Row) -> Row:
    return row


def _no_style(_row: Row) -> str:
    return ""


class Column(NamedTuple):
    """As people see it: ``shown`` is text without markup, ``worth`` 1 to 9, ``folds`` breaks long text into lines."""

    title: str
    shown: Callable[[Row], str]
    worth: int = ALWAYS
    number: bool = False
    folds: bool = False
    style: Callable[[Row], str] = _no_style


class Table(NamedTuple):
    """``fields`` are the names of the CSV's columns, of the row that ``flat`` makes of one of JSON's."""

    fields: Sequence[str]
    columns: Sequence[Column]
    flat: Callable[[Row], Row] = _same


def number(title: str, shown: Callable[[Row], str], worth: int = ALWAYS, **more: Any) -> Column:
    return Column(title, shown, worth, number=True, **more)


def forms(command: F) -> F:
    """The options ``--json`` and ``--csv`` of a command that prints a table, as its parameter ``form``."""
    as_csv = click.option("--csv", "form", flag_value="csv", help="CSV, with a header.")
    as_json = click.option("--json", "form", flag_value="json", default=None, help="JSON, for programs.")
    return as_json(as_csv(command))


def write(rows: Sequence[Row], table: Table, form: str | None, *, empty: str) -> None:
    """``empty``: what people are told when there are no rows; programs get none, in their form."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        click.echo(as_csv(rows, table), nl=False)
    elif not rows:
        click.echo(empty)
    else:
        _print(rows, table.columns)


def as_csv(rows: Sequence[Row], table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.fields)
    for row in rows:
        flat = table.flat(row)
        writer.writerow([_bare(flat.get(name)) for name in table.fields])
    return out.getvalue()


def _bare(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(str(_bare(each)) for each in value)
    return value


# Text


def printable(text: str) -> str:
    """What an app or a server wrote; control characters do nothing."""
    return "".join(each if each.isprintable() else "·" for each in text)


def room() -> int | None:
    """The cells of a line; None where there is no end of them."""
    if not on_terminal() and not os.environ.get("COLUMNS", "").isdecimal():
        return None
    return shutil.get_terminal_size().columns


class _Laid(NamedTuple):
    """A column with its cells as text, and how many of a line it takes."""

    column: Column
    cells: list[str]
    width: int

    def least(self) -> int:
        """What it can do with, without harm."""
        if self.column.number:
            return self.width
        return min(self.width, _FOLDED_CELLS if self.column.folds else _NAME_CELLS)


def _laid(rows: Sequence[Row], columns: Sequence[Column]) -> list[_Laid]:
    from rich.cells import cell_len

    found = []
    for column in columns:
        cells = [printable(column.shown(row)) for row in rows]
        if column.worth < ALWAYS and all(cell == UNKNOWN for cell in cells):
            continue
        found.append(_Laid(column, cells, max(map(cell_len, [column.title, *cells]))))
    return found


def _fitted(laid: list[_Laid], room: int) -> tuple[list[_Laid], list[str]]:
    """Those that fit, with the widths that they get, and the titles of those that do not."""
    left_out: list[str] = []

    def needed(widths: list[int]) -> int:
        return sum(widths) + _GAP * (len(widths) - 1)

    while needed([each.least() for each in laid]) > room:
        spare = [each for each in laid if each.column.worth < ALWAYS]
        if not spare:
            break
        least = min(spare, key=lambda each: each.column.worth)
        laid.remove(least)
        left_out.append(least.column.title)
    widths = [each.least() for each in laid]
    # What is left over goes to the text that was cut, the first first; what is missing is taken from the widest text.
    for at, each in enumerate(laid):
        widths[at] += max(0, min(each.width - widths[at], room - needed(widths)))
    texts = [at for at, each in enumerate(laid) if not each.column.number]
    while texts and needed(widths) > room:
        widest = max(texts, key=lambda at: widths[at])
        if widths[widest] <= _LEAST_CELLS:
            break
        widths[widest] -= 1
    return [each._replace(width=width) for each, width in zip(laid, widths, strict=True)], left_out


def _print(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    from rich.console import Console

    table, left_out, width = grid(rows, columns, room(), "; --csv has everything")
    Console(highlight=False, width=width).print(table, *left_out)


def fitted_lines(rows: Sequence[Row], columns: Sequence[Column], room: int | None, hint: str = "") -> list[str]:
    """What people see, line by line, without colours."""
    from rich.console import Console

    out = io.StringIO()
    table, left_out, width = grid(rows, columns, room, hint)
    Console(file=out, highlight=False, width=width, color_system=None).print(table, *left_out)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def grid(
    rows: Sequence[Row], columns: Sequence[Column], room: int | None, hint: str = ""
) -> tuple[Grid, list[Text], int]:
    """The table, what is said of columns that do not fit (with a hint where they are), and the cells that it takes."""
    from rich.table import Table as Grid
    from rich.text import Text

    laid, left_out = _laid(rows, columns), list[str]()
    if room is not None:
        laid, left_out = _fitted(laid, room)
    table = Grid(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for each in laid:
        column = each.column
        table.add_column(
            column.title,
            justify="right" if column.number else "left",
            width=each.width,
            no_wrap=not column.folds,
            overflow="fold" if column.folds else "ellipsis",
        )
    for at, row in enumerate(rows):
        table.add_row(*(Text(each.cells[at], style=each.column.style(row)) for each in laid))
    names = ", ".join(reversed(left_out))
    said = [Text(f"too narrow for: {names}{hint}", style="dim")] if left_out else []
    return table, said, room or sum(each.width + _GAP for each in laid)
