"""What networks, proxies and servers do: one job, given to a real sender, and what is said to have come of it."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import until
from tests.upload.given import KEY, broken, job, outcome, outcomes, session_item, target
from xybridd.testing import Behaviour, Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xybridd.core.delivery import Job


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def requests_with(receiver: Receiver, of: Job) -> list[dict[str, Any]]:
    return [each for each in receiver.seen()["requests"] if each["key"] == of.key]


def times_counted(receiver: Receiver, of: Job) -> list[int]:
    counts = receiver.counts()
    return [counts.get((item.session_id, item.revision), 0) for item in of.items]


def test_a_batch_arrives(receiver: Receiver) -> None:
    given = job(receiver.url, session_item(), session_item(revision=3))
    found = outcome(given)
    assert (found.status, found.failure, found.detail) == (200, None, "")
    (request,) = requests_with(receiver, given)
    assert request["body_bytes"] == found.sent_bytes > 0
    assert times_counted(receiver, given) == [1, 1]


def test_one_process_takes_one_job_after_the_other(receiver: Receiver) -> None:
    given = [job(receiver.url) for _ in range(5)]
    assert [found.status for found in outcomes(*given)] == [200] * 5
    assert all(times_counted(receiver, each) == [1] for each in given)


def test_nobody_listens() -> None:
    port = closed_port()
    found = outcome(job(f"http://127.0.0.1:{port}"))
    assert (found.status, found.failure, found.sent_bytes) == (None, "connect", 0)
    assert f"127.0.0.1:{port} takes no connection (connection refused)" in found.detail


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue drops connects silently on Linux alone")
def test_nobody_answers_the_connect() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        found = outcome(job(target(f"http://127.0.0.1:{server.getsockname()[1]}", connect_timeout_s=0.3)))
    assert (found.failure, found.sent_bytes) == ("connect", 0)


def test_a_handshake_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = outcome(job(target(f"https://127.0.0.1:{server.getsockname()[1]}", connect_timeout_s=0.3)))
    assert found.failure == "timeout"


@pytest.mark.parametrize(
    ("behaviour", "failure", "has_it"),
    [
        (Behaviour("reset_before"), "broken", False),
        (Behaviour("reset_during"), "broken", False),
        (Behaviour("reset_after"), "broken", True),
        (Behaviour("truncated"), "broken", True),
        (Behaviour("garbage"), "garbage", False),
        (Behaviour("garbage", takes=True), "garbage", True),
        (Behaviour("portal"), "portal", False),
        (Behaviour("silent", takes=True), "timeout", True),
        (Behaviour("drip", pause_s=0.02), "timeout", True),
    ],
    ids=lambda value: value.kind if isinstance(value, Behaviour) else str(value),
)
def test_what_failed_is_named_and_the_same_job_arrives_once(
    receiver: Receiver, behaviour: Behaviour, failure: str, has_it: bool
) -> None:
    receiver.misbehave(behaviour)
    # A drip is never silent for long: only the limit for the whole ends it.
    limits: dict[str, Any] = {"read_timeout_s": 1.0} if behaviour.kind == "silent" else {"total_timeout_s": 2.0}
    given = job(target(receiver.url, **limits))
    first, second = outcomes(given, given)
    assert (first.status, first.failure) == (None, failure)
    assert first.sent_bytes == second.sent_bytes > 0
    assert second.status == 200
    assert times_counted(receiver, given) == [1]
    last = requests_with(receiver, given)[-1]
    assert last["repeat"] is has_it


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_the_same_place_is_followed_with_the_same_post(receiver: Receiver, status: int) -> None:
    receiver.misbehave(Behaviour("redirect", status=status, times=3))
    given = job(receiver.url)
    assert outcome(given).status == 200
    assert times_counted(receiver, given) == [1]
    paths = [request["path"] for request in requests_with(receiver, given)]
    assert paths == ["/v1/events/batch", *["/moved/v1/events/batch"] * 3]


def test_a_redirect_to_another_place_gets_nothing(receiver: Receiver) -> None:
    with Receiver() as other:
        for location in (
            f"{other.url}/v1/events/batch",
            f"https://127.0.0.1:{receiver.port}/v1/events/batch",
            f"http://localhost:{receiver.port}/v1/events/batch",
            "//[",
            f"http://127.0.0.1:{receiver.port}\\@127.0.0.1:{other.port}/v1/events/batch",
        ):
            receiver.misbehave(Behaviour("redirect", location=location))
            assert outcome(job(receiver.url)).failure == "redirect", location
        assert other.seen()["requests"] == []


def test_a_redirect_in_a_loop_ends(receiver: Receiver) -> None:
    receiver.misbehave(Behaviour("redirect", location="/v1/events/batch", times=None))
    given = job(receiver.url)
    found = outcome(given)
    assert found.failure == "redirect"
    assert "loop" in found.detail
    assert len(requests_with(receiver, given)) == 4


@pytest.mark.parametrize("status", [300, 303, 304])
def test_a_redirect_that_means_something_else_is_none(receiver: Receiver, status: int) -> None:
    receiver.misbehave(Behaviour("status", status=status))
    assert outcome(job(receiver.url)).failure == "redirect"


def test_a_status_is_passed_on(receiver: Receiver) -> None:
    statuses = [202, 204, 400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 501, 502, 503, 504, 505, 511, 599]
    receiver.misbehave(*(Behaviour("status", status=status) for status in statuses))
    found = outcomes(*(job(receiver.url) for _ in statuses))
    assert [each.status for each in found] == statuses
    assert {each.failure for each in found} == {None}
    assert found[2].detail == "the receiver answered 400: told to answer 400"


@pytest.mark.parametrize("said", ["120", "Wed, 21 Oct 2015 07:28:00 GMT", "-5", "9" * 30, "soon", ""])
def test_retry_after_is_passed_on_as_it_came(receiver: Receiver, said: str) -> None:
    receiver.misbehave(Behaviour("status", status=429, retry_after=said))
    assert outcome(job(receiver.url)).retry_after == said


def test_what_concerns_some_batches_only(receiver: Receiver) -> None:
    bad = session_item()
    receiver.misbehave(
        Behaviour("too_large", limit=2, times=None),
        Behaviour("poisoned", session_id=bad.session_id, status=422, times=None),
    )
    found = outcomes(
        job(receiver.url, *(session_item() for _ in range(3))),
        job(receiver.url, session_item(), bad),
        job(receiver.url, session_item(), session_item()),
    )
    assert [each.status for each in found] == [413, 422, 200]


def test_the_wrong_key(receiver: Receiver) -> None:
    found = outcome(job(target(receiver.url, key="xk-of-somebody-else")))
    assert found.status == 401
    assert "xk-of" not in found.detail


# -- names and proxies --------------------------------------------------------------------------------------------------


def test_a_name_that_has_no_address() -> None:
    # Longer than a name can be, so that the resolver says so itself and nothing leaves this machine.
    found = outcome(job(f"https://{'.'.join(['a' * 60] * 5)}.invalid"))
    assert (found.status, found.failure, found.sent_bytes) == (None, "dns", 0)


def test_a_look_up_that_hangs_is_ended_with_its_process() -> None:
    given = job(target("https://ingest.invalid", total_timeout_s=0.2))
    found = outcome(given, broken("hung look-up"), grace_s=1.5)
    assert found.failure == "timeout"


@contextlib.contextmanager
def proxy(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that answers everybody the same; its address, and the first lines it got."""
    lines: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as reader:
                    line = reader.readline()
                    if line == b"stop":
                        return
                    lines.append(line.strip())
                    while reader.readline() not in {b"\r\n", b""}:
                        pass
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        yield f"http://ada:secret-word@127.0.0.1:{port}", lines
        with socket.create_connection(("127.0.0.1", port)) as last:
            last.sendall(b"stop")
        thread.join()


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as (address, lines):
        monkeypatch.setenv("HTTPS_PROXY", address)
        found = outcome(job("https://ingest.invalid"))
    assert [line.rpartition(b" ")[0] for line in lines] == [b"CONNECT ingest.invalid:443"]
    assert (found.failure, found.sent_bytes) == ("proxy", 0)
    assert "HTTPS_PROXY" in found.detail
    assert "secret-word" not in found.detail


