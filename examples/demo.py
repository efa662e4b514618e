"""``make run``: a daemon, an app at work, and a live view of what it records; Ctrl-C ends all of it.

    python examples/demo.py [--seconds N]

Everything is kept in `.run/`, so a daemon that is installed on this machine does not notice.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE.parent / ".run"
XYBRIDD = [sys.executable, "-m", "xybridd"]


def start(command: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process that a Ctrl-C on the terminal does not reach: it is ended in order, by `end`."""
    with log.open("wb") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    while text not in log.read_text("utf-8", "replace"):
        if process.poll() is not None:
            sys.exit(f"{log} says why it ended:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.05)


def wait_for_records(env: dict[str, str], app: subprocess.Popen[bytes]) -> None:
    listing = [*XYBRIDD, "sessions", "list", "--active", "--app", "classify-files", "--json"]
    while True:
        found = subprocess.run(listing, env=env, capture_output=True, text=True, check=False)
        if '"total_inferences": ' in found.stdout and '"total_inferences": 0' not in found.stdout:
            return
        if app.poll() is not None:
            sys.exit(f"the app ended: {(KEPT / 'app.log').read_text('utf-8', 'replace')}")
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="xybridd-") as short:
        # The socket has a short path of its own: a clone may lie deeper than a socket's address is long.
        env = {**os.environ, "XYBRIDD_SOCKET": f"{short}/s", "XYBRIDD_DATA_DIR": str(KEPT / "data")}
        daemon = start([*XYBRIDD, "run"], env, KEPT / "daemon.log")
        app = None
        try:
            wait_for("ready", KEPT / "daemon.log", daemon)
            command = [sys.executable, str(HERE / "classify_files.py"), "--seconds", "1e9", "--rate", "50", "--quiet"]
            app = start(command, env, KEPT / "app.log")
            wait_for_records(env, app)
            view = [*XYBRIDD, "sessions", "show", "--app", "classify-files", "--watch"]
            code = subprocess.call([*view, *(["--for", str(seconds)] if seconds else [])], env=env)
        except KeyboardInterrupt:
            code = 130
        finally:
            if app is not None:
                end(app, signal.SIGINT)
            end(daemon, signal.SIGTERM)
    print(f"\nA real daemon and a real model; both have ended. What they kept is in {KEPT.name}/.")
    print("Next: record from your own app, see the quick start in README.md.")
    return 0 if code == 130 else code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
