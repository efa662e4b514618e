"""A real Chromium without a window, driven over a pipe by the DevTools protocol: messages of JSON, ended by a zero byte."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

from tests.support import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> str | None:
    """Where there is one; None: it is not installed (Debian: apt-get install chromium)."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """Start it with `with`. Each page is a tab of its own."""

    def __init__(self) -> None:
        path = found()
        assert path is not None
        self._folder = tempfile.mkdtemp(prefix="xyb-chromium-")
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()

        def place() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self.process = subprocess.Popen(
            [
                path, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self._folder}", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
                "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
                *(["--no-sandbox"] if os.getuid() == 0 else []), "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,  # noqa: PLW1509 - the numbers 3 and 4 are the protocol's
            close_fds=False,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._unread = b""
        self._last_id = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """A command and its result."""
        self._last_id += 1
        message = {
            "id": self._last_id,
            "method": method,
            "params": params,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(PATIENCE_S)
            if answer is None:
                raise AssertionError(f"Chromium does not answer {method}")
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def events(self, session: str) -> list[dict[str, Any]]:
        """What was told of a tab until now."""
        while (message := self._read(0)) is not None:
            self._events.append(message)
        return [event for event in self._events if event.get("sessionId") == session]

    def _read(self, timeout_s: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout_s
        while b"\0" not in self._unread:
            if not select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            if not (more := os.read(self._in, 2**20)):
                raise AssertionError(f"Chromium ended with {self.process.wait(PATIENCE_S)}")
            self._unread += more
        message, self._unread = self._unread.split(b"\0", 1)
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def page(self, url: str, width: int = 1440, height: int = 900, **media: str) -> Page:
        return Page(self, url, width, height, media)


class Page:
    """A tab. ``media``: features such as prefers_color_scheme."""

    def __init__(self, browser: Chromium, url: str, width: int, height: int, media: dict[str, str]) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target = target
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.media(**media)
        self.go(url)

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def go(self, url: str) -> None:
        """Open it, and wait until it is there."""
        loaded = len([each for each in self.events() if each["method"] == "Page.loadEventFired"])
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + PATIENCE_S
        while len([each for each in self.events() if each["method"] == "Page.loadEventFired"]) == loaded:
            assert time.monotonic() < deadline, f"{url} does not load"
            self.run("new Promise((done) => setTimeout(done, 20))")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def media(self, **features: str) -> None:
        # Where something is on the page is asked for at once, so that nothing may glide there.
        features = {"prefers_reduced_motion": "reduce", **features}
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it becomes."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, **more: Any) -> None:
        text = {"Enter": "\r", "Space": " "}.get(key)
        name = " " if key == "Space" else key
        codes = {"Tab": 9, "Enter": 13, "Space": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        common = {"key": name, "code": key, "windowsVirtualKeyCode": codes[key], **more}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def events(self) -> list[dict[str, Any]]:
        return self._browser.events(self._session)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and what its policy forbade."""
        found = []
        for event in self.events():
            match event["method"]:
                case "Runtime.consoleAPICalled":
                    found.append(json.dumps(event["params"]["args"]))
                case "Runtime.exceptionThrown":
                    found.append(json.dumps(event["params"]["exceptionDetails"]))
                case "Log.entryAdded":
                    found.append(event["params"]["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        sent = [event for event in self.events() if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path, *, whole: bool = True, clip: dict[str, float] | None = None) -> None:
        more = {"clip": {**clip, "scale": 1}} if clip else {}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **more)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


def _pipe() -> tuple[int, int]:
    """Both ends at numbers that are not 3 or 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
