from __future__ import annotations

import pytest

from xybridd.core.concealing import SECRET, Concealer, secrets_in_url

CONCEALER = Concealer(["tenant-7 secret", "p@ss/word"], {"/srv/homes/ada": "~", "ada": "[user]", "kiosk-9": "[host]"})


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("it says tenant-7 secret here", f"it says {SECRET} here"),
        ("https://x/?q=p%40ss%2Fword", "https://x/"),
        ("Environment=XYBRID_API_KEY=abc", f"Environment=XYBRID_API_KEY={SECRET}"),
        ('Environment="XYBRID_API_KEY=abc"', f'Environment="XYBRID_API_KEY={SECRET}'),
        ("# api_key = 'abc'", f"# api_key = {SECRET}"),
        ("Authorization: Basic abc", f"Authorization: {SECRET}"),
        ("key_file = /etc/xybridd/api-key", "key_file = /etc/xybridd/api-key"),
        ("LoadCredential=xybrid-api-key:/etc/xybridd/api-key", f"LoadCredential=xybrid-api-key:{SECRET}"),
        ("/srv/homes/ada/models by ada on kiosk-9", "~/models by [user] on [host]"),
        ("canada and adamant", "canada and adamant"),
        ("from 10.0.0.7 to a@b.example", "from [ip] to [email]"),
        ("Documentation=https://xybrid.dev", "Documentation=https://xybrid.dev"),
    ],
)
def test_what_is_seen_of_a_line(text: str, seen: str) -> None:
    assert CONCEALER.text(text) == f"{seen}\n"


def test_values_keep_their_shape() -> None:
    given = {"ada": ["tenant-7 secret", 3, None, True, {"at": "/srv/homes/ada"}]}
    assert CONCEALER.value(given) == {"[user]": [SECRET, 3, None, True, {"at": "~"}]}


def test_the_last_look_is_at_the_bytes() -> None:
    assert CONCEALER.finished(b"\x00tenant-7 secret") == b"\x00" + SECRET.encode()


def test_short_secrets_take_no_words_with_them() -> None:
    assert Concealer(["a", "on"], {}).text("on and on") == "on and on\n"


def test_what_is_secret_in_a_url() -> None:
    found = secrets_in_url("https://ada:pw-1@host/path?token=t-2&flag#frag")
    assert found == ["pw-1", "ada", "t-2", "flag", "frag"]
    assert secrets_in_url("http://[bad") == ["http://[bad"]
