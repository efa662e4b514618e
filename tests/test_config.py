from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xybridd.config import Config, as_toml, keys, load, parse
from xybridd.errors import ConfigError

FILE = Path("/etc/xybridd/config.toml")

DEFAULTS: dict[str, Any] = {
    "socket.path": None,
    "socket.mode": "0600",
    "storage.path": None,
    "storage.commit_interval_ms": 1000,
    "storage.retention_days": 30.0,
    "storage.quota_mib": 64.0,
    "session.idle_timeout_s": 1800.0,
    "session.lost_after_s": 30.0,
    "session.rollover_s": 86_400.0,
    "session.max_models": 1000,
    "session.max_errors": 200,
    "limits.max_frame_bytes": 2**20,
    "limits.max_batch_records": 10_000,
    "limits.max_connections": 4096,
    "limits.max_sessions": 4096,
    "limits.user_percent": 50,
    "limits.max_waiting_answers": 20_000,
    "limits.max_held_bytes": 2**25,
    "device.id": None,
    "upload.enabled": True,
    "upload.endpoint": None,
    "upload.key_file": None,
    "upload.ca_bundle": None,
    "upload.allow_insecure": False,
    "upload.snapshot_interval_s": 900.0,
    "upload.max_batch_exports": 50,
    "upload.max_batch_bytes": 475_000,
    "upload.max_requests_per_minute": 15,
    "upload.connect_timeout_s": 5.0,
    "upload.read_timeout_s": 10.0,
    "upload.total_timeout_s": 60.0,
    "upload.wait_for_route": True,
    "upload.wait_while_metered": True,
    "upload.wait_on_low_battery": True,
    "upload.wait_while_hot": True,
    "upload.wait_while_inferring": True,
    "otlp.endpoint": None,
    "otlp.headers_file": None,
    "file.path": None,
    "metrics.listen": None,
    "metrics.textfile": None,
    "metrics.max_models": 200,
    "log.level": "info",
    "log.format": "auto",
}


@pytest.fixture(autouse=True)
def no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XYBRIDD_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    return str(caught.value)


def test_every_key_has_a_default_and_a_meaning() -> None:
    found = keys(Config())
    assert {key.name: key.value for key in found} == DEFAULTS
    assert all(key.default == key.value and key.meaning for key in found)


def test_an_empty_file_is_the_defaults() -> None:
    loaded = parse("", FILE)
    assert (loaded.config, loaded.path, loaded.warnings) == (Config(), str(FILE), [])


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('[socket]\npath = "/run/x"', "socket.path", "/run/x"),
        ('[socket]\nmode = "660"', "socket.mode", "660"),
        ("[storage]\nretention_days = 7", "storage.retention_days", 7.0),
        ("[storage]\ncommit_interval_ms = 0", "storage.commit_interval_ms", 0),
        ('[log]\nlevel = "debug"', "log.level", "debug"),
        ('[device]\nid = "kiosk-7"', "device.id", "kiosk-7"),
    ],
)
def test_a_key_changes_itself_alone(line: str, name: str, value: Any) -> None:
    found = {key.name: key.value for key in keys(parse(line, FILE).config)}
    assert found == {**DEFAULTS, name: value}


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[storage]\nretention_day = 7", "storage.retention_day", "did you mean storage.retention_days?"),
        ("[storag]\nretention_days = 7", "storag", "did you mean storage?"),
        ("[log]\nlvel = 'debug'", "log.lvel", "did you mean log.level?"),
        ("[zzz]\nx = 1", "zzz", "known are socket, storage"),
        ("toplevel = 1", "toplevel", "known are socket"),
    ],
)
def test_an_unknown_key_is_a_warning_that_names_the_nearest(text: str, key: str, hint: str) -> None:
    loaded = parse(text, FILE)
    (warning,) = loaded.warnings
    assert loaded.config == Config()
    assert f"{FILE}: unknown key {key} " in warning
    assert hint in warning


