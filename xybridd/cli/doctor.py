"""``xybridd doctor``: what is wrong here, why it matters, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from xybridd import __version__
from xybridd.cli.output import console, json_option, plain, print_json
from xybridd.core.health.finding import EXIT_CODES, ORDER, Level, by_weight, counts, worst
from xybridd.core.words import many

if TYPE_CHECKING:
    from rich.console import RenderableType

    from xybridd.core.health.finding import Finding

_LOOKS = {
    Level.PROBLEM: ("✗", "red"),
    Level.WARNING: ("!", "yellow"),
    Level.UNKNOWN: ("?", "cyan"),
    Level.OK: ("✓", "green"),
}

#: Beside each other only where the second column keeps a readable width.
_LEAST_WIDTH = 60


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Also what was found where all is well.")
@json_option
def doctor(*, verbose: bool, as_json: bool) -> int:
    """Find out what is wrong, why it matters, and which command mends it.

    Works without a daemon, and without permission: what cannot be looked at is said. Nothing is changed or sent.
    Exit code: 0 all is well, 6 there are warnings, 7 there is a problem.

    \b
    Example:  xybridd doctor
    """
    from xybridd.cli.checks.register import examine

    found = by_weight(examine())
    level = worst(found)
    if as_json:
        print_json(
            {
                "version": __version__,
                "worst": level,
                "counts": counts(found),
                "findings": [msgspec.to_builtins(each) for each in found],
            }
        )
    else:
        _show(found, verbose=verbose)
    return EXIT_CODES[level]


def _show(found: list[Finding], *, verbose: bool) -> None:
    """What is well takes a line together, so that what is not stays on the screen."""
    out = console()
    for finding in found:
        if verbose or finding.level is not Level.OK:
            out.print(_block(finding, out.width))
    well = list(dict.fromkeys(finding.check for finding in found if finding.level is Level.OK))
    if well and not verbose:
        out.print(_row("[green]✓[/] well", plain(", ".join(well)), out.width))
    out.print("", _sum_up(found), sep="\n")


def _block(finding: Finding, width: int) -> RenderableType:
    mark, colour = _LOOKS[finding.level]
    lines = [plain(finding.says)]
    if finding.level is not Level.OK:
        if finding.level is not Level.UNKNOWN:
            lines.append(f"[dim]{plain(finding.why)}[/]")
        if finding.mend is not None:
            lines.append(f"→ [bold]{plain(finding.mend)}[/]")
    return _row(f"[{colour}]{mark}[/] {finding.check}", "\n".join(lines), width)


def _row(name: str, text: str, width: int) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table

    if width < _LEAST_WIDTH:
        from rich.console import Group
        from rich.text import Text

        return Group(Text.from_markup(name), Padding(text, (0, 0, 0, 2)))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=20)
    table.add_column(overflow="fold")
    table.add_row(name, text)
    return table


def _sum_up(found: list[Finding]) -> str:
    number = counts(found)
    words = {
        Level.PROBLEM: many(number[Level.PROBLEM], "problem"),
        Level.WARNING: many(number[Level.WARNING], "warning"),
        Level.UNKNOWN: f"{number[Level.UNKNOWN]} not looked at",
        Level.OK: f"{number[Level.OK]} ok",
    }
    parts = [f"[{_LOOKS[level][1]}]{words[level]}[/]" for level in ORDER if number[level]]
    return f"{', '.join(parts)}  [dim]xybridd {__version__}[/]"
