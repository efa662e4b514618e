"""The file sink: a batch is in the file once and whole, whatever happened."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tests.upload.given import broken, deletion_item, job, outcome, session_item, target
from xybridd.upload import file, xybrid

if TYPE_CHECKING:
    import pytest

    from xybridd.core.delivery import Job


def to(path: Path, *sessions: str, key: str = "k") -> Job:
    items = [session_item(session) for session in sessions or ("a", "b")]
    return job(target(str(path), "file", key=None), *items, key=key)


def again(of: Job) -> Job:
    return msgspec.structs.replace(of, again=True)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def keys(path: Path) -> list[tuple[str, str]]:
    return [(row["idempotency_key"], row["session_id"]) for row in rows(path)]


def test_a_line_is_an_event_of_the_ingests_format(folder: Path) -> None:
    given = job(target(str(folder / "out"), "file"), session_item("a"), deletion_item("b"), key="k")
    found = outcome(given)
    assert (found.status, found.failure) == (None, None)
    assert found.sent_bytes == (folder / "out").stat().st_size
    events = json.loads(xybrid.body(given))["events"]
    assert rows(folder / "out") == [{**event, "idempotency_key": "k"} for event in events]


def test_the_file_and_its_folder_are_made_for_their_owner_alone(folder: Path) -> None:
    path = folder / "new" / "deep" / "out"
    assert file.append(to(path)).failure is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_batches_follow_each_other(folder: Path) -> None:
    path = folder / "out"
    for key in "klm":
        assert file.append(to(path, "a", key=key)).failure is None
    assert keys(path) == [("k", "a"), ("l", "a"), ("m", "a")]


def test_the_same_job_gives_the_same_lines(folder: Path) -> None:
    file.append(to(folder / "one"))
    file.append(to(folder / "two"))
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_space_between_the_parts_of_an_export_makes_no_second_line(folder: Path) -> None:
    given = to(folder / "out", "a")
    spaced = msgspec.structs.replace(given.items[0], body=b'{\r\n "a": "b\\nc"\n}')
    file.append(msgspec.structs.replace(given, items=[spaced]))
    assert [row["payload"] for row in rows(folder / "out")] == [{"a": "b\nc"}]


def test_killed_between_the_write_and_the_answer(folder: Path) -> None:
    path = folder / "out"
    given = to(path)
    assert outcome(given, broken("killed before the answer")).failure == "sender"
    assert keys(path) == [("k", "a"), ("k", "b")]
    found = outcome(again(given))
    assert (found.failure, found.sent_bytes) == (None, 0)
    assert keys(path) == [("k", "a"), ("k", "b")]


def test_killed_in_the_middle_of_the_write(folder: Path) -> None:
    path = folder / "out"
    file.append(to(path, "z", key="earlier"))
    given = to(path)
    assert outcome(given, broken("killed while writing")).failure == "sender"
    assert not path.read_bytes().endswith(b"\n")
    assert outcome(again(given)).failure is None
    assert sorted(keys(path)) == [("earlier", "z"), ("k", "a"), ("k", "b")]


def test_wherever_a_write_was_cut_the_next_makes_it_whole(folder: Path) -> None:
    path = folder / "out"
    given, other = to(path, "a", "b"), to(path, "y", key="other")
    whole = b"".join(file.lines(given))
    for end in range(0, len(whole) + 1, 7):
        # Another batch may come before the one that was cut comes again.
        for order in ((again(given),), (other, again(given))):
            path.write_bytes(whole[:end])
            assert all(file.append(each).failure is None for each in order)
            wanted = {("k", "a"), ("k", "b")} | ({("other", "y")} if len(order) == 2 else set())
            assert len(keys(path)) == len(wanted)
            assert set(keys(path)) == wanted


def test_a_disk_that_fills_up_leaves_nothing_of_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "out"
    file.append(to(path, "z", key="earlier"))
    before = path.read_bytes()
    write, calls = os.write, iter([True, False])

    def fills_up(fd: int, data: bytes) -> int:
        if next(calls):
            return write(fd, data[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fills_up)
    found = file.append(to(path))
    monkeypatch.undo()
    assert found.failure == "file"
    assert "No space left" in found.detail
    assert path.read_bytes() == before


def test_a_disk_that_does_not_keep_it_is_no_delivery(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "out"
    file.append(to(path, "z", key="earlier"))

    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    assert file.append(to(path)).failure == "file"
    monkeypatch.undo()
    assert keys(path) == [("earlier", "z")]


def test_what_is_no_plain_file_is_left_alone(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.write_text("theirs")
    (folder / "link").symlink_to(elsewhere)
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo")
    for name, why in (
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("fifo", "not a regular file"),
        (".", "directory"),
    ):
        found = file.append(to(folder / name))
        assert found.failure == "file", name
        assert why in found.detail, name
    assert elsewhere.read_text() == "theirs"
    assert not (folder / "nowhere").exists()


def test_a_path_must_be_absolute() -> None:
    assert file.append(to(Path("out.jsonl"))).failure == "file"
    assert not Path("out.jsonl").exists()


def test_two_do_not_write_at_once(folder: Path) -> None:
    path = folder / "out"
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another process" in file.append(to(path)).detail
    assert file.append(to(path)).failure is None
