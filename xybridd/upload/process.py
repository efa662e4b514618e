"""The daemon's side of the sender: starts it when there is a job, ends it when it does not answer.

A job that was given to a process which then ended without an answer is an outcome, ``sender``; one that was not
answered in time is ``timeout``, and the process is killed, since what hangs in it (a look-up of a name, a disk) cannot
be stopped from inside. The exception is a process that ends itself after a minute without work just when a job comes:
it says by exit code 0 that it took nothing, and the job goes to the next.

There is no loop that looks after the process: that it ended is seen by asyncio, which closes its pipes, and by us when
the next job comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import xybridd
from xybridd.core.delivery import Job, Outcome
from xybridd.upload.frames import LENGTH_BYTES, BrokenFrame, framed, length_of, outcome_from

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "xybridd.upload.sender")

#: What the sender may see of our environment: proxies, certificates, how names are found, where Python finds its code.
#: No XYBRID_API_KEY, no NOTIFY_SOCKET or LISTEN_FDS of systemd's.
_PASSED_ON = frozenset(
    {
        "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OPENSSL_CONF",
        "RES_OPTIONS", "LOCALDOMAIN", "LD_LIBRARY_PATH",
        "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE",
    }
)  # fmt: skip

#: How long we wait for a process to be gone that was killed: one whose disk hangs may take for ever.
_BURIAL_S = 2.0


def environment_from(ours: Mapping[str, str]) -> dict[str, str]:
    passed = {name: value for name, value in ours.items() if name in _PASSED_ON}
    # The same code as ours, wherever it was imported from: `-P` keeps Python from looking in the current folder.
    root = Path(xybridd.__file__).resolve().parents[1]
    if root.name not in {"site-packages", "dist-packages"}:
        passed["PYTHONPATH"] = os.pathsep.join(part for part in (str(root), passed.get("PYTHONPATH")) if part)
    return passed


class Sender:
    """One sender's process at most, one job at a time; of use in the event loop's thread, which must be the main one.

    ``grace_s`` comes on top of a job's own time limit, for starting the process and for what that limit does not reach;
    ``idle_s`` is how long the process waits for a job until it ends.
    """

    def __init__(self, command: Sequence[str] = COMMAND, *, idle_s: float = 60.0, grace_s: float = 10.0) -> None:
        self._command = tuple(command)
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._one_at_a_time = asyncio.Lock()
        self._process: Process | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def send(self, job: Job) -> Outcome:
        """What came of it. Raises nothing but CancelledError: then the process is gone, and what came of it unknown."""
        async with self._one_at_a_time:
            outcome = await self._attempt(job)
            if outcome is None:
                outcome = await self._attempt(job)
            return outcome or _lost("ended before it took the job, twice")

    async def close(self) -> None:
        """Kill the process at once; the outcome of a job under way, and of any later one, is ``sender``."""
        self._closed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
        # Who waits for an answer gets none now, and lets go of the lock.
        async with self._one_at_a_time:
            await self._end()

    async def _attempt(self, job: Job) -> Outcome | None:
        """None when the process ended without having taken anything of the job."""
        if self._closed:
            return _CLOSED
        try:
            process = await self._running()
        except OSError as error:
            return _lost(f"could not be started: {error.strerror or error}")
        try:
            async with asyncio.timeout(job.target.total_timeout_s + self._grace_s):
                return await _exchange(process, job)
        except TimeoutError:
            await self._end()
            return Outcome(failure="timeout", detail="nothing came of it in time, and the sender was ended")
        except (EOFError, OSError, BrokenFrame) as error:
            return self._loss(await self._end(), error)
        except BaseException:
            await self._end()
            raise

    def _loss(self, exit_code: int | None, error: Exception) -> Outcome | None:
        if self._closed:
            return _CLOSED
        if exit_code == 0:
            return None
        log.warning("the sender ended with %s in the middle of a job: %s", exit_code, error)
        return _lost(f"ended ({_how(exit_code)}) in the middle of a job")

    async def _running(self) -> Process:
        process = self._process
        if process is None or process.returncode is not None:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--parent", str(os.getpid()), "--idle-s", str(self._idle_s)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment_from(os.environ),
                # Ctrl-C at a terminal goes to the whole group; what to do about it is the daemon's decision.
                start_new_session=True,
            )
            if self._closed:  # meanwhile
                process.kill()
        return process

    async def _end(self) -> int | None:
        """Kill the process if it lives, and wait until it and its pipes are gone; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(_BURIAL_S):
                if process.stdout.at_eof():  # it is ending by itself, and its exit code has something to say
                    await process.wait()
        except TimeoutError:
            pass
        with suppress(ProcessLookupError):
            process.kill()
        try:
            async with asyncio.timeout(_BURIAL_S):
                code = await process.wait()
                while await process.stdout.read(2**16):
                    pass
                process.stdin.close()
                with suppress(OSError):
                    await process.stdin.wait_closed()
        except TimeoutError:
            log.warning("the sender (pid %s) was killed and is still there; its disk or network hangs", process.pid)
            return None
        return code


async def _exchange(process: Process, job: Job) -> Outcome:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(framed(job))
    await process.stdin.drain()
    length = length_of(await process.stdout.readexactly(LENGTH_BYTES))
    return outcome_from(await process.stdout.readexactly(length))


def _how(code: int | None) -> str:
    if code is None:
        return "it hangs"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _lost(what: str) -> Outcome:
    return Outcome(failure="sender", detail=f"the sender {what}")


_CLOSED = _lost("is closed")
