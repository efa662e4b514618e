"""The root of the command line: its commands, and what an error becomes (exit codes: `exit_codes.py`)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from xybridd import __version__
from xybridd.cli.exit_codes import BAD_CONFIG, FAILED, INTERRUPTED, NOT_PERMITTED, NOT_RUNNING
from xybridd.cli.streams import prepare_streams
from xybridd.errors import ConfigError, DaemonUnreachable, PermissionDenied, XybriddError

#: Command, its module in this package, and what it is for. Modules are imported when their command is used.
_COMMANDS = {
    "run": "Run the daemon in the foreground.",
    "status": "Is the daemon well, and what is it doing?",
    "doctor": "What is wrong, why it matters, and the command that mends it.",
    "bugreport": "An archive to send when something is wrong, without secrets.",
    "ps": "Who infers now.",
    "top": "The live screen: each app and model, and the device.",
    "tail": "Show records as they come.",
    "sessions": "Look at what was recorded.",
    "stats": "What was recorded in a time, and why it was slow.",
    "models": "Each model: how often, how fast, where it ran.",
    "errors": "What went wrong, how often, since when.",
    "record": "Record from a shell.",
    "report": "Make a page of what was recorded, to read and to send.",
    "dashboard": "The same page, live, in your browser.",
    "test": "Send a synthetic record end to end, with the time of each step.",
    "upload": "What leaves this device: see it, steer it.",
    "export": "See what would be sent next, or write sessions into a file.",
    "import": "Queue what another device wrote into a file.",
    "forget": "Delete sessions, here and where they were sent to.",
    "device": "What this device is, how sure that is, and from where.",
    "advice": "What an app had better do now, and why.",
    "config": "Look at the configuration.",
    "service": "Have the daemon run as a service, of yours or of the system.",
    "paths": "Where socket, data, config, rings and spool are.",
    "completion": "What makes bash, zsh or fish complete commands.",
    "receive": "Receive exports here, to see what a device sends.",
}

#: Of commands whose name is a word of Python.
_PYTHON_NAMES = {"import": "import_"}


class _Late(click.Group):
    """Imports a command's module only when that command is used, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = _PYTHON_NAMES.get(cmd_name, cmd_name)
        command = getattr(import_module(f"xybridd.cli.{name}"), name)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def get_help(self, ctx: click.Context) -> str:
        from xybridd.cli.help import root_help

        return root_help(self, ctx, _COMMANDS)


@click.group(cls=_Late, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="xybridd", message="%(prog)s %(version)s")
def cli() -> None:
    """On-device telemetry: apps record, the daemon keeps it, you look at it.

    \b
    Example:  xybridd run &
              xybridd record inference whisper 1.0 212 && xybridd sessions show
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    sys.exit(_run(arguments))


#: What an error means for the exit code; the first that fits. `{error}` is its own sentence, `{start}` a command.
_ERRORS: tuple[tuple[type[XybriddError], int, str], ...] = (
    (DaemonUnreachable, NOT_RUNNING, "no daemon answers ({error}); {start}"),
    (PermissionDenied, NOT_PERMITTED, "not permitted: {error}"),
    (ConfigError, BAD_CONFIG, "{error}; every key with its meaning: xybridd config init --stdout"),
    (XybriddError, FAILED, "{error}"),
)


def _start(error: XybriddError) -> str:
    """What brings a daemon that answers."""
    if not isinstance(error, DaemonUnreachable) or not error.tried:
        return "find out why with: xybridd doctor"
    from xybridd.cli.checks.service import installed_scope

    scope = installed_scope()
    if scope is None:
        return "start one with: xybridd run"
    return f"start it with: {'sudo xybridd service start --system' if scope == 'system' else 'xybridd service start'}"


def _run(arguments: list[str] | None) -> int:
    prepare_streams()
    try:
        result: Any = cli.main(arguments, prog_name="xybridd", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) left. Python would complain again while closing standard output.
        sys.stderr.close()
        return FAILED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except XybriddError as error:
        code, sentence = next((code, text) for kind, code, text in _ERRORS if isinstance(error, kind))
        start = _start(error) if "{start}" in sentence else ""
        click.echo(f"xybridd: {sentence.format(error=error, start=start)}", err=True)
        return code
    return result if isinstance(result, int) else 0