def test_unknown_keys_do_not_hide_the_known_ones() -> None:
    loaded = parse("[storage]\nfuture = 1\nquota_mib = 8\n[future]\nx = 1", FILE)
    assert len(loaded.warnings) == 2
    assert loaded.config.storage.quota_mib == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[storage]\nretention_days = "x"', ["storage.retention_days = 'x'", "expected `float`, got `str`"]),
        ("[storage]\nretention_days = 0", ["storage.retention_days = 0", "expected `float` > 0.0"]),
        ("[storage]\nretention_days = nan", ["storage.retention_days = nan", "expected"]),
        ("[storage]\nquota_mib = inf", ["storage.quota_mib = inf", "expected `float` <="]),
        ("[storage]\ncommit_interval_ms = 1.5", ["storage.commit_interval_ms = 1.5", "expected `int`, got `float`"]),
        ("[storage]\ncommit_interval_ms = true", ["storage.commit_interval_ms = True", "expected `int`, got `bool`"]),
        ("[limits]\nmax_frame_bytes = 10", ["limits.max_frame_bytes = 10", "expected `int` >= 1024"]),
        ('[socket]\nmode = "rw"', ["socket.mode = 'rw'", "expected `str` matching regex"]),
        ("[socket]\nmode = 600", ["socket.mode = 600", "expected `str`, got `int`"]),
        ('[log]\nlevel = "loud"', ["log.level = 'loud'", "expected one of debug"]),
        ('[device]\nid = ""', ["device.id = ''", "expected `str` of length >= 1"]),
        ('[metrics]\nlisten = "9464"', ["metrics.listen = '9464'", "an address and a port"]),
        ("storage = 5", ["storage = 5", "expected `object`, got `int`"]),
        ("[session]\nlost_after_s = -1", ["session.lost_after_s = -1", "expected `float` > 0.0"]),
    ],
)
def test_a_wrong_value_names_file_key_value_and_what_was_expected(text: str, said: list[str]) -> None:
    message = refused(text)
    assert message.startswith(f"{FILE}: ")
    assert [part for part in said if part not in message] == [], message


def test_a_wrong_level_names_the_levels_there_are() -> None:
    message = refused('[log]\nlevel = "loud"')
    assert [level for level in ("debug", "info", "warning", "error") if level not in message] == []


@pytest.mark.parametrize("text", ["[storage\n", "x = \n", "a = 1\na = 2\n"])
def test_what_is_not_toml_says_where(text: str) -> None:
    message = refused(text)
    assert message.startswith(f"{FILE}: not TOML: ")
    assert "(at line " in message


# Which file


def test_without_a_file_the_defaults_hold() -> None:
    loaded = load()
    assert (loaded.config, loaded.path) == (Config(), None)


def write(path: Path, level: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'[log]\nlevel = "{level}"')
    return path


def test_the_users_file_comes_before_the_sites(tmp_path: Path) -> None:
    site = write(tmp_path / "site" / "xybridd" / "config.toml", "error")
    assert load().path == str(site)
    user = write(tmp_path / "user" / "xybridd" / "config.toml", "debug")
    assert load().path == str(user)


def test_the_named_file_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "user" / "xybridd" / "config.toml", "debug")
    monkeypatch.setenv("XYBRIDD_CONFIG", str(write(tmp_path / "env.toml", "warning")))
    assert load().config.log.level == "warning"
    assert load(str(write(tmp_path / "option.toml", "error"))).config.log.level == "error"


def test_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml: there is no such file"):
        load(str(missing))
    monkeypatch.setenv("XYBRIDD_CONFIG", str(missing))
    with pytest.raises(ConfigError, match=r"missing\.toml: there is no such file"):
        load()


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read"):
        load(str(path))


def test_a_written_file_changes_nothing_and_names_every_key() -> None:
    text = as_toml(keys(Config()))
    assert parse(text, FILE).config == Config()
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line and not line.endswith('""') else line for line in text.splitlines()
    )
    loaded = parse(uncommented, FILE)
    assert (loaded.config, loaded.warnings) == (Config(), [])
    for name in DEFAULTS:
        table, _, key = name.partition(".")
        assert f"[{table}]" in text
        assert f"# {key} = " in text


def test_a_file_that_everybody_may_change_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[upload]\nendpoint = "https://evil.example"\n')
    path.chmod(0o646)
    with pytest.raises(ConfigError, match=f"chmod o-w {path}"):
        load(str(path))
