"""Where to send to: from the config, the environment, and files that hold secrets.

The API key comes from systemd's credentials (``$CREDENTIALS_DIRECTORY/xybrid-api-key``), then from a file that nobody
else may read, then from ``XYBRID_API_KEY``; never from the command line. A file that others may read is refused: the
sink is off until that is mended, status says so, and nothing is lost meanwhile.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xybridd.consent import opted_out
from xybridd.core.delivery import Target
from xybridd.errors import ConfigError
from xybridd.paths import config_files
from xybridd.services.lane import Settings

if TYPE_CHECKING:
    from xybridd.config import Config

DEFAULT_ENDPOINT = "https://ingest.xybrid.dev"

CREDENTIAL = "xybrid-api-key"
_KEY_FILE = "api-key"

#: Longer than any key, shorter than a file named by mistake.
_MOST_SECRET_BYTES = 8192

_HOLDS = {
    "route": "wait_for_route",
    "metered": "wait_while_metered",
    "battery": "wait_on_low_battery",
    "heat": "wait_while_hot",
    "inference": "wait_while_inferring",
}


def settings_of(config: Config, config_path: str | None) -> Settings:
    """What is on, and how; what cannot be used is a problem, and its sink is off."""
    upload = config.upload
    targets, problems = list[Target](), list[str]()
    reason: str | None = None
    if opted_out():
        reason = "the environment asks for no telemetry (XYBRID_TELEMETRY_OPTOUT or DO_NOT_TRACK)"
    elif not upload.enabled:
        reason = "[upload] enabled is false"
    else:
        for made in (_xybrid, _otlp, _file):
            try:
                targets += made(config, config_path)
            except ConfigError as error:
                problems.append(str(error))
        if not targets:
            reason = "; ".join(problems) or "nothing is configured: set XYBRID_API_KEY, or [upload], [otlp] or [file]"
    return Settings(
        targets=tuple(targets),
        off_reason=reason,
        problems=tuple(problems),
        most_items=upload.max_batch_exports,
        most_bytes=upload.max_batch_bytes,
        per_minute=upload.max_requests_per_minute,
        holds_off=frozenset(name for name, key in _HOLDS.items() if not getattr(upload, key)),
        snapshot_s=upload.snapshot_interval_s,
    )


def _xybrid(config: Config, config_path: str | None) -> list[Target]:
    upload = config.upload
    endpoint = os.environ.get("XYBRID_INGEST_URL") or os.environ.get("XYBRID_PLATFORM_URL") or upload.endpoint
    key = _api_key(upload.key_file, config_path)
    if endpoint is None and key is None:
        return []
    return [_target(config, "xybrid", _url(endpoint or DEFAULT_ENDPOINT, "upload.endpoint"), key=key)]


def _otlp(config: Config, _config_path: str | None) -> list[Target]:
    if config.otlp.endpoint is None:
        return []
    headers = _headers(config.otlp.headers_file) if config.otlp.headers_file else {}
    return [_target(config, "otlp", _url(config.otlp.endpoint, "otlp.endpoint"), headers=headers)]


def _file(config: Config, _config_path: str | None) -> list[Target]:
    if config.file.path is None:
        return []
    path = str(Path(config.file.path).expanduser().absolute())
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("file.path leads through a folder whose name is not UTF-8") from error
    return [_target(config, "file", path)]


def _target(config: Config, sink: str, endpoint: str, key: str | None = None, **more: dict[str, str]) -> Target:
    upload = config.upload
    return Target(
        sink=sink,  # type: ignore[arg-type] # one of the three names above
        endpoint=endpoint,
        key=key,
        ca_bundle=None if upload.ca_bundle is None else str(Path(upload.ca_bundle).expanduser()),
        allow_insecure=upload.allow_insecure,
        connect_timeout_s=upload.connect_timeout_s,
        read_timeout_s=upload.read_timeout_s,
        total_timeout_s=upload.total_timeout_s,
        **more,
    )


def _url(text: str, key: str) -> str:
    try:
        parts = urlsplit(text.strip())
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        text.encode()  # an environment may hold bytes that are no text
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"{key} is no URL of a server: expected something like https://ingest.example.com")
    return text.strip().rstrip("/")


def _api_key(named: str | None, config_path: str | None) -> str | None:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    handed = Path(credentials) / CREDENTIAL if credentials else None
    # A blank one is what the unit hands over where there is no key: systemd must have something to hand over.
    if handed is not None and handed.exists() and (key := _secret(handed, private=False)):
        return _one_line(key, str(handed))
    beside = Path(config_path) if config_path else config_files()[0]
    path = Path(named).expanduser() if named else beside.with_name(_KEY_FILE)
    if named or path.exists():
        return _one_line(_secret(path, private=True), str(path))
    key = os.environ.get("XYBRID_API_KEY", "").strip()
    return _one_line(key, "XYBRID_API_KEY") if key else None


def _secret(path: Path, *, private: bool) -> str:
    """What stands in a file; `private`: that nobody else may read or change. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if private and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path} may be read or changed by others and is not used; run: chmod 600 {path}")
            if private and found.st_uid not in {0, os.getuid()}:
                raise ConfigError(f"{path} belongs to another user (uid {found.st_uid}) and is not used")
            return os.read(fd, _MOST_SECRET_BYTES).decode().strip()
        finally:
            os.close(fd)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{path} cannot be read: {why}") from error


def _one_line(key: str, source: str) -> str:
    """A key goes into a header: one word of printable ASCII. Raises ConfigError, which does not show it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{source} holds no key: expected one word of printable ASCII characters")
    return key


def _headers(named: str) -> dict[str, str]:
    path = Path(named).expanduser()
    headers = {}
    for number, line in enumerate(_secret(path, private=True).splitlines(), start=1):
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or not name.strip().replace("-", "").isalnum() or not value.isprintable():
            raise ConfigError(f"{path}: line {number} is no header: expected `Name: value`")
        headers[name.strip()] = value.strip()
    return headers
