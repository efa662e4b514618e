"""A small Debian as a folder, with systemd in it, and xybridd installed into it as an operator would.

The base is made by mmdebstrap from the sources that this machine's apt uses, and kept under ``~/.cache``; each run works
on a copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "xybridd-tests"

_PACKAGES = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,python3-venv"
_NEEDED = ("mmdebstrap", "systemd-nspawn", "nsenter", "unshare", "apt-config", "chroot")


def obstacle() -> str | None:
    """Why no system can be booted here."""
    if os.environ.get("XYBRIDD_TEST_SYSTEM") != "1":
        return "a system is booted by `make test-system` only"
    if sys.platform != "linux" or os.getuid() != 0:
        return "booting a system takes root on Linux"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not there: apt-get install mmdebstrap systemd-container"
    if _codename() is None or not _sources():
        return "this machine is no Debian with sources of its own"
    return None


def _codename() -> str | None:
    lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), None)


def _sources() -> list[str]:
    folder = Path("/etc/apt/sources.list.d")
    found = [Path("/etc/apt/sources.list"), *folder.glob("debian*.sources"), *folder.glob("debian*.list")]
    return [str(path) for path in found if path.exists()]


def base() -> Path:
    """Made once; made anew when another Debian or other packages are asked for."""
    sources = "".join(Path(path).read_text("utf-8") for path in _sources())
    key = hashlib.sha256(f"{_codename()} {_PACKAGES} {sources}".encode()).hexdigest()[:12]
    tree = CACHE / f"debian-{key}"
    if tree.exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = CACHE / f"debian-{key}.new"
    shutil.rmtree(draft, ignore_errors=True)
    settings = CACHE / "apt.conf"
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, check=True, timeout=60)
    settings.write_bytes(dumped.stdout)
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--format=directory"]
    command += [f"--aptopt={settings}", f"--include={_PACKAGES}", _codename() or "", str(draft), *_sources()]
    subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL)
    draft.rename(tree)
    return tree


def copy(to: Path) -> None:
    """With owners, modes and device nodes."""
    _run(["cp", "--archive", "--reflink=auto", str(base()), str(to)])
    to.joinpath("etc/machine-id").write_text("")  # one is made at the first boot
    drop_in = to / "usr/lib/systemd/system/xybridd.service.d/boot-id.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nBindReadOnlyPaths=/opt/boot-id:/proc/sys/kernel/random/boot_id\n")


def install(tree: Path, scratch: Path) -> None:
    """The wheel and what it depends on, by pip, into a virtual environment of the tree's own Python."""
    wheels = tree / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(scratch), str(ROOT)])
    (wheel,) = scratch.glob("xybridd-*.whl")
    asked = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    version = _run(["chroot", str(tree), "/usr/bin/python3", "-c", asked]).strip()
    chosen = ["--only-binary=:all:", "--python-version", version, "--dest", str(wheels)]
    _run([*pip, "download", *chosen, str(wheel)])
    _run(["chroot", str(tree), "/usr/bin/python3", "-m", "venv", "/opt/xybridd"])
    into = ["/opt/xybridd/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/wheels", "xybridd"]
    _run(["chroot", str(tree), *into])
    shutil.rmtree(wheels)


def _run(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout
