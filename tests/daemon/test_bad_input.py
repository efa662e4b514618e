"""What is wrong with a line, and what is said of it; nothing of what is refused is counted as anything else."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.scenes import batch, ledger, producer, refusal, request_line, total
from tests.support import inference, ledger_balances, readable

if TYPE_CHECKING:
    from tests.support import Daemon, Wire

FRAME = 2**20
COMM = Path("/proc/self/comm")


def alive(wire: Wire) -> bool:
    """Whether the connection goes on, with nothing unexpected said before."""
    wire.send_line(b'{"jsonrpc":"2.0","id":"still there","method":"nothing"}')
    answer = wire.read()
    return bool(answer["id"] == "still there" and answer["error"]["code"] == -32601)


# Lines that are not JSON


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"\r",
        b"GET / HTTP/1.1",
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"daemon.status"',
        b'{"jsonrpc":"2.0","id":1,"method":"daemon.status"} x',
        b"\x00",
        b"\x00" * 1000,
        b'\xff\xfe{"id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"caf\xe9"}',
        b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"app":"\xed\xa0\x80"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"later":"\xc3"}}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"daemon.status"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b"[" * 100_000,
        b"[1,",
        b"7x",
        b'"open',
        b'{"a":' * 100_000,
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"NaN",
        b"-Infinity",
        b"'single'",
    ],
    ids=lambda line: repr(line[:40]),
)
def test_a_line_that_is_not_json_is_a_parse_error_and_the_connection_goes_on(wire: Wire, line: bytes) -> None:
    wire.send_line(line)
    answer = wire.read()
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] is None
    assert answer["error"]["code"] == -32700
    assert alive(wire)


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"-Infinity", b"1e", b"01", b".5", b"+1", b"0x10", b'"\\ud800"']
)
def test_params_that_are_not_json_are_a_parse_error(wire: Wire, value: bytes) -> None:
    call = b'{"model_id":"m","version":"1","latency_ms":%b}' % value
    wire.send_line(b'{"jsonrpc":"2.0","id":1,"method":"record.inference","params":%b}' % call)
    assert wire.read()["error"]["code"] == -32700
    assert alive(wire)


# JSON that is no request


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"daemon.status"}]',
        b"null",
        b"7",
        b'"daemon.status"',
        b"{}",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","method":7}',
        b'{"jsonrpc":"1.0","method":"daemon.status"}',
        b'{"method":"daemon.status"}',
    ],
)
def test_json_that_is_no_request_is_an_invalid_request(wire: Wire, line: bytes) -> None:
    wire.send_line(line)
    answer = wire.read()
    assert answer["error"]["code"] == -32600
    assert answer["id"] is None
    assert alive(wire)


@pytest.mark.parametrize("bad_id", [b"{}", b"[1]", b"true", b"false"])
def test_an_id_is_a_string_a_number_or_null(wire: Wire, bad_id: bytes) -> None:
    wire.send_line(b'{"jsonrpc":"2.0","id":%b,"method":"daemon.status"}' % bad_id)
    answer = wire.read()
    assert answer["error"]["code"] == -32600
    assert answer["id"] is None


@pytest.mark.parametrize(
    "good_id", [b"0", b"-1", b"1.5", b'""', b'"a\\u00e9\\n"', b"12345678901234567890123456789", b"null", b"1e5"]
)
def test_an_id_comes_back_as_it_was(wire: Wire, good_id: bytes) -> None:
    wire.send_line(b'{"jsonrpc":"2.0","id":%b,"method":"daemon.flush"}' % good_id)
    line = wire.reader.readline()
    assert b'"id":%b,' % good_id in line
    assert json.loads(line)["result"] == {}


def test_an_invalid_request_is_answered_under_its_id(wire: Wire) -> None:
    wire.send_line(b'{"jsonrpc":"2.0","id":"mine"}')
    answer = wire.read()
    assert answer["id"] == "mine"
    assert answer["error"]["code"] == -32600


@pytest.mark.parametrize("method", ["", "record", "session.Get", "__init__", "x" * 10_000, "daemon.status ", "\x00"])
def test_an_unknown_method_is_method_not_found(wire: Wire, method: str) -> None:
    failure = refusal(wire, method)
    assert failure.rpc_code == -32601
    assert len(failure.message) < 1000


# Notifications


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","method":"daemon.status"}',
        b'{"jsonrpc":"2.0","method":"no.such.method"}',
        b'{"jsonrpc":"2.0","method":"record.inference","params":{"model_id":""}}',
        b'{"jsonrpc":"2.0","method":"record.batch","params":[1,2]}',
        b'{"jsonrpc":"2.0","method":"session.get","params":{"session_id":"nobody"}}',
        b'{"jsonrpc":"2.0","method":"hello","params":null}',
        b'{"jsonrpc":"2.0","method":"record.inference","params":{"model_id":"m","version":"","latency_ms":1e400}}',
        b'{"jsonrpc":"2.0","method":"record.inference","params":{"model_id":"m","version":"","latency_ms":NaN_}}'
        .replace(b"NaN_", b'"x"'),
    ],
)  # fmt: skip
def test_a_notification_is_never_answered(wire: Wire, line: bytes) -> None:
    wire.send_line(line)
    assert alive(wire)


def test_a_notification_that_records_is_counted(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        wire.send_line(
            b'{"jsonrpc":"2.0","method":"record.inference","params":{"model_id":"m","version":"1","latency_ms":1}}'
        )
        assert wire.call("session.get")["total_inferences"] == 1
    assert total(served, session_id) == 1


# Params


BAD_INFERENCES: list[tuple[dict[str, Any], str]] = [
    ({}, "latency_ms"),
    ({"latency_ms": "10"}, "latency_ms"),
    ({"latency_ms": None}, "latency_ms"),
    ({"latency_ms": True}, "latency_ms"),
    ({"latency_ms": [1]}, "latency_ms"),
    ({"latency_ms": -1}, "latency_ms"),
    ({"latency_ms": -0.001}, "latency_ms"),
    ({"latency_ms": 2**53 + 2}, "latency_ms"),
    ({"latency_ms": 10**30}, "latency_ms"),
    ({"latency_ms": 10**400}, "latency_ms"),
    ({"latency_ms": 1, "model_id": ""}, "model_id"),
    ({"latency_ms": 1, "model_id": "m" * 257}, "model_id"),
    ({"latency_ms": 1, "model_id": 7}, "model_id"),
    ({"latency_ms": 1, "version": None}, "version"),
    ({"latency_ms": 1, "version": "v" * 129}, "version"),
    ({"latency_ms": 1, "timestamp_ms": 1.5}, "timestamp_ms"),
    ({"latency_ms": 1, "timestamp_ms": "now"}, "timestamp_ms"),
    ({"latency_ms": 1, "timestamp_ms": 2**53 + 2}, "timestamp_ms"),
    ({"latency_ms": 1, "timestamp_ms": 10**400}, "timestamp_ms"),
    ({"latency_ms": 1, "stats": 7}, "stats"),
    ({"latency_ms": 1, "stats": {"hardware_used": "tpu"}}, "stats.hardware_used"),
    ({"latency_ms": 1, "stats": {"execution_target": "Local"}}, "stats.execution_target"),
    ({"latency_ms": 1, "stats": {"input_tokens": -1}}, "stats.input_tokens"),
    ({"latency_ms": 1, "stats": {"tokens_per_second": 10**400}}, "stats.tokens_per_second"),
    ({"latency_ms": 1, "session_id": 7}, "session_id"),
]


def shown(value: Any) -> str:
    return repr(value)[:60]


@pytest.mark.parametrize(("call", "where"), BAD_INFERENCES, ids=shown)
def test_a_wrong_param_is_named_by_its_path(wire: Wire, call: dict[str, Any], where: str) -> None:
    failure = refusal(wire, "record.inference", **{"model_id": "m", "version": "1", **call})
    assert failure.rpc_code == -32602
    assert failure.code == "invalid_params"
    assert f"$.params.{where}" in failure.message
    assert alive(wire)


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e309", b"9" * 400, b"9" * 5000])
def test_a_number_beyond_all_bounds_is_named_by_its_path(wire: Wire, number: bytes) -> None:
    call = b'{"model_id":"m","version":"1","latency_ms":%b}' % number
    wire.send_line(b'{"jsonrpc":"2.0","id":1,"method":"record.inference","params":%b}' % call)
    error = wire.read()["error"]
    assert error["code"] == -32602
    assert "$.params.latency_ms" in error["message"]


def test_a_wrong_type_in_the_third_record_is_named_by_its_path(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        records = [inference(), inference(), inference(latency_ms="fast"), inference()]  # type: ignore[arg-type]
        failure = refusal(wire, "record.batch", seq=1, records=records)
        assert failure.rpc_code == -32602
        assert "$.params.records[2].latency_ms" in failure.message
        assert total(served, session_id) == 0
        assert batch(wire, 1)["last_seq"] == 1  # its number was not used up
    assert total(served, session_id) == 1


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ({}, "$.params.seq"),
        ({"seq": 1}, "$.params.records"),
        ({"seq": 1, "records": {}}, "$.params.records"),
        ({"seq": 1, "records": [7]}, "$.params.records[0]"),
        ({"seq": 1, "records": [{}]}, "$.params.records[0]"),
        ({"seq": 1, "records": [{"type": "other"}]}, "$.params.records[0]"),
        ({"seq": 1, "records": [{"type": "error"}]}, "$.params.records[0].error"),
        ({"seq": 1, "records": [{"type": "error", "error": "e", "category": "Bad"}]}, "$.params.records[0].category"),
        ({"seq": 1, "records": [], "flush": 1}, "$.params.flush"),
        ({"seq": 0, "records": []}, "$.params.seq"),
        ({"seq": -1, "records": []}, "$.params.seq"),
        ({"seq": 2**63, "records": []}, "$.params.seq"),
        ({"seq": 10**400, "records": []}, "$.params.seq"),
        ({"seq": 1.5, "records": []}, "$.params.seq"),
        ({"seq": "1", "records": []}, "$.params.seq"),
        ({"seq": True, "records": []}, "$.params.seq"),
        ({"seq": None, "records": []}, "$.params.seq"),
    ],
    ids=shown,
)
def test_a_wrong_batch_is_named_by_its_path(wire: Wire, call: dict[str, Any], where: str) -> None:
    wire.hello()
    failure = refusal(wire, "record.batch", **call)
    assert failure.rpc_code == -32602
    assert where in failure.message


@pytest.mark.parametrize("method", ["hello", "session.get", "record.batch", "daemon.status", "session.list"])
@pytest.mark.parametrize("params", [b"[]", b"[1,2]", b"7", b'"x"', b"null", b"true"])
def test_params_are_an_object(wire: Wire, method: str, params: bytes) -> None:
    wire.send_line(b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method.encode(), params))
    error = wire.read()["error"]
    assert error["code"] == -32602
    assert "$.params" in error["message"]


def test_more_records_than_the_limit_are_refused_whole(served: Daemon) -> None:
    wire = served.wire()
    with wire:
        most = wire.hello()["limits"]["max_batch_records"]
        session_id = wire.call("session.start")["session_id"]
        records = [{"type": "error", "error": "e"}] * (most + 1)
        assert "$.params.records" in refusal(wire, "record.batch", seq=1, records=records).message
        assert total(served, session_id) == 0


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\u2028", "🚀" * 64, "\ufffe", "'; DROP TABLE session; --", "a\nb"])
def test_any_text_is_kept_as_it_is(wire: Wire, text: str) -> None:
    wire.hello(app=text)
    wire.call("session.start", labels={text: text})
    wire.call("record.inference", model_id=text, version=text, latency_ms=1)
    session = wire.call("session.get")
    assert session["by_model"][f"{text}@{text}"]["model_id"] == text
    assert session["extensions"]["app"] == text
    assert session["extensions"]["labels"] == {text: text}
    assert wire.call("session.list", app=text)["sessions"][0]["models_used"] == [text]


# Lines that are too long


def test_the_longest_line_is_taken(wire: Wire) -> None:
    line = request_line(1, "daemon.flush")[:-1]
    wire.send_line(line + b" " * (FRAME - len(line)))
    assert wire.read()["result"] == {}


@pytest.mark.parametrize("end", [b"\n", b""], ids=["whole", "unfinished"])
def test_a_line_that_is_too_long_gets_an_error_then_the_connection_is_closed(wire: Wire, end: bytes) -> None:
    wire.sock.sendall(request_line(1, "daemon.flush") + b"x" * (FRAME + 1) + end)
    assert wire.read()["result"] == {}
    answer = wire.read()
    assert answer["id"] is None
    assert answer["error"]["code"] < 0
    assert "max_frame_bytes" in answer["error"]["message"]
    assert wire.closed_by_peer()


def test_who_is_still_writing_a_line_that_is_too_long_can_read_the_error(wire: Wire) -> None:
    def write() -> None:
        try:
            for _ in range(32):
                wire.sock.sendall(b"x" * FRAME)
        except OSError:
            pass  # closed meanwhile, as it should be

    writer = threading.Thread(target=write)
    writer.start()
    assert "max_frame_bytes" in wire.read()["error"]["message"]
    assert wire.closed_by_peer()
    writer.join()


def test_what_was_heard_before_a_line_that_is_too_long_is_kept(served: Daemon) -> None:
    wire, session_id = producer(served)
    with wire:
        kept = request_line(50, "record.batch", seq=1, records=[inference()])
        wire.sock.sendall(kept + b"x" * (FRAME + 1))
        assert wire.read()["id"] == 50
        assert wire.read()["error"]
        assert wire.closed_by_peer()
    assert total(served, session_id) == 1


# One misbehaves, nothing is lost or counted twice


def test_a_neighbour_does_not_notice(served: Daemon) -> None:
    good, session_id = producer(served)
    with good:
        for seq, junk in enumerate([b"\xff" * 100, b"[" * 5000, b"{}", b"x" * (FRAME + 10), b'{"half":'], start=1):
            with served.wire() as bad:
                bad.send_line(junk)
                assert batch(good, seq)["last_seq"] == seq
                bad.read()
    assert total(served, session_id) == 5


def test_requests_in_pieces_of_a_byte_are_requests(wire: Wire) -> None:
    for byte in request_line(1, "daemon.flush"):
        wire.sock.sendall(bytes([byte]))
    assert wire.read()["result"] == {}


def test_many_requests_in_one_write_are_all_answered(wire: Wire) -> None:
    wire.sock.sendall(b"".join(request_line(number, "daemon.flush") for number in range(2000)))
    assert {wire.read()["id"] for _ in range(2000)} == set(range(2000))


def test_a_half_line_at_the_end_is_not_carried_out(served: Daemon) -> None:
    wire, session_id = producer(served)
    wire.sock.sendall(request_line(1, "record.inference", model_id="m", version="", latency_ms=1)[:-1])
    wire.close()
    with served.wire() as other:
        batch_count = other.call("session.get", session_id=session_id)["total_inferences"]
    assert batch_count == 0


def test_the_ledger_names_why_records_were_rejected(served: Daemon) -> None:
    before = ledger(served)
    wire, session_id = producer(served)
    with wire, served.wire() as stranger:
        bad = [inference(), {"type": "inference"}]
        assert refusal(wire, "record.batch", seq=1, records=bad).code == "invalid_params"
        assert refusal(wire, "record.error", error=7).code == "invalid_params"
        assert refusal(wire, "record.error", error="e", session_id="no").code == "unknown_session"
        assert refusal(stranger, "record.batch", seq=1, records=[inference()] * 5).code == "hello_required"
        wire.call("session.end")
        assert refusal(wire, "record.batch", seq=1, records=[inference()] * 4).code == "session_ended"
    after = ledger(served)
    grown = {name: after["rejected"].get(name, 0) - before["rejected"].get(name, 0) for name in after["rejected"]}
    assert {name: count for name, count in grown.items() if count} == {
        "invalid_params": 3,
        "unknown_session": 1,
        "hello_required": 5,
        "session_ended": 4,
    }
    assert after["received"] - before["received"] == 13
    assert ledger_balances(after)
    assert total(served, session_id) == 0


def test_nothing_was_said_that_nobody_asked_for(wire: Wire) -> None:
    wire.hello()
    assert not readable(wire.sock, 0)


@pytest.mark.skipif(not COMM.exists(), reason="only Linux lets a process choose its name like this")
def test_a_process_whose_name_is_not_text_records_like_any_other(daemon: Daemon) -> None:
    """Linux lets a process call itself any 15 bytes; its implicit session must not stand in anybody's way."""
    with daemon.wire() as shell:
        name = b"\xff\xfe"
        with COMM.open("rb+", buffering=0) as comm:
            before = comm.read().strip()
            comm.seek(0)
            comm.write(name)
            try:
                answer = shell.call("record.inference", model_id="m", version="1", latency_ms=1)
            finally:
                comm.seek(0)
                comm.write(before)
        assert shell.call("session.get")["session_id"] == answer["session_id"]
    other, session_id = producer(daemon)
    with other:
        batch(other, 1)
    assert total(daemon, session_id) == 1
    assert daemon.status()["ledger"]["counted"] == 2
