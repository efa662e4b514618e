"""Every exit code there is, what it means, and what a script may do about it."""

from __future__ import annotations

from typing import NamedTuple

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NOT_PERMITTED = 4
BAD_CONFIG = 5
WARNED = 6
PROBLEM = 7
INTERRUPTED = 130


class ExitCode(NamedTuple):
    code: int
    means: str
    then: str


EXIT_CODES: tuple[ExitCode, ...] = (
    ExitCode(DONE, "done", ""),
    ExitCode(FAILED, "failed; the reason stands on standard error", "read the reason"),
    ExitCode(USAGE, "the command was called wrongly", "look at its `--help`"),
    ExitCode(NOT_RUNNING, "no daemon answers; of `service status`: it does not run", "`xybridd run`, `xybridd doctor`"),
    ExitCode(NOT_PERMITTED, "not permitted; the message names the group to join", "join it, and log in again"),
    ExitCode(BAD_CONFIG, "the config file cannot be used", "`xybridd config check`"),
    ExitCode(WARNED, "`doctor` found something to look at", "read what it says"),
    ExitCode(PROBLEM, "`doctor` found a problem", "run the command that it shows"),
    ExitCode(INTERRUPTED, "interrupted by Ctrl-C", ""),
)
