from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from xybridd.errors import StartError
from xybridd.storage.lock import FileLock

if TYPE_CHECKING:
    from pathlib import Path

_HOLD = """
import sys
from pathlib import Path
from xybridd.storage.lock import FileLock
FileLock(Path(sys.argv[1]), "x").acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path, f"the data folder {tmp_path}")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StartError, match=rf"the data folder .* in use by another xybridd \(pid {holder.pid}\)"):
            lock.acquire()
        holder.kill()  # however it ends, the kernel lets go
        holder.wait()
        lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_holder_that_left_a_longer_number_is_not_mixed_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("99999999999999\n")
    lock = FileLock(path, "x")
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_holder_that_has_not_said_who_it_is_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = FileLock(path, "x"), FileLock(path, "x")
    first.acquire()
    path.write_text("")
    with pytest.raises(StartError, match="pid unknown"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_releasing_twice_is_releasing_once(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", "x")
    lock.acquire()
    lock.release()
    lock.release()
    lock.acquire()  # nobody has it any more, and it can be had again
    with pytest.raises(StartError, match="in use"):
        FileLock(tmp_path / "lock", "x").acquire()
    lock.release()


def test_a_link_in_its_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="lock"):
        FileLock(tmp_path / "lock", "x").acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", "x")
    lock.acquire()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    lock.release()
