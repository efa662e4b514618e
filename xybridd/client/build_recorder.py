"""Build the recorder in C with a wheel, where a compiler is available.

A hook of hatchling, loaded when a wheel is built and never at run time. Without a compiler, without Python.h, or with
XYBRIDD_NO_EXTENSION set, it says so in one line, and the wheel is a pure one: `recorder.best_recorder` then returns the
Python writer. An editable install gets the extension beside its source.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # hatchling is there when a wheel is built

    class BuildHookInterface:
        root: str

else:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("xybridd", "client")
SOURCE = PACKAGE / "_recorder.c"

#: Where the one copy of xybridd_ring.h lies.
HEADERS = Path("examples", "clients")

FLAGS = ["-O3", "-std=c11", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]


class NotBuilt(Exception):
    """The extension cannot be built here; the message says why."""


def build(root: Path, folder: Path) -> Path:
    """Compile the extension into `folder`. Raises `NotBuilt`."""
    if os.environ.get("XYBRIDD_NO_EXTENSION"):
        raise NotBuilt("XYBRIDD_NO_EXTENSION is set")
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise NotBuilt(f"{include} has no Python.h")
    target = folder / f"_recorder{sysconfig.get_config_var('EXT_SUFFIX')}"
    linked = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    command = [
        *_compiler(),
        *FLAGS,
        *(word for name in ("CPPFLAGS", "CFLAGS", "ARCHFLAGS") for word in shlex.split(os.environ.get(name, ""))),
        *("-I", include, "-I", str(root / HEADERS)),
        *("-o", str(target), str(root / SOURCE)),
        *linked,
        *shlex.split(os.environ.get("LDFLAGS", "")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in said if "error" in line.lower()), said[-1] if said else "it says nothing")
        raise NotBuilt(f"{command[0]} failed: {reason.strip()}")
    return target


def _compiler() -> list[str]:
    """The command of the first compiler that is installed: $CC, the one that built Python, the usual names."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
    raise NotBuilt("no C compiler was found")


class RecorderBuildHook(BuildHookInterface):
    PLUGIN_NAME = "recorder"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        # An editable install imports from the source tree; a wheel takes nothing from it that was built before.
        folder = root / PACKAGE if version == "editable" else Path(tempfile.mkdtemp(prefix="xybridd-recorder-"))
        self._scratch = None if version == "editable" else folder
        for old in folder.glob(f"_recorder{sysconfig.get_config_var('EXT_SUFFIX')}"):
            old.unlink()
        try:
            built = build(root, folder)
        except (NotBuilt, OSError) as exc:
            print(f"xybridd: the recorder in C was not built, the one in Python is used: {exc}", file=sys.stderr)  # noqa: T201
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"][str(built)] = str(PACKAGE / built.name)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del version, build_data, artifact_path
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
