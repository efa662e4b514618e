"""The configuration: one TOML file, every key optional, each with its unit and its default here and nowhere else.

An unknown key is a warning that names the nearest one, since a newer file must not stop an older daemon; a value of
the wrong kind is an error that names file, key, value and what was expected.
"""

from __future__ import annotations

import stat
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec import Meta

from xybridd.errors import ConfigError
from xybridd.paths import config_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Seconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]


def _says(meaning: str, *, live: bool = False) -> Meta:
    """What a key means; ``live`` keys are applied by SIGHUP, the others by a restart."""
    return Meta(description=meaning, extra={"live": live})


class SocketConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str | None, _says("where the daemon listens; default: in the user's runtime folder")] = None
    mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$"), _says("who may connect, as chmod writes it, in octal")] = "0600"


class StorageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str | None, _says("the data folder; default: in the user's data folder")] = None
    commit_interval_ms: Annotated[
        int,
        Meta(ge=0, le=60_000),
        _says("ms that a background batch may wait to share a commit with others", live=True),
    ] = 1000
    retention_days: Annotated[
        float, Meta(gt=0, le=36_500), _says("days that an ended session is kept on this device", live=True)
    ] = 30.0
    quota_mib: Annotated[
        float,
        Meta(ge=1, le=1_048_576),
        _says("MiB that the database may take; past it the oldest sessions go", live=True),
    ] = 64.0


class SessionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    idle_timeout_s: Annotated[
        _Seconds, _says("s without a record until a session that no producer holds ends", live=True)
    ] = 1800.0
    lost_after_s: Annotated[
        _Seconds, _says("s until a session whose producer's connection broke ends as client_lost", live=True)
    ] = 30.0
    rollover_s: Annotated[_Seconds, _says("s after which a session is followed by the next", live=True)] = 86_400.0
    max_models: Annotated[
        int, Meta(ge=1, le=100_000), _says("distinct models a session; past it they count as `other`")
    ] = 1000
    max_errors: Annotated[
        int, Meta(ge=1, le=100_000), _says("distinct errors a session; past it they count as `other`")
    ] = 200


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_frame_bytes: Annotated[int, Meta(ge=1024, le=2**28), _says("bytes of one request line")] = 2**20
    max_batch_records: Annotated[int, Meta(ge=1, le=1_000_000), _says("records in one batch")] = 10_000
    max_connections: Annotated[int, Meta(ge=1, le=100_000), _says("connections at once")] = 4096
    max_sessions: Annotated[int, Meta(ge=1, le=100_000), _says("active sessions at once")] = 4096
    user_percent: Annotated[
        int,
        Meta(ge=1, le=100),
        _says(
            "of connections, active sessions and waiting answers: how much one user may have; "
            "root and the daemon's own user: all"
        ),
    ] = 50
    max_waiting_answers: Annotated[
        int, Meta(ge=1), _says("answers that may wait for the disk before more records are refused")
    ] = 20_000
    max_held_bytes: Annotated[
        int, Meta(ge=2**16), _says("bytes heard and not carried out yet, for all connections together")
    ] = 2**25

    def share(self, of: int) -> int:
        """How much of a limit one user may have."""
        return max(1, of * self.user_percent // 100)


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None,
        _says("the device's id; default: a random UUID kept in the data folder"),
    ] = None


class UploadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The xybrid cloud, and what holds for every sink. Off without a key and an endpoint."""

    enabled: Annotated[bool, _says("false: nothing is sent by any sink, whatever is configured", live=True)] = True
    endpoint: Annotated[
        str | None,
        _says("URL of the ingest API; default: https://ingest.xybrid.dev once there is a key", live=True),
    ] = None
    key_file: Annotated[
        str | None,
        _says("file with the API key, 0600; default: api-key beside the config file, if it is there", live=True),
    ] = None
    ca_bundle: Annotated[
        str | None, _says("file with the certificates to trust; default: those of the system", live=True)
    ] = None
    allow_insecure: Annotated[bool, _says("send over plain HTTP beyond this machine", live=True)] = False
    snapshot_interval_s: Annotated[
        _Seconds, _says("s after which a session that goes on is exported again, if it changed", live=True)
    ] = 900.0
    max_batch_exports: Annotated[int, Meta(ge=1, le=10_000), _says("exports in one request", live=True)] = 50
    max_batch_bytes: Annotated[
        int, Meta(ge=1024, le=2**28), _says("bytes of the exports in one request, uncompressed", live=True)
    ] = 475_000
    max_requests_per_minute: Annotated[
        int, Meta(ge=1, le=100_000), _says("requests a minute, each sink", live=True)
    ] = 15
    connect_timeout_s: Annotated[_Seconds, _says("s until a connection must be made", live=True)] = 5.0
    read_timeout_s: Annotated[_Seconds, _says("s that the receiver may be silent", live=True)] = 10.0
    total_timeout_s: Annotated[_Seconds, _says("s that one request may take in all", live=True)] = 60.0
    wait_for_route: Annotated[bool, _says("wait, at most 24 h, until there is a route", live=True)] = True
    wait_while_metered: Annotated[bool, _says("wait, at most 24 h, while the network is metered", live=True)] = True
    wait_on_low_battery: Annotated[
        bool, _says("wait, at most 24 h, while the battery is under 20 % and does not charge", live=True)
    ] = True
    wait_while_hot: Annotated[bool, _says("wait, at most 1 h, while the device is hot", live=True)] = True
    wait_while_inferring: Annotated[bool, _says("wait, at most 10 min, while inferences are recorded", live=True)] = (
        True
    )


class OtlpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoint: Annotated[
        str | None,
        _says("base URL of an OpenTelemetry Collector (OTLP over HTTP), such as http://localhost:4318", live=True),
    ] = None
    headers_file: Annotated[str | None, _says("file, 0600, with more headers, a `Name: value` a line", live=True)] = (
        None
    )


class FileConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[
        str | None, _says("file to which exports are appended as JSON lines, for `xybridd import` elsewhere", live=True)
    ] = None


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For Prometheus; off by default, and then nothing listens. Needs the extra ``metrics``."""

    listen: Annotated[
        Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}$")] | None,
        _says("address and port to be scraped at, such as 127.0.0.1:9464; whoever reaches it can read it"),
    ] = None
    textfile: Annotated[
        str | None,
        _says("file written every minute for node_exporter's textfile collector; its name ends with .prom"),
    ] = None
    max_models: Annotated[
        int, Meta(ge=1, le=10_000), _says("models told apart, and kinds of errors; past it they count as `other`")
    ] = 200


