"""The receiver, as a developer meets it: over HTTP, with requests made by hand."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import threading
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from xybridd.testing import Behaviour, Receiver
from xybridd.testing.controller import ReceiverError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENTS = "/v1/events/batch"


def event(session_id: str = "s", revision: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "event_type": "SessionExport",
        "payload": {"extensions": {"revision": revision}},
        "device_id": "d",
        "platform": "linux",
        "app_version": "",
        "timestamp": "2026-11-23T06:24:03.995Z",
        "pipeline_id": None,
        "trace_id": None,
        "stages": None,
        **more,
    }


def batch(*events: dict[str, Any], key: str = "") -> dict[str, Any]:
    return {"events": list(events) or [event()], "idempotency_key": key or str(uuid.uuid4())}


def post(
    receiver: Receiver, body: Any, path: str = EVENTS, *, zipped: bool = False, **headers: str | None
) -> tuple[int, str]:
    """Status and text; raises as http.client does."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given: dict[str, str | None] = {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip" if zipped else None,
        "Authorization": "Bearer right",
        "Idempotency-Key": body.get("idempotency_key") if isinstance(body, dict) else None,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    with closing(http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=30)) as connection:
        sent = {name: value for name, value in given.items() if value is not None}
        connection.request("POST", path, gzip.compress(data) if zipped else data, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(key="right") as started:
        yield started


def test_it_counts_events_by_session_and_revision(receiver: Receiver) -> None:
    assert post(receiver, batch(event("a", 1), event("b", 7)))[0] == 200
    assert post(receiver, batch(event("a", 2)), zipped=True)[0] == 200
    assert receiver.counts() == {("a", 1): 1, ("a", 2): 1, ("b", 7): 1}
    seen = receiver.seen()
    assert (seen["deliveries"], seen["repeats"], len(seen["requests"])) == (2, 0, 2)
    assert seen["batches"][0]["events"][1]["payload"] == {"extensions": {"revision": 7}}


def test_a_key_that_comes_again_counts_nothing_again(receiver: Receiver) -> None:
    given = batch(event("a"))
    assert post(receiver, given) == post(receiver, given)
    assert receiver.counts() == {("a", 1): 1}
    assert receiver.seen()["repeats"] == 1
    # The same event under another key is counted: that is what the count is for.
    assert post(receiver, batch(event("a")))[0] == 200
    assert receiver.counts() == {("a", 1): 2}


def test_one_key_at_a_time(receiver: Receiver) -> None:
    given = batch(event("a"))
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(post(receiver, given)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert receiver.counts() == {("a", 1): 1}
    assert receiver.seen()["repeats"] == 7


def test_the_second_of_one_key_waits_for_the_first(receiver: Receiver) -> None:
    """The first has not sent its body yet; the second must not be answered before it."""
    given = batch(event("a"))
    body = json.dumps(given).encode()
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {given['idempotency_key']}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", receiver.port)) as first:
        first.settimeout(30)
        first.sendall(head)
        # It says that it goes on when it has read the head, just before it takes the key.
        assert first.recv(1000).startswith(b"HTTP/1.1 100")
        second = threading.Thread(target=post, args=(receiver, given))
        second.start()
        first.sendall(body)
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        second.join()
    assert sorted(request["repeat"] for request in receiver.seen()["requests"]) == [False, True]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not a batch of events"),
        (b"[]", "not a batch of events"),
        ({"events": []}, "idempotency_key"),
        ({"events": [], "idempotency_key": "k"}, "no events"),
        (batch(event(payload=[])), "$.events[0].payload"),
        (batch({"session_id": "s"}), "$.events[0]"),
        ({**batch(), "idempotency_key": ""}, "idempotency_key"),
    ],
)
def test_what_is_malformed_is_refused_with_the_reason(receiver: Receiver, body: Any, reason: str) -> None:
    status, said = post(receiver, body)
    assert status == 400
    assert reason in said
    assert receiver.counts() == {}
    assert receiver.seen()["requests"][0]["reason"] == said


def test_headers_are_looked_at(receiver: Receiver) -> None:
    given = batch()
    for headers, status in (
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": None}, 401),
        ({"Content_Type": "text/plain"}, 400),
        ({"Content_Encoding": "br"}, 400),
        ({"Content_Encoding": "gzip"}, 400),
        ({"Idempotency_Key": "another"}, 400),
        ({"Content_Length": "many"}, 400),
        ({}, 200),
    ):
        assert post(receiver, given, **headers)[0] == status, headers
    assert post(receiver, given, "/v2/other")[0] == 404
    assert post(receiver, b"\xff\xff", "/v1/metrics", Content_Type="application/x-protobuf")[0] == 400
    assert post(receiver, b"{}", "/v1/metrics")[0] == 400


def test_behaviours_follow_each_other(receiver: Receiver) -> None:
    receiver.misbehave(
        Behaviour("status", status=503, times=2), Behaviour("reset_before"), Behaviour("status", status=429)
    )
    given = batch(event("a"))
    assert [post(receiver, given)[0] for _ in range(2)] == [503, 503]
    with pytest.raises(ConnectionError):
        post(receiver, given)
    assert [post(receiver, given)[0] for _ in range(2)] == [429, 200]
    assert receiver.counts() == {("a", 1): 1}
    did = [request["did"] for request in receiver.seen()["requests"]]
    assert did == ["status", "status", "reset_before", "status", None]


def test_a_share_of_the_requests_at_random_but_the_same_each_time(receiver: Receiver) -> None:
    def answers() -> list[int]:
        receiver.misbehave(Behaviour("status", status=500, share=0.5, times=None), seed=7)
        return [post(receiver, batch())[0] for _ in range(40)]

    first = answers()
    assert {200, 500} == set(first)
    assert answers() == first


def test_a_lost_answer_is_had_all_the_same(receiver: Receiver) -> None:
    receiver.misbehave(Behaviour("reset_after"), Behaviour("status", status=500, takes=True))
    given = batch(event("a"))
    with pytest.raises(ConnectionError):
        post(receiver, given)
    assert post(receiver, given)[0] == 500
    assert receiver.counts() == {("a", 1): 1}
    assert receiver.seen()["repeats"] == 1


def test_what_it_cannot_do_is_an_error(receiver: Receiver) -> None:
    with pytest.raises(ReceiverError, match="status"):
        receiver.misbehave(Behaviour("status", status=99))
    with pytest.raises(ReceiverError, match="not started"):
        _ = Receiver().url
    with pytest.raises(ReceiverError, match="could not be started"), Receiver(port=receiver.port):
        pass


def test_a_receiver_that_was_killed_does_not_answer(receiver: Receiver) -> None:
    receiver.kill()
    with pytest.raises(ReceiverError, match="does not answer"):
        receiver.seen()


def test_https(folder: Path) -> None:
    authority, certificate = trustme.CA(), folder / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with Receiver(certificate=certificate) as receiver:
        assert receiver.url.startswith("https://")
        with closing(
            http.client.HTTPSConnection("127.0.0.1", receiver.port, timeout=30, context=context)
        ) as connection:
            connection.request("POST", EVENTS, json.dumps(batch(event("a"))), {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200
        # Somebody who does not speak TLS, or says nothing, holds up nobody.
        with socket.create_connection(("127.0.0.1", receiver.port)):
            assert receiver.counts() == {("a", 1): 1}
