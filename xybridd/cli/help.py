"""The first page of help: every command on one screen of 80 × 24, in groups, in a word or two each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Which group a command stands in, and what it is in few words; a command that is not there comes last.
GROUPS: tuple[tuple[str, Mapping[str, str]], ...] = (
    (
        "daemon",
        {
            "run": "in the foreground",
            "service": "at boot, at login",
            "status": "is it well, what waits",
            "doctor": "what is wrong, the mend",
            "bugreport": "an archive to send",
            "config": "what can be set",
        },
    ),
    (
        "look",
        {
            "ps": "who infers now",
            "top": "the live screen",
            "tail": "records as they come",
            "sessions": "each run of an app",
            "models": "by model",
            "errors": "by kind",
            "stats": "by model, heat, hour",
            "report": "a page to send",
            "dashboard": "the same, live",
        },
    ),
    ("record", {"record": "from a shell", "test": "one record end to end"}),
    ("device", {"device": "what it is, how sure", "advice": "slow down? GPU? fits?"}),
    (
        "send",
        {
            "upload": "what leaves, steer it",
            "export": "read it first; to a file",
            "import": "of another device",
            "forget": "delete, here and there",
            "receive": "a receiver to try with",
            "metrics": "for Prometheus",
        },
    ),
    ("system", {"paths": "where things are", "completion": "for bash, zsh, fish"}),
)

_MORE = "more"
#: Of a terminal: two commands beside each other from this width on.
_TWO_COLUMNS = 78
_GROUP_WIDTH = 8
_NAME_WIDTH = 11
_SAYS_WIDTH = 25


def root_help(command: click.Group, ctx: click.Context, known: Mapping[str, str]) -> str:
    """``known``: every command there is, with what it is for."""
    formatter = ctx.make_formatter()
    command.format_usage(ctx, formatter)
    command.format_help_text(ctx, formatter)
    head = formatter.getvalue().rstrip("\n")
    two = formatter.width >= _TWO_COLUMNS
    lines = [line for group, briefs in _groups(known) for line in _group(group, briefs, two=two)]
    lines += ["", "Of each: xybridd COMMAND --help.  Version: xybridd --version"]
    return "\n".join([head, "", *lines])


def _groups(known: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    placed = {name for _group, briefs in GROUPS for name in briefs}
    groups = [(group, {name: says for name, says in briefs.items() if name in known}) for group, briefs in GROUPS]
    groups.append((_MORE, {name: says for name, says in known.items() if name not in placed}))
    return [(group, briefs) for group, briefs in groups if briefs]


def _group(group: str, briefs: Mapping[str, str], *, two: bool) -> list[str]:
    cells = [f"{name:{_NAME_WIDTH}}{_cut(says)}" for name, says in briefs.items()]
    if not two:
        return [f"{group}:", *(f"  {cell}" for cell in cells)]
    rows = [cells[start : start + 2] for start in range(0, len(cells), 2)]
    titles = [group, *[""] * (len(rows) - 1)]
    width = _NAME_WIDTH + _SAYS_WIDTH
    return [
        f"{title:{_GROUP_WIDTH}}{row[0]:{width}}{row[1] if len(row) > 1 else ''}".rstrip()
        for title, row in zip(titles, rows, strict=True)
    ]


def _cut(says: str) -> str:
    """What a command that has no place yet says of itself, as far as there is room."""
    return says if len(says) < _SAYS_WIDTH else says[: _SAYS_WIDTH - 2].rstrip(" ,") + "…"


def examples_of(command: click.Command) -> list[str]:
    """The command lines that its help shows as examples."""
    lines = (command.help or "").splitlines()
    shown: list[str] = []
    for line in lines:
        text = line.strip()
        if text.startswith(("Example:", "Examples:")):
            shown.append(text.partition(":")[2].strip())
        elif shown and text:
            shown.append(text)
    return shown


def every_command(root: click.Group, name: str = "xybridd") -> list[tuple[str, click.Command, click.Context]]:
    """The root and all below it, by the words that call them, in the order of help."""
    found: list[tuple[str, click.Command, click.Context]] = []

    def visit(path: str, command: click.Command, parent: Any) -> None:
        settings = {"terminal_width": 80, **command.context_settings}
        ctx = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, **settings)
        found.append((path, command, ctx))
        if isinstance(command, click.Group):
            for each in command.list_commands(ctx):
                below = command.get_command(ctx, each)
                assert below is not None  # noqa: S101 - it was listed
                visit(f"{path} {each}", below, ctx)

    visit(name, root, None)
    return found
