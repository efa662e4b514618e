"""Several sinks, and what their owner changes while they send."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import until
from tests.survival.scene import (
    KEY,
    arrived_once,
    config,
    drained,
    ended,
    equations_hold,
    give_key,
    now,
    sender_of,
    sinks,
    status_of,
)
from tests.survival.test_offline import free_port
from xybridd.testing import Behaviour, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Daemon


def configured(daemon: Daemon, text: str) -> None:
    """Another config, applied by SIGHUP."""
    seen = daemon.said().count("config read again")
    daemon.config.write_text(text)
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.said().count("config read again") > seen, "the config to be read again")


# Two sinks, of which one is dead


def test_a_dead_receiver_holds_up_no_file(make_sending: Callable[..., Daemon]) -> None:
    port = free_port()
    daemon = make_sending(f"http://127.0.0.1:{port}")
    out = daemon.folder / "out" / "exports.jsonl"
    daemon.config.write_text(daemon.config.read_text() + f'[file]\npath = "{out}"\n')
    daemon.start()
    made = ended(daemon, 30)
    drained(daemon, "file")
    assert [json.loads(line)["session_id"] for line in out.read_text().splitlines()] == made
    until(lambda: status_of(daemon)["last_error"], "the other to fail")
    assert sinks(daemon)["xybrid"]["queued"] == 30
    assert sinks(daemon)["file"]["delivered"] == 30
    equations_hold(daemon)
    with Receiver(key=KEY, port=port) as receiver:
        drained(daemon)
        arrived_once(daemon, receiver, made)


def test_a_dead_collector_holds_up_no_receiver(make_sending: Callable[..., Daemon], receiver: Receiver) -> None:
    port = free_port()
    daemon = make_sending(receiver.url, more=f'[otlp]\nendpoint = "http://127.0.0.1:{port}"')
    daemon.start()
    made = ended(daemon, 12, records=3)
    drained(daemon)
    arrived_once(daemon, receiver, made)
    until(lambda: status_of(daemon, "otlp")["last_error"], "the collector to be missed")
    minutes = sinks(daemon)["otlp"]["queued"]
    assert minutes >= 12
    with Receiver(port=port) as collector:
        drained(daemon, "otlp")
        equations_hold(daemon)
        assert sinks(daemon)["otlp"]["delivered"] >= minutes  # a minute that was full meanwhile comes with a sample
        assert calls_in(collector.seen()["batches"]) == 36


def calls_in(batches: list[dict[str, object]]) -> int:
    """The sum of all points' counts of how long inferences took."""
    found = json.dumps(batches)
    assert "gen_ai.client.operation.duration" in found
    return sum(
        int(point["count"])
        for batch in json.loads(found)
        for resource in batch["metrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
        if metric["name"] == "gen_ai.client.operation.duration"
        for point in metric["exponentialHistogram"]["dataPoints"]
    )


# What the owner changes


def test_a_wrong_key_is_said_and_a_mended_one_is_taken_by_sighup(
    make_sending: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = make_sending(receiver.url)
    give_key(daemon, "wrong-key-17")
    daemon.start()
    made = ended(daemon, 5)
    line = until(lambda: (each := status_of(daemon))["state"] == "blocked" and each, "the key to be refused")
    assert "401" in line["reason"]
    assert 800 < line["next_attempt_in_s"] <= 900
    daemon.stop()
    daemon.start()
    assert receiver.counts() == {}
    give_key(daemon)
    daemon.signal(signal.SIGHUP)
    until(lambda: sinks(daemon)["xybrid"]["queued"] == 0, "it to arrive without being asked to")
    arrived_once(daemon, receiver, made)


@pytest.mark.parametrize("has_it", [False, True])
def test_another_endpoint_in_the_midst_of_a_request(
    make_sending: Callable[..., Daemon], receiver: Receiver, *, has_it: bool
) -> None:
    """What the old one got is known to nobody: it goes to the new one, whole."""
    daemon = make_sending(receiver.url, upload="read_timeout_s = 30\ntotal_timeout_s = 30".replace("read", "read"))
    daemon.config.write_text(
        config(receiver.url).replace("read_timeout_s = 0.5", "read_timeout_s = 30").replace("= 1.5", "= 30")
    )
    daemon.start()
    receiver.misbehave(Behaviour("silent", times=None, takes=has_it))
    made = ended(daemon, 4)
    until(lambda: receiver.seen()["requests"], "the request")
    with Receiver(key=KEY) as other:
        configured(daemon, config(other.url))
        made += ended(daemon, 4)
        drained(daemon)
        arrived_once(daemon, other, made)
        assert len(receiver.counts()) <= (4 if has_it else 0)
        assert set(receiver.counts().values()) <= {1}


def test_a_wait_for_the_old_endpoint_is_no_wait_for_the_new_one(
    make_sending: Callable[..., Daemon], receiver: Receiver
) -> None:
    daemon = make_sending(receiver.url).start()
    receiver.misbehave(Behaviour("status", status=429, retry_after="86400", times=None))
    made = ended(daemon, 3)
    until(lambda: (status_of(daemon)["next_attempt_in_s"] or 0) > 80_000, "the wait")
    with Receiver(key=KEY) as other:
        configured(daemon, config(other.url))
        until(lambda: sinks(daemon)["xybrid"]["queued"] == 0, "it to arrive without being asked to")
        arrived_once(daemon, other, made)


def test_a_pause_outlives_a_restart_and_now_does_not_override_it(sending: Daemon, receiver: Receiver) -> None:
    with sending.wire() as wire:
        assert wire.call("upload.pause")["state"] == "paused"
    made = ended(sending, 3)
    sending.kill()
    sending.start()
    assert now(sending)["state"] == "paused"
    made += ended(sending, 3)
    assert status_of(sending)["queued"] == 6
    assert receiver.seen()["requests"] == []
    with sending.wire() as wire:
        assert wire.call("upload.resume")["state"] == "on"
    until(lambda: sinks(sending)["xybrid"]["queued"] == 0, "it to arrive")
    arrived_once(sending, receiver, made)


@pytest.mark.parametrize("variable", ["XYBRID_TELEMETRY_OPTOUT", "DO_NOT_TRACK"])
def test_who_opts_out_sends_nothing_and_keeps_what_waits(
    make_sending: Callable[..., Daemon], receiver: Receiver, variable: str
) -> None:
    daemon = make_sending(receiver.url).start()
    with daemon.wire() as wire:
        wire.call("upload.pause")
    made = ended(daemon, 3)
    daemon.stop()
    daemon.env[variable] = "1"
    daemon.start()
    with daemon.wire() as wire:
        wire.call("upload.resume")
        status = wire.call("upload.now")
    assert status["state"] == "off"
    assert variable in status["reason"]
    assert status["not_configured"]["xybrid"]["queued"] == 3
    ended(daemon, 2)  # recorded here, and made for nobody
    equations_hold(daemon)
    assert sinks(daemon)["xybrid"]["made"] == 3
    assert receiver.seen()["requests"] == []
    daemon.stop()
    del daemon.env[variable]
    daemon.start()
    drained(daemon)
    arrived_once(daemon, receiver, made)


# What is forgotten


def test_what_is_forgotten_while_the_network_is_up_is_asked_back(sending: Daemon, receiver: Receiver) -> None:
    made = ended(sending, 6)
    drained(sending)
    with sending.wire() as wire:
        assert wire.call("data.forget", session_id=made[2])["deletion_requests"] == 1
    drained(sending)
    arrived_once(sending, receiver, made)
    assert deletions(receiver) == [("SessionDeletion", made[2])]
    with sending.wire() as wire:
        told = wire.call("data.forget", all=True)
    assert (told["sessions"], told["deletion_requests"]) == (5, 1)
    drained(sending)
    assert deletions(receiver) == [("SessionDeletion", made[2]), ("DeviceDeletion", "")]
    arrived_once(sending, receiver, made)


def test_what_is_forgotten_while_the_network_is_down_never_leaves(make_sending: Callable[..., Daemon]) -> None:
    port = free_port()
    daemon = make_sending(f"http://127.0.0.1:{port}", upload="max_batch_exports = 4").start()
    with daemon.wire() as wire:
        wire.call("upload.pause")
        made = ended(daemon, 10)
        wire.call("upload.resume")
    until(lambda: status_of(daemon)["last_error"], "the first failure")
    in_a_batch, never_sent = made[1], made[7]
    with daemon.wire() as wire:
        asked = [
            wire.call("data.forget", session_id=session_id)["deletion_requests"]
            for session_id in (in_a_batch, never_sent)
        ]
    assert asked == [1, 0]  # the first may have arrived
    assert sinks(daemon)["xybrid"]["forgotten"] == 2
    for path in daemon.data.glob("xybridd.db*"):
        assert never_sent.encode() not in path.read_bytes()
    daemon.kill()
    daemon.start()
    with Receiver(key=KEY, port=port) as receiver:
        drained(daemon)
        arrived_once(daemon, receiver, set(made) - {in_a_batch, never_sent}, gone=2)
        assert deletions(receiver) == [("SessionDeletion", in_a_batch)]


def test_what_had_arrived_of_a_batch_that_lost_a_row_is_there_once(sending: Daemon, receiver: Receiver) -> None:
    receiver.misbehave(Behaviour("status", status=503, times=None, takes=True))
    with sending.wire() as wire:
        wire.call("upload.pause")
        made = ended(sending, 5)
        wire.call("upload.resume")
        until(receiver.counts, "the batch to arrive")
        until(lambda: status_of(sending)["last_error"], "its answer")
        wire.call("data.forget", session_id=made[3])
    receiver.misbehave()
    drained(sending)
    assert {session_id for session_id, _ in receiver.counts()} == set(made)
    assert set(receiver.counts().values()) == {1}
    assert deletions(receiver) == [("SessionDeletion", made[3])]
    tally = sinks(sending)["xybrid"]
    assert (tally["made"], tally["delivered"], tally["forgotten"], tally["queued"]) == (6, 5, 1, 0)


def deletions(receiver: Receiver) -> list[tuple[str, str]]:
    return [
        (row["event_type"], row["session_id"])
        for row in receiver.seen()["counts"]
        if row["event_type"].endswith("Deletion")
    ]


# The key


@pytest.mark.parametrize("place", ["file", "environment"])
def test_the_key_is_nowhere_but_where_it_was_given_and_in_the_request(
    make_sending: Callable[..., Daemon], receiver: Receiver, place: str
) -> None:
    daemon = make_sending(receiver.url, env={"XYBRID_API_KEY": KEY} if place == "environment" else None)
    if place == "environment":
        (daemon.folder / "api-key").unlink()
    daemon.config.write_text(daemon.config.read_text() + '[log]\nlevel = "debug"\n')
    daemon.start()
    said = []
    for behaviour in (None, Behaviour("status", status=401), Behaviour("reset_after"), Behaviour("garbage")):
        receiver.misbehave(*([] if behaviour is None else [behaviour]))
        ended(daemon, 2)
        until(lambda: now(daemon) and receiver.seen()["requests"], "a request")
        with daemon.wire() as wire:
            said += [wire.call(method) for method in ("daemon.status", "upload.status", "upload.preview")]
        drained(daemon)
    sender = sender_of(daemon)
    assert sender is not None
    assert KEY not in (Path("/proc") / str(sender.pid) / "environ").read_text("utf-8", "replace")
    assert KEY not in json.dumps(said)
    assert KEY not in json.dumps(receiver.seen())
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid():
            assert KEY not in " ".join(process.info["cmdline"] or [])
    daemon.stop()
    written = [path for path in daemon.folder.rglob("*") if path.is_file() and path.name != "api-key"]
    assert {path.name for path in written} >= {"log", "xybridd.db"}
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
