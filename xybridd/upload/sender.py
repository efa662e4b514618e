"""The sender's process: ``python -m xybridd.upload.sender``, started by `xybridd.upload.process` and by nobody else.

Jobs come as frames on standard input, outcomes go as frames to standard output, one at a time. Nothing else ever goes
there: what some library prints goes to standard error. It ends when its input ends, after a minute without a job (exit
code 0, and then no part of a job was taken), and with its parent. A key comes in a job, never on the command line or in
the environment.

requests is imported when the first job for HTTP comes, protobuf when the first for ``otlp`` does.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from xybridd.core.delivery import Job, Outcome
from xybridd.upload.frames import BrokenFrame, framed, read_job
from xybridd.upload.request import outcome_of, without_secrets

if TYPE_CHECKING:
    from types import ModuleType

    from xybridd.upload.http import Transport

IDLE_S = 60.0

#: Whatever the machine is for comes first.
_NICENESS = 10

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_PR_SET_PDEATHSIG = 1


class _Unsendable(Exception):
    """A sink is a pure function of its job: what breaks it once breaks it each time."""


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119


class Sending:
    """Carries jobs out; what it needs for that is loaded when a job needs it."""

    def __init__(self) -> None:
        self._transport: Transport | None = None

    def carry_out(self, job: Job) -> Outcome:
        """Never raises: a job that breaks us is an outcome too, and without its words, which may hold a secret."""
        try:
            outcome = self._carry_out(job)
        except _Unsendable as error:
            broke = _where(error.__cause__ or error)
            outcome = Outcome(
                failure="unsendable", detail=f"no request can be made of it ({broke}); please report that"
            )
        except Exception as error:  # noqa: BLE001
            outcome = Outcome(
                failure="sender", detail=f"the sender broke over this job ({_where(error)}); please report that"
            )
        return without_secrets(outcome, job.target)

    def _carry_out(self, job: Job) -> Outcome:
        if job.target.sink == "file":
            from xybridd.upload import file  # noqa: PLC0415

            return file.append(job)
        if job.target.sink == "otlp":
            from xybridd.upload import otlp  # noqa: PLC0415

            return self._exchange(job, otlp)
        from xybridd.upload import xybrid  # noqa: PLC0415

        return self._exchange(job, xybrid)

    def _exchange(self, job: Job, sink: ModuleType) -> Outcome:
        if self._transport is None:
            from xybridd.upload.http import Transport  # noqa: PLC0415

            self._transport = Transport()
        try:
            request = sink.request(job)
        except Exception as error:
            raise _Unsendable from error
        answer = self._transport.perform(request, job.target)
        if isinstance(answer, Outcome):
            return answer
        outcome: Outcome = getattr(sink, "judged", outcome_of)(answer)
        return msgspec.structs.replace(outcome, sent_bytes=len(request.body))


def serve(stdin: int, stdout: int, idle_s: float) -> None:
    """One job after the other, until there are no more. Raises BrokenFrame."""
    sending = Sending()
    while select.select([stdin], [], [], idle_s)[0]:
        job = read_job(lambda size_bytes: os.read(stdin, min(size_bytes, 2**20)))
        if job is None:
            return
        answer = memoryview(framed(sending.carry_out(job)))
        while answer:
            answer = answer[os.write(stdout, answer) :]


def take_stdout() -> int:
    """Standard output for the frames alone: whoever prints, prints to standard error from here on."""
    ours = os.dup(_STDOUT)
    os.set_inheritable(ours, False)
    os.dup2(_STDERR, _STDOUT)
    return ours


def die_with(parent: int) -> None:
    """On Linux the kernel ends us when our parent ends; elsewhere the end of our input does, after the current job."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew that we want to know
        raise SystemExit(0)


def main(arguments: list[str] | None = None) -> None:
    # As the system has it: no traceback of a KeyboardInterrupt, no clean-up that could hang.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="xybridd.upload.sender", description="Started by the daemon, not by people.")
    parser.add_argument("--parent", type=int, required=True, help="the process with which this one ends")
    parser.add_argument("--idle-s", type=float, default=IDLE_S, help="seconds without a job after which it ends")
    given = parser.parse_args(arguments)
    die_with(given.parent)
    with suppress(OSError):
        os.nice(_NICENESS)
    try:
        serve(_STDIN, take_stdout(), given.idle_s)
    except BrokenFrame as error:
        sys.exit(f"xybridd.upload.sender: {error}")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
