"""Each target takes any bytes. It raises nothing; an assertion says what has to hold besides."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from tests.core.given import NOW_MS, head
from tests.probes.machines import LINUX
from tests.probes.test_bad_trees import files_of
from tests.rings import Written
from xybridd import config
from xybridd.core import address
from xybridd.core.conditions import Conditions
from xybridd.core.delivery import Job, Outcome, Target
from xybridd.core.export import session_metrics, telemetry_export
from xybridd.core.histogram import Histogram
from xybridd.core.importing import item_from
from xybridd.core.minute import minute_from
from xybridd.core.redaction import redact
from xybridd.core.registry import Producer
from xybridd.core.retry import LONGEST_RETRY_AFTER_S, decide
from xybridd.core.ring import Run, Table, calls_in, parse_header
from xybridd.core.ring import read as read_ring
from xybridd.core.ring import records as records_in
from xybridd.core.session import Session, SessionLimits
from xybridd.core.stats import StatsTotals
from xybridd.daemon.handlers import METHODS
from xybridd.errors import ConfigError, InvalidParams, ParseError
from xybridd.probes.recorded import RecordedTree
from xybridd.probes.register import PROBES, together
from xybridd.protocol import ring as layout
from xybridd.protocol.framing import BadLine, LineSplitter, decode_params, encode_error, encode_result, parse_request
from xybridd.protocol.messages import RecordBatchParams
from xybridd.services.ring_file import Ring
from xybridd.services.sessions import Link
from xybridd.storage import minutes
from xybridd.storage.rows import StoredSession, _model
from xybridd.upload import frames, http, otlp, xybrid
from xybridd.upload.request import Answer, outcome_of, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAME = 4096
KEY = "xk-not-to-be-seen"
_SECRET = "sk-Not8to9Be0Seen1By2Anybody"  # noqa: S105
TARGET = Target("otlp", "https://otlp.example", key=KEY)


def framing(data: bytes) -> None:
    """However the stream is cut, the lines are the same, and each is a request or has an answer that is JSON."""
    whole, broken = LineSplitter(MAX_FRAME).feed(data)
    pieces, splitter, ends = list[bytes](), LineSplitter(MAX_FRAME), False
    for start in range(0, len(data), 7):
        lines, error = splitter.feed(data[start : start + 7])
        pieces += lines
        if ends := error is not None:
            break
    assert (pieces, ends) == (whole, broken is not None)
    for line in whole:
        try:
            request = parse_request(line)
        except BadLine as bad:
            answer = json.loads(encode_error(bad.request_id, bad.error))
            assert answer["error"]["code"] in {-32700, -32600}
        else:
            if request.request_id is not None:
                json.loads(encode_result(request.request_id, None), parse_int=str, parse_float=str)


def messages(data: bytes) -> None:
    """Params of some method are refused by name, or a value; what is recorded can be counted, stored and shown."""
    method = METHODS[sorted(METHODS)[data[0] % len(METHODS)]] if data else METHODS["record.batch"]
    try:
        params = decode_params(method.params, msgspec.Raw(data[1:]))
    except InvalidParams as error:
        assert str(error).startswith("$.params")  # noqa: PT017 - where it is raised is what is tried
        return
    except ParseError:
        return
    msgspec.json.encode(params)
    if isinstance(params, RecordBatchParams):
        session = Session(head(), SessionLimits())
        session.apply(params.records, NOW_MS)
        msgspec.json.encode((session_metrics(session, {}), telemetry_export(session, {})))


def configuration(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        loaded = config.parse(text, Path("config.toml"))
    except ConfigError:
        return
    config.parse(config.as_toml(config.keys(loaded.config)), Path("shown.toml"))


def rings(data: bytes) -> None:
    """A ring full of anything, that shrinks while it is read: each slot is counted or rejected, and reading ends."""
    with tempfile.TemporaryDirectory() as folder:
        written = Written(Path(folder, "rings"))
        written.start()
        written.calls(20)
        written.error("boom", written.model())
        path, whole = written.path, bytearray(written.path.read_bytes())
        written.ring.close()
        # Each three bytes say where, in table, slots or header, and then what is written there.
        sizes = (64, 128, len(whole) - 8192, 200)
        starts = (0, 4096, 8192, 8192)
        for at in range(1, len(data) - 2, 11):
            part = data[at] % 4
            place = starts[part] + (data[at] >> 2 | data[at + 1] << 6) % sizes[part]
            whole[place : place + 8] = data[at + 2 : at + 10].ljust(8, b"\0")
        path.write_bytes(whole[: layout.Geometry(64, 4096).size_bytes])
        fd = os.open(path, os.O_RDWR)
        try:
            _read_ring(fd, path.stat().st_size, data)
        finally:
            os.close(fd)


def _read_ring(fd: int, size_bytes: int, data: bytes) -> None:
    try:
        header = parse_header(os.pread(fd, 4096, 0), size_bytes)
        table, session = Table(), Session(head(), SessionLimits())
        ring = Ring(fd, header, table, Link(1, 0, str), Producer(0, "ring", "app"))
        ring.final = bool(data) and data[0] % 2 == 1
        for turn in range(100):
            if data and data[0] > 250 and turn == 1:
                os.ftruncate(fd, 9000)
            ring.refresh_table()
            found = ring.ready(64)
            slots = 0
            for length, part in read_ring(found, table):
                slots += length
                if isinstance(part, Run):
                    session.count(part.calls, part.others, part.length, NOW_MS)
                    assert part.records + part.rejected <= length
            assert slots == len(found) // 64
            list(records_in(found, table))
            calls_in(found, table)
            table.last_session()
            ring.next += slots
            if not slots:
                later = ring.later()
                assert later is None or later > ring.next
                break
    except InvalidParams as error:
        assert str(error)  # noqa: PT017
        return
    msgspec.json.encode((session_metrics(session, {}), telemetry_export(session, {})))


def rows(data: bytes) -> None:
    """What is stored in a row is read, or passed over; what is read can be shown and sent."""
    minutes.is_sample(data)
    if minutes.is_minute(data):
        # As hours are made, and as an open session's minutes are added up at a start.
        minute = minute_from(data)
        minute.merge(minute_from(data))
        msgspec.msgpack.encode(minute)
    image = _model(("s", 0, "m", "1", 1, 1, 0, 1, 1, data, data, data, 0))
    stored = StoredSession(head(), [image], [])
    session = Session.restored(stored.head, SessionLimits(), stored.models, stored.errors, None)
    msgspec.json.encode(session_metrics(session, {}))
    for read in (Histogram.from_bytes, StatsTotals.from_bytes, Conditions.from_bytes):
        try:
            kept = read(data)
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError, RecursionError):
            continue
        assert read(kept.to_bytes()).to_bytes() == kept.to_bytes()


_TYPES = ("application/json", "application/x-protobuf", "text/html", "")
_STATUSES = (200, 204, 301, 400, 401, 407, 408, 413, 429, 500, 501, 503)


def answers(data: bytes) -> None:
    """Whatever a receiver answers comes to a verdict, with a wait that ends, and says nothing of the key."""
    status, kind, header = (*data[:3], 0, 0, 0)[:3]
    answer = Answer(
        _STATUSES[status % len(_STATUSES)],
        _TYPES[kind % len(_TYPES)],
        data[3 : 3 + header % 40].decode("latin-1") or None,
        data[3 + header % 40 :],
    )
    weighed = http._weighed(answer, "example")
    outcomes = [weighed] if isinstance(weighed, Outcome) else [otlp.judged(weighed), outcome_of(weighed)]
    for outcome in outcomes:
        told = without_secrets(outcome, TARGET)
        assert KEY not in told.detail
        verdict = decide(told, 2, 3, NOW_MS, 0.5)
        assert 0 <= verdict.wait_s <= LONGEST_RETRY_AFTER_S
        msgspec.msgpack.encode(told)


def imports(data: bytes) -> None:
    """A line is refused with a sentence, or becomes an event that can be sent on, and taken in again."""
    try:
        item = item_from(data, NOW_MS)
    except ValueError as error:
        assert str(error)  # noqa: PT017
        return
    sent = xybrid.body(Job(Target("xybrid", "https://x.example"), "k", [item]))
    assert len(json.loads(sent)["events"]) == 1


def pipes(data: bytes) -> None:
    """Between the daemon and its sender."""
    with suppress(frames.BrokenFrame):
        frames.outcome_from(data)
    stream = BytesIO(data)
    with suppress(frames.BrokenFrame):
        while frames.read_job(stream.read) is not None:
            pass


def urls(data: bytes) -> None:
    """What is shown of an address never has its password; where one may send is decided without an exception."""
    url = data.decode("utf-8", "replace")
    address.why_refused(url, allow_insecure=bool(len(data) % 2))
    address.shown_url(url)
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        assert KEY not in address.shown_url(url.replace(f":{password}@", f":{KEY}@", 1))


def texts(data: bytes) -> None:
    """Whatever stands around it, a key that gives itself away is taken out."""
    text = data.decode("utf-8", "replace")
    before, after = text[: len(text) // 2][:1000], text[len(text) // 2 :]
    assert _SECRET not in redact(f"{before} {_SECRET} {after}")


@cache
def _machine(number: int) -> dict[str, Any]:
    return {path: content for path, content in files_of(LINUX[number]).items() if isinstance(content, bytes | str)}


def trees(data: bytes) -> None:
    """A machine one of whose files says something else: every quantity has a reading all the same."""
    which, where = (*data[:2], 0, 0)[:2]
    files = _machine(which % len(LINUX))
    changed = sorted(files)[where % len(files)]
    with tempfile.TemporaryDirectory() as folder:
        for path, content in (files | {changed: data[2:]}).items():
            place = Path(folder, path.lstrip("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
        found: dict[str, Any] = {}
        for probe in PROBES:
            readings = probe.read(RecordedTree(Path(folder)), 1.0)
            assert set(readings) == {quantity.name for quantity in probe.quantities}
            found |= readings
    msgspec.json.encode(together(found))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "framing": framing,
    "messages": messages,
    "configuration": configuration,
    "rings": rings,
    "rows": rows,
    "answers": answers,
    "imports": imports,
    "pipes": pipes,
    "urls": urls,
    "texts": texts,
    "trees": trees,
}