_Level = Literal["debug", "info", "warning", "error"]

_Format = Literal["auto", "plain", "json"]

#: msgspec says only that the value is none of an enum's, or does not match.
_EXPECTED = {
    "metrics.listen": "expected an address and a port, such as 127.0.0.1:9464",
    "log.level": f"expected one of {', '.join(get_args(_Level))}",
    "log.format": f"expected one of {', '.join(get_args(_Format))}",
}


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: Annotated[_Level, _says("the least that is logged", live=True)] = "info"
    format: Annotated[
        _Format,
        _says("how: auto (for the journal, a terminal or a file, as it is), plain, or json (an object a line)"),
    ] = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the daemon is told; a table of the file for each field."""

    socket: SocketConfig = SocketConfig()
    storage: StorageConfig = StorageConfig()
    session: SessionConfig = SessionConfig()
    limits: LimitsConfig = LimitsConfig()
    device: DeviceConfig = DeviceConfig()
    upload: UploadConfig = UploadConfig()
    otlp: OtlpConfig = OtlpConfig()
    file: FileConfig = FileConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()


class Loaded(msgspec.Struct, frozen=True):
    """``path`` is the file it came from, None for the defaults alone."""

    config: Config
    path: str | None
    warnings: list[str]


def load(named: str | None = None) -> Loaded:
    """The first config file there is. Raises ConfigError; without any file the defaults hold."""
    files = config_files(named)
    for path in files:
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            if named or len(files) == 1:
                raise ConfigError(f"{path}: there is no such file") from None
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        _check_safe(path)
        return parse(text, path)
    return Loaded(Config(), None, [])


def _check_safe(path: Path) -> None:
    """Who may change it says where everything is sent, with the key. Raises ConfigError."""
    found = path.stat()
    if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: everybody may change it, and it is not used; run: chmod o-w {path}")


def parse(text: str, path: Path) -> Loaded:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deep") from error
    warnings = list(_drop_unknown(tables, str(path)))
    try:
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        expected, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".") or "the file"
        shown = _value_at(tables, key)
        expected = _EXPECTED.get(key, expected[:1].lower() + expected[1:])
        raise ConfigError(f"{path}: {key} = {shown}: {expected}") from error
    return Loaded(config, str(path), warnings)


def _drop_unknown(tables: dict[str, Any], path: str) -> Iterator[str]:
    """Take out keys that nobody knows, saying so for each."""
    known = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for table in list(tables):
        if table not in known:
            yield _unknown(path, table, list(known))
            del tables[table]
        elif isinstance(tables[table], dict):
            keys = [field.name for field in msgspec.structs.fields(known[table])]
            for key in [key for key in tables[table] if key not in keys]:
                yield _unknown(path, f"{table}.{key}", [f"{table}.{name}" for name in keys])
                del tables[table][key]


def _unknown(path: str, key: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only where something is misspelled

    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{path}: unknown key {key} (ignored); {hint}"


def _value_at(tables: dict[str, Any], key: str) -> str:
    value: Any = tables
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return repr(value)


class Key(msgspec.Struct, frozen=True):
    """One key with everything that is to be said about it."""

    name: str
    value: Any
    default: Any
    meaning: str
    live: bool


def _described(table: type) -> Any:
    return cast("msgspec.inspect.StructType", msgspec.inspect.type_info(table)).fields


def keys(config: Config) -> list[Key]:
    """Every key of a config, in the order of the file."""
    out = []
    for table in msgspec.structs.fields(Config):
        values = getattr(config, table.name)
        for field, info in zip(msgspec.structs.fields(table.type), _described(table.type), strict=True):
            described = info.type
            out.append(
                Key(
                    name=f"{table.name}.{field.name}",
                    value=getattr(values, field.name),
                    default=field.default,
                    meaning=described.extra_json_schema["description"],
                    live=described.extra["live"],
                )
            )
    return out


def as_toml(keys_of: list[Key]) -> str:
    """A config file that says what every key is, each commented out at its default: it changes nothing."""
    lines = ["# The configuration of xybridd. Every key is optional; these are the defaults.", ""]
    table = ""
    for key in keys_of:
        named, _, name = key.name.partition(".")
        if named != table:
            table = named
            lines += [f"[{table}]", ""]
        lines.append(f"# {key.meaning}" + ("" if key.live else "; needs a restart"))
        # TOML has no null: a key without a default is shown with an empty text to be filled in.
        default = "" if key.default is None else key.default
        lines += [f"# {name} = {msgspec.json.encode(default).decode()}", ""]
    return "\n".join(lines)
