from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.given import error, session
from xybridd.core.category import ErrorCategory
from xybridd.core.redaction import MAX_MESSAGE_BYTES, redact

REDACTED = [
    # Home directories
    ("cannot open /home/ada/models/m.onnx", "cannot open ~/models/m.onnx"),
    ("cannot open '/home/ada'", "cannot open '~'"),
    ("/Users/ada.lovelace/Library/x", "~/Library/x"),
    ("/root/m.onnx: no such file", "~/m.onnx: no such file"),
    ("in /root", "in ~"),
    (r"C:\Users\Ada\m.onnx", r"~\m.onnx"),
    (r'"C:\\Users\\Ada\\m.onnx"', r'"~\\m.onnx"'),
    ("file:///home/ada/m.onnx", "file://~/m.onnx"),
    ("x=/home/ada/a:/home/bob/b", "x=~/a:~/b"),
    # E-mail addresses
    ("no licence for ada@example.org", "no licence for [email]"),
    ("<Ada.Lovelace+x@mail.example.co.uk>", "<[email]>"),
    # IP addresses
    ("refused by 192.168.0.17", "refused by [ip]"),
    ("refused by 192.168.0.17.", "refused by [ip]."),
    ("refused by 192.168.0.17:8080", "refused by [ip]:8080"),
    ("refused by [2001:db8::8a2e:370:7334]:443", "refused by [[ip]]:443"),
    ("refused by ::1", "refused by [ip]"),
    ("refused by fe80::1", "refused by [ip]"),
    ("refused by 2001:0db8:85a3:0000:0000:8a2e:0370:7334", "refused by [ip]"),
    ("ip=10.0.0.1, gone", "ip=[ip], gone"),
    ("peer:192.168.0.17 is gone", "peer:[ip] is gone"),
    ("refused by ::ffff:192.168.0.17", "refused by [ip]"),
    # Bearer tokens
    ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [redacted]"),
    ("authorization: bearer   s3cr3t-t0ken=", "authorization: bearer [redacted]"),
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
    # API keys
    ("api_key=abcd1234", "api_key=[redacted]"),
    ("api-key: abcd1234", "api-key: [redacted]"),
    ('{"token": "abcd1234"}', '{"token": "[redacted]"}'),
    (r"{\"password\":\"hunter22\"}", r"{\"password\":\"[redacted]\"}"),
    ("X-API-Key: abcd1234", "X-API-Key: [redacted]"),
    ("OPENAI_API_KEY=abcd1234", "OPENAI_API_KEY=[redacted]"),
    ("client_secret: abcd1234", "client_secret: [redacted]"),
    ("bad key sk-abcdefghijklmnop", "bad key [redacted]"),
    ("bad key ghp_abcdefghijklmnopqrstuvwx", "bad key [redacted]"),
    ("bad key hf_abcdefghijklmnopqrst", "bad key [redacted]"),
    ("bad key AKIAIOSFODNN7EXAMPLE", "bad key [redacted]"),
    ("bad eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF", "bad [redacted]"),
    # URLs
    ("GET https://ada:hunter22@example.org/m.onnx", "GET https://example.org/m.onnx"),
    ("GET https://example.org/m.onnx?sig=abcd&x=1 failed", "GET https://example.org/m.onnx failed"),
    ("GET https://example.org?q=ada", "GET https://example.org"),
    ("GET https://example.org/m?q=ada#part", "GET https://example.org/m#part"),
    ("GET https://ada@example.org/m?q=ada, again", "GET https://example.org/m again"),
]

UNTOUCHED = [
    "",
    "Failed to load model",
    "version 1.2.3 of onnxruntime",
    "at 12:34:56, line 7:12",
    "std::bad_alloc in ns::run",
    "shape mismatch: expected [1, 80, 3000], got [1, 80, 2999]",
    "cannot open /opt/models/m.onnx",
    "cannot open C:\\models\\m.onnx",
    "https://example.org/models/m.onnx not found",
    "the key is missing",
    "unexpected token at 7",
    "999.999.999.999",
    "wav2vec2@1.0 is not loaded",
    "/homework/x and /rooted/y",
    "ünïcödé ✓ 模型",
]


@pytest.mark.parametrize(("message", "kept"), REDACTED)
def test_what_must_not_leave_the_device_is_taken_out(message: str, kept: str) -> None:
    assert redact(message) == kept


@pytest.mark.parametrize("message", UNTOUCHED)
def test_the_rest_stays_readable(message: str) -> None:
    assert redact(message) == message


@pytest.mark.parametrize("message", [kept for _, kept in REDACTED])
def test_what_was_redacted_stays_so(message: str) -> None:
    assert redact(message) == message


@pytest.mark.parametrize("length", [10, 2048, 2100, 5000])
def test_a_long_query_is_taken_out_whole(length: int) -> None:
    query = "&".join(["word"] * (length // 5))
    assert redact(f"GET https://example.org/m?{query} failed") == "GET https://example.org/m failed"


@pytest.mark.parametrize("filler", [8, 12, 16])
def test_no_part_of_a_secret_is_kept_where_reading_stops(filler: int) -> None:
    urls = " ".join("https://h/?" + "q" * 2000 for _ in range(4))
    secret = "ghp_" + "S3cret" * 6
    padding = "." * (8192 - len(urls) - 2 - filler)
    assert "S3c" not in redact(f"{urls} {padding} {secret}")


@given(st.text(max_size=3000))
def test_it_is_kept_to_a_kibibyte_of_whole_characters(message: str) -> None:
    kept = redact(message)
    assert len(kept.encode()) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("character", ["a", "é", "模", "🙂"])
@pytest.mark.parametrize("shift", range(4))
def test_a_cut_breaks_no_character(character: str, shift: int) -> None:
    message = "x" * shift + character * 1024
    width = len(character.encode())
    kept = redact(message)
    assert message.startswith(kept)
    assert MAX_MESSAGE_BYTES - width < len(kept.encode()) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("message", "category"),
    [
        ("/home/download/x", ErrorCategory.MODEL_LOADING),
        ("refused, mail gpu@example.org", ErrorCategory.HARDWARE),
        ("x" * 5000 + " out of memory", ErrorCategory.MEMORY),
        ("x" * 100_000 + " onnx", ErrorCategory.INFERENCE),
    ],
)
def test_the_category_is_taken_from_the_whole_as_it_came(message: str, category: ErrorCategory) -> None:
    (kept,) = session(error(message)).errors
    assert kept.category is category
    assert kept.message == redact(message)


def test_errors_that_differ_in_what_is_redacted_are_one() -> None:
    (kept,) = session(error("no licence for ada@example.org"), error("no licence for bob@example.org")).errors
    assert kept.count == 2
