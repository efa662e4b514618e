from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from xybridd.config import parse
from xybridd.daemon.targets import DEFAULT_ENDPOINT, settings_of

VARIABLES = (
    "XYBRID_API_KEY", "XYBRID_INGEST_URL", "XYBRID_PLATFORM_URL", "XYBRID_TELEMETRY_OPTOUT", "DO_NOT_TRACK",
    "CREDENTIALS_DIRECTORY", "XYBRIDD_CONFIG",
)  # fmt: skip
SECRET = "xk-9f3a77c1"  # noqa: S105 - of nothing


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))


def settings(tmp_path: Path, text: str = "") -> Any:
    path = tmp_path / "config.toml"
    return settings_of(parse(text, path).config, str(path))


def secret(path: Path, text: str = f"{SECRET}\n", mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_key_and_endpoint_nothing_is_on(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.targets == ()
    assert "nothing is configured" in found.off_reason
    assert found.problems == ()


def test_a_key_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYBRID_API_KEY", SECRET)
    (target,) = settings(tmp_path).targets
    assert (target.sink, target.endpoint, target.key) == ("xybrid", DEFAULT_ENDPOINT, SECRET)


def test_bytes_that_are_no_text_are_a_problem_and_no_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYBRID_INGEST_URL", "https://ingest.example/\udcff")
    monkeypatch.setenv("HOME", "/home/\udcff")
    found = settings(tmp_path, '[file]\npath = "~/exports.jsonl"')
    assert found.targets == ()
    assert len(found.problems) == 2


def test_an_endpoint_alone_is_enough(tmp_path: Path) -> None:
    (target,) = settings(tmp_path, '[upload]\nendpoint = "http://127.0.0.1:8080/"').targets
    assert (target.endpoint, target.key) == ("http://127.0.0.1:8080", None)


def test_the_environment_comes_before_the_config_and_the_new_name_before_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[upload]\nendpoint = "https://config.example"'
    monkeypatch.setenv("XYBRID_PLATFORM_URL", "https://old.example")
    assert settings(tmp_path, text).targets[0].endpoint == "https://old.example"
    monkeypatch.setenv("XYBRID_INGEST_URL", "https://new.example")
    assert settings(tmp_path, text).targets[0].endpoint == "https://new.example"


def test_credentials_come_first_then_the_file_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XYBRID_API_KEY", "of-the-environment")
    assert settings(tmp_path).targets[0].key == "of-the-environment"
    secret(tmp_path / "api-key", "beside-the-config\n")
    assert settings(tmp_path).targets[0].key == "beside-the-config"
    named = secret(tmp_path / "elsewhere", "of-the-file")
    assert settings(tmp_path, f'[upload]\nkey_file = "{named}"').targets[0].key == "of-the-file"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert settings(tmp_path).targets[0].key == "beside-the-config"
    secret(tmp_path / "credentials" / "xybrid-api-key", "\n", mode=0o440)
    assert settings(tmp_path).targets[0].key == "beside-the-config"
    (tmp_path / "credentials" / "xybrid-api-key").unlink()
    secret(tmp_path / "credentials" / "xybrid-api-key", "of-systemd", mode=0o440)
    assert settings(tmp_path).targets[0].key == "of-systemd"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused_with_what_to_run(tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path / "key", mode=mode)
    found = settings(tmp_path, f'[upload]\nkey_file = "{path}"')
    assert found.targets == ()
    assert found.problems == (f"{path} may be read or changed by others and is not used; run: chmod 600 {path}",)
    assert found.problems[0] in found.off_reason


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_users_key_is_refused(tmp_path: Path) -> None:
    path = secret(tmp_path / "key")
    os.chown(path, 12345, 12345)
    assert "belongs to another user" in settings(tmp_path, f'[upload]\nkey_file = "{path}"').problems[0]


@pytest.mark.parametrize("text", ["", "two words", "with\nnewline", "nön-ascii", "tab\there", "bell\a"])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = secret(tmp_path / "key", f"{text}")
    found = settings(tmp_path, f'[upload]\nkey_file = "{path}"')
    assert found.targets == ()
    assert len(found.problems) == 1
    assert str(path) in found.problems[0]
    assert not text or text not in found.problems[0]


def test_a_file_that_is_not_there_a_folder_and_junk_are_problems(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(bytes(range(256)))
    junk.chmod(0o600)
    for path in (tmp_path / "missing", tmp_path, junk):
        found = settings(tmp_path, f'[upload]\nkey_file = "{path}"')
        assert found.targets == ()
        assert str(path) in found.problems[0]


@pytest.mark.parametrize(
    "url", ["ingest.example.com", "ftp://x", "https://", "https://[::1", "http://x:0", "https://x:99999"]
)
def test_what_is_no_url_is_a_problem(tmp_path: Path, url: str) -> None:
    found = settings(tmp_path, f'[upload]\nendpoint = "{url}"')
    assert found.targets == ()
    assert "upload.endpoint is no URL" in found.problems[0]


def test_one_sink_that_cannot_be_used_takes_no_other_with_it(tmp_path: Path) -> None:
    text = f'[upload]\nendpoint = "nonsense"\n[otlp]\nendpoint = "http://localhost:4318"\n[file]\npath = "{tmp_path}/x"'
    found = settings(tmp_path, text)
    assert [target.sink for target in found.targets] == ["otlp", "file"]
    assert found.off_reason is None
    assert len(found.problems) == 1


def test_headers_come_from_a_private_file(tmp_path: Path) -> None:
    path = secret(tmp_path / "headers", "Api-Key: 123\n\nX-Tenant:  a b \n")
    text = f'[otlp]\nendpoint = "https://otlp.example"\nheaders_file = "{path}"'
    assert settings(tmp_path, text).targets[0].headers == {"Api-Key": "123", "X-Tenant": "a b"}
    path.chmod(0o644)
    assert "chmod 600" in settings(tmp_path, text).problems[0]
    secret(path, "no header")
    assert "line 1" in settings(tmp_path, text).problems[0]


@pytest.mark.parametrize(
    ("name", "value", "out"),
    [
        ("XYBRID_TELEMETRY_OPTOUT", "1", True),
        ("XYBRID_TELEMETRY_OPTOUT", " TRUE ", True),
        ("XYBRID_TELEMETRY_OPTOUT", "Yes", True),
        ("XYBRID_TELEMETRY_OPTOUT", "0", False),
        ("XYBRID_TELEMETRY_OPTOUT", "", False),
        ("DO_NOT_TRACK", "1", True),
        ("DO_NOT_TRACK", "0", False),
    ],
)
def test_who_opts_out_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, *, out: bool
) -> None:
    monkeypatch.setenv("XYBRID_API_KEY", SECRET)
    monkeypatch.setenv(name, value)
    found = settings(tmp_path, f'[file]\npath = "{tmp_path}/x"')
    assert (found.targets == ()) is out
    assert not out or "no telemetry" in found.off_reason


def test_it_can_be_switched_off_whatever_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYBRID_API_KEY", SECRET)
    assert settings(tmp_path, "[upload]\nenabled = false").targets == ()


def test_settings_come_through(tmp_path: Path) -> None:
    text = """
        [upload]
        endpoint = "https://x.example"
        ca_bundle = "~/ca.pem"
        max_batch_exports = 7
        max_batch_bytes = 2048
        max_requests_per_minute = 3
        snapshot_interval_s = 60
        connect_timeout_s = 1.5
        wait_for_route = false
        wait_while_inferring = false
    """
    found = settings(tmp_path, text)
    assert (found.most_items, found.most_bytes, found.per_minute, found.snapshot_s) == (7, 2048, 3, 60)
    assert found.holds_off == {"route", "inference"}
    (target,) = found.targets
    assert (target.connect_timeout_s, target.ca_bundle) == (1.5, str(Path.home() / "ca.pem"))
