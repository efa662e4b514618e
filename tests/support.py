"""What tests share: a real daemon as a process of its own, and a wire to it that knows nothing of our client."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How long a test waits for something that should happen at once: long, since the machine may be busy.
PATIENCE_S = 30.0

#: What the receiver of the tests wants to see; long enough to be found wherever it should not stand.
RECEIVER_KEY = "xk-Zu5Q8-not-to-be-seen"

DATA = Path(__file__).parent / "data"


def golden(name: str) -> list[Any]:
    """The lines of a golden file."""
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; its value. Fails after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    pause = time.sleep
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        pause(0.01)
    return value


class WireFailure(Exception):
    """An error answer: its JSON-RPC code, its stable name, its message."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.rpc_code: int = error["code"]
        self.code: str = error["data"]["code"]
        self.message: str = error["message"]
        self.data: dict[str, Any] = error["data"]


class Wire:
    """A connection that speaks lines: no code of the client, so that a mistake there cannot hide one here."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        try:
            self.sock.connect(str(path))
        except BaseException:
            self.sock.close()
            raise
        self.reader = self.sock.makefile("rb")
        self._last_id = 0
        self._answers: dict[Any, dict[str, Any]] = {}

    def close(self) -> None:
        self.reader.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_line(self, line: bytes) -> None:
        self.sock.sendall(line + b"\n")

    def read(self) -> dict[str, Any]:
        """The next answer, whichever it is. Fails when the connection is closed."""
        line = self.reader.readline()
        if not line:
            raise AssertionError("the daemon closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def closed_by_peer(self) -> bool:
        """Whether nothing more comes: waits for the end of the stream."""
        try:
            return self.reader.read() == b""
        except ConnectionResetError:
            return True

    def send(self, method: str, /, **params: Any) -> int:
        """A request; its id."""
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        self.send_line(json.dumps(request).encode())
        return self._last_id

    def answer_to(self, request_id: int) -> Any:
        """The result of a request, whichever order answers come in. Raises WireFailure."""
        while request_id not in self._answers:
            answer = self.read()
            if "id" in answer:  # else it is a notification: who watches the device may be told of a change at any time
                self._answers[answer["id"]] = answer
        answer = self._answers.pop(request_id)
        assert answer["jsonrpc"] == "2.0"
        if "error" in answer:
            assert "result" not in answer
            raise WireFailure(answer["error"])
        return answer["result"]

    def call(self, method: str, /, **params: Any) -> Any:
        return self.answer_to(self.send(method, **params))

    def hello(self, app: str = "test", client_id: str | None = None, **more: Any) -> Any:
        return self.call("hello", app=app, client_id=client_id or str(uuid.uuid4()), **more)


class Daemon:
    """``xybridd run`` in a process of its own, in a folder of its own, with the config it is given."""

    def __init__(self, folder: Path, config: str = "", env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.data = folder / "data"
        self.log = folder / "log"
        self.config = folder / "config.toml"
        self.config.write_text(config)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XYBRID", "NOTIFY_"))},
            "XYBRIDD_SOCKET": str(self.socket),
            "XYBRIDD_DATA_DIR": str(self.data),
            "XYBRIDD_CONFIG": str(self.config),
            "HOME": str(folder),
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start it, without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xybridd", "run"], env=self.env, stderr=log, stdin=subprocess.DEVNULL
            )

    def start(self) -> Daemon:
        """Start it and wait until it says that it is ready."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        until(lambda: self._ready_since(seen), f"the daemon to be ready; its log:\n{self.said()}")
        return self

    def _ready_since(self, position: int) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.said()}")
        return b"ready" in self.log.read_bytes()[position:]

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def wire(self) -> Wire:
        return Wire(self.socket)

    def status(self) -> Any:
        with self.wire() as wire:
            return wire.call("daemon.status")

    def xybridd(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command against it."""
        return subprocess.run(
            [sys.executable, "-m", "xybridd", *arguments],
            env={**self.env, "COLUMNS": "120", **more.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            **more,
        )


def inference(model_id: str = "m", version: str = "1", latency_ms: float = 10, **more: Any) -> dict[str, Any]:
    return {"type": "inference", "model_id": model_id, "version": version, "latency_ms": latency_ms, **more}


def ledger_balances(ledger: dict[str, Any]) -> bool:
    """The first equation of the ledger."""
    counted = ledger["counted"] + ledger["duplicates"] + sum(ledger["rejected"].values())
    return bool(ledger["received"] == counted)


def readable(sock: socket.socket, within_s: float) -> bool:
    return bool(select.select([sock], [], [], within_s)[0])


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of this process for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