def test_a_proxy_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as (address, _):
        monkeypatch.setenv("http_proxy", address)
        assert outcome(job(target("http://ingest.invalid", allow_insecure=True))).failure == "proxy"


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert outcome(job("https://ingest.invalid")).failure == "proxy"


def test_a_proxy_of_a_kind_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1:70")
    assert outcome(job("https://ingest.invalid")).failure == "proxy"


def test_what_goes_to_loopback_goes_through_no_proxy(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert outcome(job(receiver.url)).status == 200


def test_no_proxy_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", ".invalid")
    assert outcome(job(f"https://{'.'.join(['a' * 60] * 5)}.invalid")).failure == "dns"


# -- what is not sent at all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://ingest.invalid",
        "http://127.0.0.1.invalid",
        "http://127.0.0.1@ingest.invalid",
        "http://127.0.0.1\\@ingest.invalid",
        "http://ingest.invalid#@127.0.0.1",
        "ftp://127.0.0.1",
        "127.0.0.1:8080",
        "https://",
        "https://[::1",
        "https://127.0.0.1:many",
        "https://ingest.invalid/a b",
        "",
    ],
)
def test_nothing_is_sent(endpoint: str) -> None:
    found = outcome(job(endpoint))
    assert (found.status, found.failure, found.sent_bytes) == (None, "refused", 0)
    assert found.detail


