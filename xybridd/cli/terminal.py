"""How pages come out at whatever stands at the other end: a terminal of any width, a pipe, a file.

Nothing is lost on the way: a table that does not fit is told row by row, and what goes into a pipe or a file is not
wrapped at all.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions

#: Where nobody says how wide it is, and nobody looks: lines are as long as they are.
_NO_WIDTH = 2000

#: A column that may be folded is not folded narrower than this, if a table can be told row by row instead.
_LEAST_COLUMN = 12


class Page(Console):
    """A console whose tables are never cut off, and that fills no line up with spaces where nobody looks."""

    def print(self, *objects: Any, **options: Any) -> None:
        fitted = [_fitted(each, self) for each in objects]
        if self.is_terminal:
            super().print(*fitted, **options)
            return
        with self.capture() as printed:
            super().print(*fitted, **options)
        self.file.write(re.sub(r"[ ]+$", "", printed.get(), flags=re.MULTILINE))


def page(*, stderr: bool = False) -> Page:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _NO_WIDTH
    return Page(highlight=False, soft_wrap=False, stderr=stderr, width=width)


def _fitted(renderable: Any, console: Console) -> Any:
    if isinstance(renderable, Group):
        return Group(*(_fitted(each, console) for each in renderable.renderables))
    if isinstance(renderable, Table) and renderable.show_header and _least_width(renderable, console) > console.width:
        return _row_by_row(renderable)
    return renderable


def _least_width(table: Table, console: Console) -> int:
    options = console.options.update(width=_NO_WIDTH)
    return sum(_least_of_column(table, number, console, options) for number in range(len(table.columns)))


def _least_of_column(table: Table, number: int, console: Console, options: ConsoleOptions) -> int:
    column = table.columns[number]
    cells: Iterable[Any] = (column.header, *column.cells)
    widths = [Measurement.get(console, options, cell) for cell in cells]
    whole = max(width.maximum for width in widths)
    return (whole if column.no_wrap else min(whole, _LEAST_COLUMN)) + table.padding[1] + table.padding[3]


def _row_by_row(table: Table) -> Group:
    """Each row as a block: what stands in its first column, and under it the others with their titles."""
    cells = [list(column.cells) for column in table.columns]
    blocks: list[Any] = []
    for row in zip(*cells, strict=True):
        block = Table.grid(padding=(0, 1))
        block.add_column(style="dim", no_wrap=True)
        block.add_column(overflow="fold")
        for column, cell in list(zip(table.columns, row, strict=True))[1:]:
            if str(cell) != "":
                block.add_row(f"  {column.header}", cell)
        blocks += [_bold(row[0]), block]
    return Group(*blocks)


def _bold(cell: Any) -> Any:
    from rich.text import Text

    return Text.from_markup(cell, style="bold", overflow="fold") if isinstance(cell, str) else cell
