"""Records as they come, against a real daemon: ``xybridd tail``, and ``records.watch`` beneath it."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from tests.support import PATIENCE_S, inference, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Daemon, Wire


def producing(daemon: Daemon, app: str = "kiosk") -> Wire:
    wire = daemon.wire()
    wire.hello(app)
    wire.call("session.start")
    return wire


@contextlib.contextmanager
def tailing(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "xybridd", "tail", *arguments],
        env={**daemon.env, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_of(process: subprocess.Popen[str], send: Callable[[], None], number: int) -> list[str]:
    """The first lines, from when it watches on: what is sent before that is sent again."""
    assert process.stdout is not None
    done = threading.Event()

    def again() -> None:
        while not done.wait(0.1):
            send()

    sender = threading.Thread(target=again)
    sender.start()
    try:
        return [process.stdout.readline() for _ in range(number)]
    finally:
        done.set()
        sender.join(PATIENCE_S)


def test_records_as_they_come(daemon: Daemon) -> None:
    with producing(daemon) as wire, tailing(daemon) as tail:
        stats = {"hardware_used": "gpu", "tokens_per_second": 41.5}

        def send() -> None:
            wire.call("record.inference", model_id="whisper\x1b[31m", version="1.0", latency_ms=212, stats=stats)
            wire.call("record.error", error="no /home/ada/model.onnx", model_id="whisper")

        shown = "".join(lines_of(tail, send, 3))
        assert "kiosk  whisper·[31m@1.0  212 ms  gpu  41.5 tok/s\n" in shown
        assert "kiosk  whisper  error (" in shown
        assert "): no ~/model.onnx\n" in shown
        tail.send_signal(signal.SIGINT)
        assert tail.wait(PATIENCE_S) == 130


def test_a_cancelled_call_is_shown_with_how_long_it_ran(daemon: Daemon) -> None:
    with producing(daemon) as wire, tailing(daemon) as tail:
        record = {"type": "cancelled", "model_id": "whisper", "version": "1.0", "latency_ms": 14_000}
        seqs = itertools.count(1)

        def send() -> None:
            wire.call("record.batch", seq=next(seqs), records=[record], flush=True)

        assert lines_of(tail, send, 1)[0].endswith("kiosk  whisper@1.0  cancelled after 14,000 ms\n")


def test_what_is_asked_for_as_json_lines_and_no_more(daemon: Daemon) -> None:
    with producing(daemon) as wire, tailing(daemon, "--errors", "--app", "kiosk", "--json", "-n", "2") as tail:

        def send() -> None:
            wire.call("record.inference", model_id="m", version="1", latency_ms=1)
            wire.call("record.error", error="boom", category="network")

        found = [json.loads(line) for line in lines_of(tail, send, 2)]
        assert tail.wait(PATIENCE_S) == 0
    assert {(each["type"], each["error"], each["category"], each["app"]) for each in found} == {
        ("error", "boom", "Network", "kiosk")
    }
    assert all(isinstance(each["timestamp_ms"], int) and each["session_id"] for each in found)


def test_it_ends_when_told_to_or_when_the_daemon_goes(daemon: Daemon) -> None:
    assert daemon.xybridd("tail", "--for", "0.2").stdout == ""
    with tailing(daemon) as tail:
        until(lambda: daemon.status()["connections"] == 2, "the tail to connect")
        daemon.stop()
        assert tail.wait(PATIENCE_S) == 3
        assert tail.stderr is not None
        assert "xybridd doctor" in tail.stderr.read()
    gone = daemon.xybridd("tail")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "Example:  xybridd tail" in daemon.xybridd("tail", "--help").stdout


# The method


def next_told(wire: Wire) -> Any:
    message = wire.read()
    assert message["method"] == "records.counted"
    return message["params"]


def test_every_record_of_a_batch_and_of_a_single_call_is_told_once(daemon: Daemon) -> None:
    with producing(daemon) as wire, daemon.wire() as watcher:
        assert watcher.call("records.watch") == {}
        records = [inference(f"m{number}") for number in range(1200)]
        wire.call("record.batch", seq=1, records=records, flush=True)
        wire.call("record.batch", seq=1, records=records, flush=True)  # a duplicate is not counted, and not told
        wire.call("record.inference", model_id="last", version="1", latency_ms=1)
        seen: list[str] = []
        while "last" not in seen:
            told = next_told(watcher)
            assert told["dropped"] == 0
            seen += [record["model_id"] for record in told["records"]]
        assert seen == [*(record["model_id"] for record in records), "last"]


def test_who_does_not_read_holds_up_nobody_and_learns_what_was_missed(daemon: Daemon) -> None:
    sent = got = dropped = 0
    with producing(daemon) as wire, daemon.wire() as watcher:
        watcher.call("records.watch")
        for seq in range(1, 41):
            wire.call("record.batch", seq=seq, records=[inference("a-model-with-a-longer-name")] * 1000)
            sent += 1000
        assert wire.call("session.get")["total_inferences"] == sent
        # A reader that comes back makes room; what comes then says how much did not fit.
        while not dropped:
            wire.call("record.inference", model_id="more", version="1", latency_ms=1)
            sent += 1
            told = next_told(watcher)
            got, dropped = got + len(told["records"]), dropped + told["dropped"]
        while got + dropped < sent:
            told = next_told(watcher)
            got, dropped = got + len(told["records"]), dropped + told["dropped"]
        assert got + dropped == sent
        assert got > 500
