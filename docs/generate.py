"""Writes what follows from the code: the references in docs/, and the man page. `make docs`; a test compares.

python docs/generate.py          # writes
python docs/generate.py --check  # exit code 1, and what differs
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from xybridd import config as configuration
from xybridd.cli.exit_codes import EXIT_CODES
from xybridd.cli.help import every_command, examples_of
from xybridd.cli.main import cli

if TYPE_CHECKING:
    import click

ROOT = Path(__file__).parents[1]

_MADE = "<!-- made by docs/generate.py from the code: change it there, then `make docs` -->\n\n"


# Configuration


def configuration_page() -> str:
    defaults = configuration.keys(configuration.Config())
    lines = [
        _MADE + "# Configuration",
        "",
        "None is needed. A TOML file, every key optional: `xybridd config path` says where it is looked for,",
        "`xybridd config init` writes one with every key commented out, `xybridd config check` says if it is sound.",
        "A key that nobody knows is a warning, a value of the wrong kind keeps the daemon from starting (exit code 5).",
        "*Live* keys are applied by SIGHUP, the others by a restart.",
        "",
    ]
    table = ""
    for key in defaults:
        named, _, name = key.name.partition(".")
        if named != table:
            table = named
            lines += ["", f"## [{table}]", "", "| key | default | live | meaning |", "|---|---|---|---|"]
        default = "–" if key.default is None else f"`{msgspec.json.encode(key.default).decode()}`"
        lines.append(f"| `{name}` | {default} | {'yes' if key.live else 'no'} | {_cell(key.meaning)} |")
    lines += ["", "## Environment", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in _VARIABLES]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


_VARIABLES = (
    ("XYBRIDD_SOCKET", "where daemon and clients meet, instead of the usual places"),
    ("XYBRIDD_DATA_DIR", "the data folder, and the spool of clients in it"),
    ("XYBRIDD_CONFIG", "the config file; it must be there"),
    ("XYBRID_DEVICE_ID", "the device's id"),
    ("XYBRID_API_KEY", "the API key, where no file or credential has one"),
    ("XYBRID_INGEST_URL, XYBRID_PLATFORM_URL", "the endpoint of the ingest API, before `[upload] endpoint`"),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "proxies of what is sent"),
    ("XYBRID_TELEMETRY_OPTOUT=1, DO_NOT_TRACK=1", "of an app: nothing is recorded; of the daemon: nothing is sent"),
    ("NO_COLOR", "commands without colour"),
)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# Commands


def commands_page() -> str:
    lines = [
        _MADE + "# Commands",
        "",
        "What each says with `--help`, at 80 columns. Exit codes: [exit-codes.md](exit-codes.md).",
    ]
    for path, command, ctx in every_command(cli):
        lines += ["", f"## {path}", "", "```text", command.get_help(ctx).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def exit_codes_page() -> str:
    lines = [_MADE + "# Exit codes", "", "Of every command.", "", "| code | means | what to do |", "|---|---|---|"]
    lines += [f"| {each.code} | {each.means} | {each.then or '–'} |" for each in EXIT_CODES]
    return "\n".join(lines) + "\n"


# The man page, in the macros of man(7)


def man_page() -> str:
    root, *others = every_command(cli)
    parts = [
        '.\\" made by docs/generate.py from the code\n.TH XYBRIDD 1 "" xybridd "User Commands"\n.SH NAME',
        "xybridd \\- on\\-device telemetry for apps that run AI models",
        ".SH SYNOPSIS\n.B xybridd\n.I COMMAND\n.RI [ OPTIONS ]\n.SH DESCRIPTION",
        _paragraphs(root[1]),
        ".SH COMMANDS",
        *(_man_command(path, command, ctx) for path, command, ctx in others),
        ".SH EXIT STATUS",
        *(f".TP\n.B {each.code}\n{_roff(each.means.replace('`', ''))}" for each in EXIT_CODES),
        ".SH ENVIRONMENT",
        *(f".TP\n.B {_roff(name)}\n{_roff(meaning.replace('`', ''))}" for name, meaning in _VARIABLES),
        '.SH FILES\nSee\n.BR "xybridd paths" .\n.SH SEE ALSO\n.BR systemctl (1),\n.BR journalctl (1)',
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _man_command(path: str, command: click.Command, ctx: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(ctx))
    parts = [f".SS {_roff(path)}", f".B {_roff(path)}\n{_roff(usage)}\n.PP", _paragraphs(command)]
    records = (parameter.get_help_record(ctx) for parameter in command.get_params(ctx))
    parts += [f".TP\n.B {_roff(record[0])}\n{_roff(record[1] or '–')}" for record in records if record is not None]
    return "\n".join(part for part in parts if part)


def _paragraphs(command: click.Command) -> str:
    """The help without its examples, and then these, as they are typed."""
    text = re.split(r"\n\s*\n(?:\s*\x08\n)?\s*Examples?:", (command.help or ""), maxsplit=1)[0]
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.strip().splitlines()]
        if lines and lines[0] == "\b":
            blocks.append(".nf\n" + "\n".join(map(_roff, lines[1:])) + "\n.fi")
        elif lines:
            blocks.append(_roff(" ".join(lines)))
    examples = "\n".join(map(_roff, examples_of(command)))
    shown = "\n.PP\n".join(blocks)
    return f"{shown}\n.PP\n.RS\n.nf\n{examples}\n.fi\n.RE" if examples else shown


def _roff(text: str) -> str:
    """As it is: no macro, no ligature, and characters that every groff has."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    text = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


PAGES = {
    "docs/configuration.md": configuration_page,
    "docs/commands.md": commands_page,
    "docs/exit-codes.md": exit_codes_page,
    "docs/xybridd.1": man_page,
}


def stale() -> list[str]:
    """The pages that do not say what the code says."""
    return [
        name for name, make in PAGES.items() if not (ROOT / name).exists() or (ROOT / name).read_text("utf-8") != make()
    ]


def main() -> int:
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"{name} is not as the code has it; run: make docs")
        return int(bool(stale()))
    for name, make in PAGES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
