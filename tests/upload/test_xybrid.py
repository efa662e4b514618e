"""What is sent to the ingest: the format, and the same bytes for the same job."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest

from tests.upload.given import KEY, deletion_item, job, session_item, target
from xybridd.upload import xybrid
from xybridd.upload.request import url_below

JOB = job(
    target("https://ingest.invalid/", headers={"X-Fleet": "north", "authorization": "no", "Content-Type": "no"}),
    session_item("11111111-1111-1111-1111-111111111111", revision=2),
    deletion_item("22222222-2222-2222-2222-222222222222"),
    deletion_item(""),
    key="33333333-3333-3333-3333-333333333333",
)


def test_the_body_is_the_formats() -> None:
    body = json.loads(gzip.decompress(xybrid.request(JOB).body))
    assert body["idempotency_key"] == JOB.key
    export, session_deletion, device_deletion = body["events"]
    payload = export.pop("payload")
    assert payload["session"]["session_id"] == JOB.items[0].session_id
    assert payload["extensions"]["revision"] == 2
    assert export == {
        "session_id": "11111111-1111-1111-1111-111111111111",
        "event_type": "SessionExport",
        "device_id": "device",
        "platform": "linux",
        "app_version": "1.2",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "pipeline_id": None,
        "trace_id": None,
        "stages": None,
    }
    assert session_deletion["event_type"] == "SessionDeletion"
    assert session_deletion["payload"] == {"session_id": "22222222-2222-2222-2222-222222222222"}
    assert (device_deletion["event_type"], device_deletion["session_id"]) == ("DeviceDeletion", "")


def test_an_export_goes_byte_for_byte_as_it_was_made() -> None:
    assert JOB.items[0].body in xybrid.body(JOB)


def test_the_headers() -> None:
    assert xybrid.request(JOB).headers == {
        "X-Fleet": "north",
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "Accept": "*/*",
        "User-Agent": "xybridd/0.1.0",
        "Idempotency-Key": JOB.key,
        "Authorization": f"Bearer {KEY}",
    }


def test_the_same_job_gives_the_same_bytes() -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(JOB), type=type(JOB))
    assert xybrid.request(again) == xybrid.request(JOB)
    retried = msgspec.structs.replace(JOB, again=True)
    assert xybrid.request(retried).body == xybrid.request(JOB).body


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://a", "https://a/v1/x"),
        ("https://a/", "https://a/v1/x"),
        ("https://a/tenant/7/", "https://a/tenant/7/v1/x"),
        ("https://a/v1/x", "https://a/v1/x"),
        ("https://a/v1/x/?k=1#part", "https://a/v1/x?k=1"),
        ("https://a?k=1", "https://a/v1/x?k=1"),
    ],
)
def test_the_path_comes_to_the_end_of_the_endpoint(endpoint: str, url: str) -> None:
    assert url_below(endpoint, "/v1/x") == url
