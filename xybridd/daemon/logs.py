"""How a log line looks, by who reads it: the journal, a person at a terminal, a file, or a program.

The journal has time and process of its own and takes the priority from ``<N>`` in front (sd-daemon(3)); that standard
error is the journal's says ``$JOURNAL_STREAM``, which names its device and inode (systemd.exec(5)).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from typing import Literal, TextIO

import msgspec

Format = Literal["journal", "terminal", "plain", "json"]

#: syslog(3)'s priorities.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7

_COLOURS = {logging.ERROR: "\033[31m", logging.WARNING: "\033[33m", logging.DEBUG: "\033[2m"}
_PLAIN = "\033[0m"


def priority(level: int) -> int:
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG_PRIORITY)


class _Formatter(logging.Formatter):
    """UTC to the millisecond, level, who, what."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Journal(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Each line of a traceback is a line of its own in the journal, and has the priority too."""
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


class _Terminal(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        colour = _COLOURS.get(record.levelno, "")
        return f"{colour}{super().format(record)}{_PLAIN}" if colour else super().format(record)


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        out = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(out).decode()


_FORMATTERS: dict[Format, type[logging.Formatter]] = {
    "journal": _Journal,
    "terminal": _Terminal,
    "plain": _Formatter,
    "json": _Json,
}


def format_for(asked: str, stream: TextIO) -> Format:
    """``auto`` is what fits the stream."""
    if asked == "json":
        return "json"
    if asked == "plain":
        return "plain"
    if _is_journal(stream):
        return "journal"
    return "terminal" if stream.isatty() and not os.environ.get("NO_COLOR") else "plain"


def _is_journal(stream: TextIO) -> bool:
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Once nobody reads it any more, it goes nowhere: what is left in a buffer would become the exit code, 120."""
        if isinstance(sys.exception(), BrokenPipeError):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        else:
            super().handleError(record)


def start_logging(level: str, asked: str) -> None:
    handler = _Handler(sys.stderr)
    handler.setFormatter(_FORMATTERS[format_for(asked, sys.stderr)]())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # A journal or a pipe that is gone is no reason to fail, nor to say so at every line to nobody.
    logging.raiseExceptions = False
    set_log_level(level)


def say_next(sentence: str, stream: TextIO | None = None) -> None:
    """Tell a person at a terminal what to do next, in green; a file, a journal and a program are told nothing."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        return
    green, plain = ("", "") if os.environ.get("NO_COLOR") else ("\033[32m", _PLAIN)
    with suppress(OSError):
        stream.write(f"{green}{sentence}{plain}\n")
        stream.flush()


def set_log_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
    # APScheduler logs every run of every job at info.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
