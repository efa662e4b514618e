"""A recorded machine as a tree, whoever recorded it and however.

People copy a machine's files in many ways, and the probes must find the same in each:

* Links may be kept (relative, or absolute as on the machine), followed (a copy of what they led to), written down as
  text, or left out. They are followed within the recording, as if it were the root of a file system; none leads out.
* Nearly everything in ``/sys/class`` and ``/sys/bus`` is a link into ``/sys/devices``. Where a recording has the
  latter without the former, the links are made up again from the folders' names.
* ``tar`` believes sysfs when it says that each file has 4096 bytes, and fills them up with zeros.
* The recording may lie in a folder within the folder that was given, with a list of its files beside it.
* A device node is there as some file. A file's owner is the one who recorded it, and its rights tell what that one
  might do: use the node, read the attribute.

Outputs of commands are files in ``/.commands``, named like the command: ``pmset -g batt``. A recording is a Mac's when
it has ``/System``, which no other system has.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import cached_property
from pathlib import Path

from xybridd.probes.tree import MAC, OPEN, Tree, command_name

COMMANDS = "/.commands"

#: What stands at the top of a recorded machine.
_TOPS = ("sys", "proc", COMMANDS.strip("/"))
_DEEPEST_TOP = 3

_MOST_FOLDERS = 200_000

_CLASSES = frozenset(
    ["accel", "apex", "devfreq", "drm", "fastrpc", "hailo_chardev", "hwmon", "misc", "power_supply", "thermal"]
)
#: Folders of `/sys/devices` that a bus lists, by their names; platform's are all that lie in its folder.
_PCI_NAME = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_USB_NAME = re.compile(r"(usb\d+|\d+-\d+(\.\d+)*)")


def open_tree(root: Path | None) -> Tree:
    """The machine recorded at `root`, or this one."""
    return Tree() if root is None or str(root) == "/" else RecordedTree(root)


def top_of(folder: Path) -> Path:
    """Where in a folder the recorded machine begins; the folder itself when nothing looks like one."""
    level = [folder]
    for _ in range(_DEEPEST_TOP):
        for each in level:
            if any((each / name).is_dir() for name in _TOPS):
                return each
        level = [sub for each in level for sub in sorted(each.iterdir()) if sub.is_dir() and not sub.is_symlink()]
    return folder


def _bus_of(name: str, folder: str) -> str | None:
    """Which bus lists a folder of ``/sys/devices``."""
    if _PCI_NAME.fullmatch(name):
        return "pci"
    if _USB_NAME.fullmatch(name):
        return "usb"
    return "platform" if folder == "/sys/devices/platform" else None


class RecordedTree(Tree):
    """What `Tree` is to this machine, to the one recorded in a folder."""

    live = False

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._inside = os.path.realpath(top_of(root) if root.is_dir() else root)
        self.root = self._inside

    @cached_property
    def platform(self) -> str:
        return "darwin" if os.path.lexists(self._inside + MAC) else "linux"

    def real(self, path: str) -> str:
        """Follows links as the recorded machine would. Raises OSError."""
        place = self.followed(path)[0]
        # Of a folder that only made up links are in, all one can ask is whether it is there.
        return self._inside + place if place not in self._lost_folders else self._inside

    def link_at(self, here: str) -> str | None:
        try:
            target = os.readlink(self._inside + here)  # noqa: PTH115
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            lost = self._lost_links.get(here) if error.errno == errno.ENOENT else None
            if lost is None and here not in self._lost_folders:
                raise
            return lost
        return target.removeprefix(self._inside) if target.startswith(f"{self._inside}/") else target

    def target(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        here = self.followed(folder)[0] + "/" + name
        target = self.link_at(here)
        if target is None:
            target = self._link_as_text(here)
        if target is None:
            raise OSError(errno.EINVAL, "no link")
        return target

    def _link_as_text(self, here: str) -> str | None:
        """A link that was written down as a small file: ``../../../bus/pci/drivers/amdgpu``."""
        try:
            with open(self._inside + here, "rb") as file:  # noqa: PTH123
                text = file.read(256).rstrip(b"\0").decode().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if re.fullmatch(r"(\.\./)+[^\n]+", text) else None

    @cached_property
    def _lost_links(self) -> dict[str, str]:
        """What ``/sys/class`` and ``/sys/bus`` would link to, by the link, for the folders where nothing is left."""
        links = self._made_up_links()
        lost: dict[str, str] = {}
        for folder, made_up in links.items():
            try:
                left = set(os.listdir(self._inside + folder))  # noqa: PTH208
            except OSError:
                left = set()
            if not left & set(made_up):
                lost |= {f"{folder}/{name}": target for name, target in made_up.items()}
        return lost

    def _made_up_links(self) -> dict[str, dict[str, str]]:
        """By the folder that they would be in."""
        links: dict[str, dict[str, str]] = {}
        for count, (folder, names, _) in enumerate(os.walk(f"{self._inside}/sys/devices")):
            if count > _MOST_FOLDERS:
                break
            here = folder.removeprefix(self._inside)
            above, _, kind = here.rpartition("/")
            for name in names:
                place = f"{here}/{name}"
                if kind in _CLASSES:
                    links.setdefault(f"/sys/class/{kind}", {})[name] = place
                    links.setdefault(place, {})["device"] = above
                elif bus := _bus_of(name, here):
                    links.setdefault(f"/sys/bus/{bus}/devices", {})[name] = place
        return links

    def _names(self, path: str) -> list[str]:
        place = self.followed(path)[0]
        if place in self._lost_folders:
            return self._lost_below(place)
        return [*os.listdir(self._inside + place), *self._lost_below(place)]  # noqa: PTH208

    def _lost_below(self, folder: str) -> list[str]:
        inside = f"{folder}/"
        return [path.removeprefix(inside) for path in self._lost_links if path.rpartition("/")[0] == folder]

    @cached_property
    def _lost_folders(self) -> set[str]:
        """Those that the made up links are in, and that are not there themselves."""
        above = {str(folder) for path in self._lost_links for folder in Path(path).parents}
        return {folder for folder in above if not os.path.lexists(self._inside + folder)}

    def _open(self, path: str) -> int:
        real = self.real(path)
        if os.stat(real).st_mode & (stat.S_IRUSR | stat.S_IFDIR) == 0:  # noqa: PTH116
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))  # root, who replays, would be let in
        return os.open(real, OPEN)

    def _text_of(self, raw: bytes) -> bytes:
        return raw.rstrip(b"\0")

    def _permitted(self, real: str) -> bool:
        needed = stat.S_IRUSR | stat.S_IWUSR
        return os.stat(real).st_mode & needed == needed  # noqa: PTH116

    def _run(self, command: tuple[str, ...], limit_s: float) -> bytes:  # noqa: ARG002
        return Path(self.real(f"{COMMANDS}/{command_name(command)}")).read_bytes()