def test_plain_http_to_loopback_needs_no_leave() -> None:
    found = outcomes(*(job(f"http://{host}:{closed_port()}") for host in ("127.9.8.7", "[::1]", "LOCALHOST")))
    assert {each.failure for each in found} == {"connect"}


def test_a_key_that_cannot_stand_in_a_header_is_not_sent(receiver: Receiver) -> None:
    found = outcomes(*(job(target(receiver.url, key=key)) for key in ("clé€", "two\nlines", "\x00")))
    assert [each.failure for each in found] == ["refused"] * 3


# -- secrets ------------------------------------------------------------------------------------------------------------


def test_no_sentence_holds_a_secret(receiver: Receiver) -> None:
    secrets = [KEY, "word-of-ada", "ada%40home", "ada@home", "token-in-query", "value-of-header"]
    login, query = "ada%40home:word-of-ada", "?access=token-in-query"
    port = receiver.port
    endpoints = [
        f"http://{login}@127.0.0.1:{closed_port()}/{query}",
        f"http://{login}@127.0.0.1:{port}/nowhere{query}",
        f"http://{login}@ingest.invalid/{query}",
        f"https://{login}@127.0.0.1:{port}/{query}",
        f"https://{login}@127.0.0.1:99999/{query}",
        f"ftp://{login}@127.0.0.1/{query}",
    ]
    for endpoint in endpoints:
        receiver.misbehave(Behaviour("redirect", location=f"http://{login}@127.0.0.1:1/{query}"))
        found = outcome(job(target(endpoint, headers={"X-Secret": "value-of-header"})))
        assert found.detail
        assert not [secret for secret in secrets if secret in found.detail], found.detail


def test_a_receiver_that_repeats_what_it_was_given_gives_nothing_away() -> None:
    reply = f"HTTP/1.1 400 Bad\r\nContent-Length: 200\r\n\r\nBearer {KEY} is \x1b[31m wrong".encode().ljust(250)
    with proxy(reply) as (address, _):
        endpoint = "http://" + address.rpartition("@")[2]
        found = outcome(job(endpoint))
    assert found.status == 400
    assert KEY not in found.detail
    assert "\x1b" not in found.detail
    assert "wrong" in found.detail


def test_netrc_is_not_looked_into(receiver: Receiver, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = folder / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ada password other\ndefault login ada password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(netrc))
    assert outcome(job(receiver.url)).status == 200


def test_user_info_is_a_login_where_there_is_no_key(receiver: Receiver) -> None:
    endpoint = receiver.url.replace("//", "//ada:word@")
    assert outcome(job(endpoint)).status == 200  # the key stands above it
    assert outcome(job(target(endpoint, key=None))).status == 401
    bearer = {"authorization": f"Bearer {KEY}"}
    assert outcome(job(target(endpoint, key=None, headers=bearer))).status == 200


# -- the process --------------------------------------------------------------------------------------------------------


def test_a_sender_killed_before_it_answered(receiver: Receiver) -> None:
    given = job(receiver.url)
    found = outcome(given, broken("killed before the answer"))
    assert found.failure == "sender"
    assert "signal 9" in found.detail
    until(lambda: times_counted(receiver, given) == [1], "the batch to arrive")
    assert outcome(given).status == 200
    assert times_counted(receiver, given) == [1]
