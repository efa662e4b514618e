"""A data folder that another user put in our place is not used, and not touched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from xybridd.errors import StartError
from xybridd.storage.opening import prepare_folder

if TYPE_CHECKING:
    from pathlib import Path

EVE = 64002

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@root
def test_another_users_folder(tmp_path: Path) -> None:
    planted = tmp_path / "data"
    planted.mkdir(mode=0o777)
    planted.chmod(0o777)
    os.chown(planted, EVE, EVE)
    with pytest.raises(StartError, match=rf"belongs to another user \(uid {EVE}\).*XYBRIDD_DATA_DIR"):
        prepare_folder(planted)
    assert planted.stat().st_mode & 0o777 == 0o777
    assert list(planted.iterdir()) == []


@root
def test_another_users_link(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o755)
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "ours")
    os.lchown(link, EVE, EVE)
    with pytest.raises(StartError, match="a link that another user made"):
        prepare_folder(link)
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o755


@root
def test_a_link_of_ours_to_another_users_folder(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", EVE, EVE)
    (tmp_path / "data").symlink_to(tmp_path / "theirs")
    with pytest.raises(StartError, match="another user"):
        prepare_folder(tmp_path / "data")


def test_a_link_of_ours_to_a_larger_disk(tmp_path: Path) -> None:
    (tmp_path / "larger").mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(tmp_path / "larger")
    prepare_folder(tmp_path / "data")
    assert (tmp_path / "larger").stat().st_mode & 0o777 == 0o700


def test_a_place_where_anybody_may_replace_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match=f"chmod o-w {tmp_path}"):
        prepare_folder(tmp_path / "data")
    tmp_path.chmod(0o1777)
    prepare_folder(tmp_path / "data")
