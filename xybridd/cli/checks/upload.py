"""Facts about what leaves the device: the daemon's word, or the config's; keys; endpoints; undelivered rings."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xybridd.client.orphans import DAMAGED, hold
from xybridd.core.health.upload import KeyFacts, ReachFacts, SpoolFacts, UploadFacts, judge, judge_spool
from xybridd.paths import config_files, ring_folder, spool_folder
from xybridd.protocol.ring import SUFFIX

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding

#: All of one endpoint: an address, a connection, trust.
_REACH_S = 4.0


def look(scene: Scene) -> list[Finding]:
    status = scene.status["upload"] if scene.status is not None else _by_config(scene)
    return judge(
        UploadFacts(
            status=status,
            by_daemon=scene.daemon_runs,
            keys=tuple(_keys(scene)),
            key_in_environment=bool(os.environ.get("XYBRID_API_KEY", "").strip()),
            reached=tuple(_reached(status, scene)) if status is not None else (),
        )
    )


def _by_config(scene: Scene) -> dict[str, Any] | None:
    """What `upload.status` of a daemon that is started here would say first."""
    if scene.config_error is not None:
        return None
    from xybridd.core.address import shown_url
    from xybridd.daemon.targets import settings_of

    settings = settings_of(scene.config, scene.config_path)
    return {
        "state": "on" if settings.targets else "off",
        "reason": settings.off_reason,
        "problems": list(settings.problems),
        "sinks": [
            {
                "sink": target.sink,
                "endpoint": target.endpoint if target.sink == "file" else shown_url(target.endpoint),
                "state": "idle",
                "queued": 0,
                "dead": 0,
            }
            for target in settings.targets
        ],
    }


def _keys(scene: Scene) -> list[KeyFacts]:
    """Each file that is there in which a key is looked for."""
    from xybridd.units.systemd import KEY_FILE

    named = scene.config.upload.key_file
    beside = Path(scene.config_path) if scene.config_path else config_files()[0]
    files = [Path(named).expanduser() if named else beside.with_name("api-key"), Path(KEY_FILE)]
    found = []
    for path in dict.fromkeys(files):
        try:
            seen = path.stat()
        except PermissionError:
            found.append(KeyFacts(str(path), None))
        except OSError:
            continue
        else:
            found.append(KeyFacts(str(path), stat.S_IMODE(seen.st_mode), seen.st_uid in {0, scene.uid}))
    return found


def _reached(status: dict[str, Any], scene: Scene) -> list[ReachFacts]:
    """Of each endpoint over a network; nothing is tried while upload is off."""
    from xybridd.cli.checks.within import TooLong, within
    from xybridd.core.address import place

    found = []
    for sink in status["sinks"]:
        if sink["sink"] == "file":
            continue
        from xybridd.upload.reach import reach

        url, bundle = sink["endpoint"], scene.config.upload.ca_bundle
        where = place(url)
        try:
            reached = within(_REACH_S, lambda url=url, bundle=bundle: reach(url, bundle, _REACH_S))  # type: ignore[misc]
        except TooLong:
            found.append(ReachFacts(sink["sink"], where, "resolve", f"no answer within {_REACH_S:g} s"))
        else:
            found.append(ReachFacts(sink["sink"], where, reached.stage, reached.detail, reached.by_proxy))
    return found


def look_at_spool(scene: Scene) -> list[Finding]:
    return judge_spool(spooled(daemon_runs=scene.daemon_runs))


def spooled(*, daemon_runs: bool = False) -> SpoolFacts:
    """The rings of this user's exited processes that no daemon has read. Nothing is changed."""
    holding, size_bytes, oldest_at_s, rings, damaged = dict[str, None](), 0, time.time(), 0, 0
    for path in _files():
        if path.suffix == DAMAGED:
            damaged += 1
        elif path.suffix == SUFFIX and (fd := hold(path)) is not None:
            found = os.fstat(fd)
            os.close(fd)
            rings += 1
            size_bytes += min(found.st_size, found.st_blocks * 512)  # it is sparse
            oldest_at_s = min(oldest_at_s, found.st_mtime)
        else:
            continue
        holding[str(path.parent)] = None
    return SpoolFacts(
        path=" ".join(holding) or str(spool_folder()),
        files=rings,
        size_bytes=size_bytes,
        oldest_s=max(0.0, time.time() - oldest_at_s),
        damaged=damaged,
        daemon_runs=daemon_runs,
    )


def _files() -> list[Path]:
    """What lies in the spool and in the folder of rings in use; a process that is killed leaves its rings there."""
    found = list[Path]()
    for folder in dict.fromkeys((spool_folder(), ring_folder())):
        with suppress(OSError):
            found += sorted(folder.iterdir())
    return [path for path in found if not path.name.startswith(".")]
