"""Facts about the config file, and about the variables that decline telemetry."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xybridd.consent import opted_out
from xybridd.core.health.config import ConfigFacts, judge
from xybridd.paths import config_files

if TYPE_CHECKING:
    from xybridd.cli.checks.scene import Scene
    from xybridd.core.health.finding import Finding

_DECLINING = ("XYBRID_TELEMETRY_OPTOUT", "DO_NOT_TRACK")


def look(scene: Scene) -> list[Finding]:
    path, found = _file(scene), None
    with suppress(OSError):
        found = None if path is None else path.stat()
    return judge(
        ConfigFacts(
            path=None if path is None else str(path),
            hidden=scene.config_hidden,
            error=scene.config_error,
            warnings=scene.config_warnings,
            mode=None if found is None else stat.S_IMODE(found.st_mode),
            trusted_owner=found is None or found.st_uid in {0, scene.uid},
            declined=tuple(f"{name}={os.environ[name]}" for name in _DECLINING if os.environ.get(name))
            if opted_out()
            else (),
        )
    )


def _file(scene: Scene) -> Path | None:
    if scene.config_path is not None:
        return Path(scene.config_path)
    return next((path for path in config_files() if path.exists()), None) if scene.config_error else None
