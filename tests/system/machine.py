"""A tree, booted: real systemd as its first process, in namespaces of its own and without a network."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterable

XYBRIDD = "/opt/xybridd/bin/xybridd"
PYTHON = "/opt/xybridd/bin/python"

#: nspawn wants a /run/systemd to write into; it gets one that nobody else sees.
_BOOT = "mount -t tmpfs tmpfs /run/systemd && exec systemd-nspawn --boot --quiet --register=no --keep-unit"
_UP = {"running", "degraded"}


class Machine:
    def __init__(self, tree: Path, log: Path) -> None:
        self.tree = tree
        self._log = log
        self._container: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        # Each boot has an id of its own. nspawn gives one too, but systemd 252 shows a service whose kernel tunables are
        # protected the machine's own below it, which stays the same: the drop-in that `tree.copy` made puts ours there.
        self.tree.joinpath("opt/boot-id").write_text(f"{uuid.uuid4()}\n")
        Path("/run/systemd").mkdir(exist_ok=True)
        script = f'{_BOOT} --private-network --console=pipe --machine=xybridd-test --directory="$0"'
        with self._log.open("ab") as log:
            self._container = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self.tree)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._is_up, f"the system to boot:\n{self._log.read_text('utf-8', 'replace')[-2000:]}")

    def _is_up(self) -> bool:
        assert self._container is not None
        assert self._container.poll() is None, self._log.read_text("utf-8", "replace")[-2000:]
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._init = int(child)
                    return self.run("systemctl", "is-system-running", check=False).stdout.strip() in _UP
        return False

    def power_off(self) -> None:
        """As the button does: every service is stopped."""
        if self._container is None:
            return
        if self._container.poll() is None:
            self.run("systemctl", "poweroff", check=False)
            try:
                self._container.wait(60)
            except subprocess.TimeoutExpired:
                self.pull_the_plug()

    def pull_the_plug(self) -> None:
        """The first process is killed, and with it at once every other."""
        assert self._container is not None
        os.kill(self._init, signal.SIGKILL)
        self._container.wait(60)

    def command(self, words: Iterable[str], user: str | None = None) -> list[str]:
        inside = ["nsenter", f"--target={self._init}", "--all", "--wd=/"]
        inside += ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
        if user is not None:
            inside += [f"HOME=/home/{user}", "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*inside, *words]

    def run(self, *words: str, user: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            self.command(words, user), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=100,
            start_new_session=True,
        )  # fmt: skip
        if check:
            assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}{self.journal()}"
        return ended

    def xybridd(self, *words: str, user: str | None = None) -> Any:
        """A command's answer in JSON."""
        return json.loads(self.run(XYBRIDD, *words, "--json", user=user).stdout)

    def journal(self) -> str:
        ended = subprocess.run(
            self.command(["journalctl", "-u", "xybridd.service", "-u", "xybridd.socket", "-n", "40", "--no-pager"]),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return ended.stdout

    def show(self, name: str, unit: str = "xybridd.service") -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def pid(self) -> int:
        pid = int(self.show("MainPID"))
        assert pid > 0, self.journal()
        return pid

    def signal(self, name: str, pid: int) -> None:
        self.run("sh", "-c", f"kill -{name} {pid}")

    def is_running(self) -> bool:
        return self.show("ActiveState") == "active"

    def drop_in(self, text: str) -> None:
        """As `systemctl edit --runtime` would make it; an empty text takes it away."""
        folder = "/run/systemd/system/xybridd.service.d"
        script = f'mkdir -p {folder} && printf "%s" "$0" > {folder}/test.conf' if text else f"rm -rf {folder}"
        self.run("sh", "-c", script, text)
        self.run("systemctl", "daemon-reload")
