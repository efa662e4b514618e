"""The sender with something wrong: ``broken_sender.py MISHAP --parent …``. Everything else is the real one."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from xybridd.upload import sender

if TYPE_CHECKING:
    from xybridd.core.delivery import Job, Outcome


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hang(*_: Any, **__: Any) -> NoReturn:
    """As getaddrinfo hangs: in C, where no Python signal handler runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    while True:
        signal.pause()


def half_write(fd: int, data: bytes) -> int:
    REAL_WRITE(fd, data[: len(data) // 2 + 1])
    die()


REAL_WRITE = os.write
REAL_CARRY_OUT = sender.Sending.carry_out


def killed_before_answer(self: sender.Sending, job: Job) -> Outcome:
    REAL_CARRY_OUT(self, job)
    die()


def exits_before_answer(self: sender.Sending, job: Job) -> NoReturn:
    REAL_CARRY_OUT(self, job)
    sys.exit(3)


def noisy(self: sender.Sending, job: Job) -> Outcome:
    print("a library that prints")  # noqa: T201
    os.write(1, b"and one that writes")
    return REAL_CARRY_OUT(self, job)


def breaks(_self: sender.Sending, job: Job) -> NoReturn:
    raise ValueError(f"cannot work with {job.target.key}")


def babbles(_self: sender.Sending, _job: Job) -> NoReturn:
    os.write(PIPE, b"\xff" * 64)
    hang()


PIPE = os.dup(1)

match sys.argv.pop(1):
    case "hung look-up":
        socket.getaddrinfo = hang
    case "killed before the answer":
        sender.Sending.carry_out = killed_before_answer  # type: ignore[method-assign]
    case "exits before the answer":
        sender.Sending.carry_out = exits_before_answer  # type: ignore[method-assign]
    case "killed while writing":
        os.write = half_write  # type: ignore[assignment]
    case "noisy":
        sender.Sending.carry_out = noisy  # type: ignore[method-assign]
    case "breaks":
        sender.Sending._carry_out = breaks  # type: ignore[method-assign,assignment]
    case "babbles":
        sender.Sending.carry_out = babbles  # type: ignore[method-assign,assignment]
    case "does not start":
        raise SystemExit(7)
    case unknown:
        raise SystemExit(f"no such mishap: {unknown}")

sender.main()
