"""``xybridd bugreport``: one archive to send, without what is nobody else's business."""

from __future__ import annotations

import getpass
import io
import os
import platform
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from xybridd.cli.output import json_bytes, say_done
from xybridd.core.concealing import Concealer, secrets_in_url
from xybridd.core.words import size
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene

_MANIFEST = "MANIFEST.txt"
_HEAD = """\
A bug report of xybridd. Taken out of it: API keys, tokens, headers, user info and queries of URLs, e-mail and IP
addresses, home folders, and the names of user and machine. It holds nothing that apps recorded: no model, no session,
no error message of theirs. Look through it before you send it.

"""
#: Names that many machines have tell nothing.
_COMMON_USERS = frozenset({"root", "xybridd", "_xybridd", "user", "nobody"})
_COMMON_HOSTS = frozenset({"localhost", "vm", "host"})


@click.command()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where to write it (default: here, by the time).",
)  # fmt: skip
@click.option("--preview", is_flag=True, help="Show all that would go in, and write nothing.")
def bugreport(output: Path | None, *, preview: bool) -> None:
    """Write an archive to send when something is wrong, without secrets.

    Versions, the doctor's findings, status, device, config, paths, the last log lines, unit files, and how many rows
    the database has. Nothing is sent: you do that, after having looked.

    \b
    Example:  xybridd bugreport --preview
    """
    files = _files()
    if preview:
        for name, data in files.items():
            click.echo(f"── {name} ({size(len(data))})\n")
            click.echo(data)
        click.echo("nothing was written; to write it: xybridd bugreport")
        return
    path = output or Path(time.strftime("xybridd-bugreport-%Y%m%d-%H%M%S.tar.gz"))
    _write(path, files)
    say_done(f"{path} is written ({size(path.stat().st_size)}); look through it: tar xzOf {path} | less")


def _files() -> dict[str, bytes]:
    """Every file of the archive, concealed; the manifest first."""
    from xybridd.cli.bundle import PARTS, gather
    from xybridd.cli.checks.scene import look_around

    scene = look_around()
    concealer = Concealer(_secrets(scene), _names(scene))
    files, lines = dict[str, bytes](), list[str]()
    for part in PARTS:
        found = gather(part, scene)
        if isinstance(found, str):
            text = concealer.text(found)
        else:
            text = msgspec.json.format(json_bytes(concealer.value(found)), indent=2).decode() + "\n"
        files[part.name] = concealer.finished(text.encode("utf-8", "replace"))
        lines.append(f"{part.name:16}{size(len(files[part.name])):>10}  {part.what}\n")
    return {_MANIFEST: (_HEAD + "".join(lines)).encode(), **files}


def _secrets(scene: Scene) -> list[str]:
    """All that is known here to be one, wherever it may turn up."""
    config = scene.config
    found = [value for name, value in os.environ.items() if name.startswith("XYBRID") and "KEY" in name]
    for url in (config.upload.endpoint, config.otlp.endpoint, *_urls_of_environment()):
        found += secrets_in_url(url) if url else []
    for path in _secret_files(scene):
        with suppress(OSError):
            text = path.read_text("utf-8", "replace")
            found += [text.strip(), *(line.partition(":")[2].strip() for line in text.splitlines())]
    # A bearer token is one without its first word too.
    return found + [word for secret in found for word in secret.split() if len(word) >= 8]


def _urls_of_environment() -> list[str]:
    names = ("XYBRID_INGEST_URL", "XYBRID_PLATFORM_URL", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
    return [os.environ[each] for name in names for each in (name, name.lower()) if each in os.environ]


def _secret_files(scene: Scene) -> list[Path]:
    from xybridd.paths import config_files
    from xybridd.units.systemd import KEY_FILE

    beside = Path(scene.config_path) if scene.config_path else config_files()[0]
    named = (scene.config.upload.key_file, scene.config.otlp.headers_file, KEY_FILE)
    return [beside.with_name("api-key"), *(Path(each).expanduser() for each in named if each)]


def _names(scene: Scene) -> dict[str, str]:
    host, names = platform.node(), {str(Path.home()): "~"}
    names |= dict.fromkeys({scene.user, getpass.getuser()} - _COMMON_USERS, "[user]")
    names |= {name: "[host]" for name in {host, host.partition(".")[0]} - _COMMON_HOSTS if name}
    return names


def _write(path: Path, files: dict[str, bytes]) -> None:
    """A new file, its owner's alone. Raises XybriddError."""
    now_s, folder = int(time.time()), path.name.partition(".")[0] or "report"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, now_s
            archive.addfile(entry, io.BytesIO(data))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:  # noqa: PTH123 - by descriptor
            out.write(packed.getvalue())
    except FileExistsError as error:
        raise XybriddError(f"{path} is there already; name another with --output") from error
    except OSError as error:
        raise XybriddError(f"{path} cannot be written: {error.strerror or error}") from error
