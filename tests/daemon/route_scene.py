"""Run in a network namespace of its own: no way out, then one; the daemon is to notice by itself. Prints what was seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import Daemon, until
from xybridd.testing import Receiver

ADDRESS = "10.99.0.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main(folder: Path) -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", "near", "type", "veth", "peer", "name", "far")
    ip("addr", "add", f"{ADDRESS}/24", "dev", "near")
    for end in ("near", "far"):
        ip("link", "set", end, "up")
    with Receiver(host=ADDRESS) as receiver:
        config = f'[upload]\nendpoint = "{receiver.url}"\nallow_insecure = true\nwait_while_inferring = false\n'
        daemon = Daemon(folder, config).start()
        try:
            with daemon.wire() as wire:
                wire.hello("scene")
                session_id = wire.call("session.start")["session_id"]
                wire.call("record.inference", model_id="m", version="1", latency_ms=5)
                wire.call("session.end")
                held = until(
                    lambda: (s := wire.call("upload.status")["sinks"][0])["state"] == "holding" and s, "it to be held"
                )
            before = receiver.seen()["requests"]
            ip("route", "add", "default", "via", "10.99.0.2", "dev", "near")
            until(lambda: receiver.counts() == {(session_id, 1): 1}, "the export to arrive")
            sys.stdout.write(json.dumps({"reason": held["reason"], "requests_before": len(before)}))
        finally:
            daemon.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
