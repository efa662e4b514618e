"""examples/clients/xybridd_ring.h, by a program of its own: its files are what the reader and the other writers expect."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import PATIENCE_S
from xybridd.client.recorder import PythonRecorder, Shape
from xybridd.core import ring as format_
from xybridd.protocol import ring as layout
from xybridd.protocol.records import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "examples" / "clients"
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow", "-pthread", "-I", str(INCLUDE)]
AT_S = 1700000000.25

BUILDS = {
    "optimised": ["-std=c11", "-O2"],
    "sanitized": ["-std=c11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "threads sanitized": ["-std=c11", "-g", "-O1", "-fsanitize=thread"],
}


def compiled(place: Path, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (Debian: gcc and libc6-dev)")
    program = place / "ring_writer"
    command = ["gcc", *STRICT, *flags, "-o", str(program), str(HERE / "ring_writer.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


class Written(NamedTuple):
    """What a scenario leaves: its file, and what it says."""

    path: Path
    said: list[str]
    status: int

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def header(self) -> format_.Header:
        return format_.parse_header(self.data[: layout.HEADER_BYTES], len(self.data))

    def table(self) -> format_.Table:
        table = format_.Table()
        table.feed(self.data[layout.HEADER_BYTES :][: self.header().table_used])
        return table

    def slot_bytes(self) -> bytes:
        return self.data[self.header().geometry.slots_at :]

    def slots(self) -> list[tuple[Any, ...]]:
        return list(layout.SLOT.iter_unpack(self.slot_bytes()))


@pytest.fixture(scope="module", params=["optimised", "sanitized"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("ring"), *BUILDS[request.param])


def run(program: Path, folder: Path, scenario: str, given: Sequence[str] = (), slots: int = 64) -> Written:
    done = subprocess.run(
        [str(program), str(folder), str(slots), scenario],
        input="".join(f"{line}\n" for line in given).encode("utf-8", "surrogateescape"),
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr.decode()
    path, *said = done.stdout.decode().splitlines()
    return Written(Path(path), said, done.returncode)


def test_the_file(program: Path, tmp_path: Path) -> None:
    before = time.time()
    written = run(program, tmp_path, "records", slots=4096)
    assert (written.status, written.said) == (0, [])
    header = written.header()
    assert header.geometry == layout.Geometry(4096, 2**20)
    assert (header.ordered, header.last, header.durable) == (True, None, 0)
    assert written.path == tmp_path / f"{header.ring_id}.ring"
    assert list(tmp_path.iterdir()) == [written.path]
    assert uuid.UUID(header.ring_id).version == 4
    assert before <= header.created_s <= time.time()
    assert header.pid > 0
    found = written.path.stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_blocks * 512 <= 4096 + 2**16 + 1024 * 64 + 4096  # what was written is allocated, and a little more
    words = memoryview(written.data[: layout.HEADER_BYTES]).cast("Q")
    assert words[layout.LIMIT] == 4096
    used = {*range(8), layout.TABLE_USED, layout.LIMIT}
    assert not any(words[at] for at in range(len(words)) if at not in used)
    assert not any(written.slot_bytes())


def test_it_knows_its_process_and_boot(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "records")
    producer = written.table().entry(1)
    assert isinstance(producer, format_.Producer)
    hello = producer.hello
    assert (str(hello.client_id), hello.app, hello.app_version) == (
        "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "kiosk",
        "2.1",
    )
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists():
        assert hello.boot_id == boot_id.read_text().strip()
        up_since_boot_s = float(Path("/proc/uptime").read_text().split()[0])
        assert 0 <= up_since_boot_s - written.header().pid_started / os.sysconf("SC_CLK_TCK") < PATIENCE_S
    strings = [b"3fa85f64-5717-4562-b3fc-2c963f66afa6", b"kiosk", b"2.1", b"", (hello.boot_id or "").encode()]
    expected = layout.encode_entry(layout.PRODUCER, strings) + layout.encode_entry(layout.MODEL, [b"whisper", b"1.0"])
    assert written.data[layout.HEADER_BYTES + 8 :].startswith(expected)
    assert written.header().table_used == 8 + len(expected)


_amounts = st.one_of(st.floats(0, 2**53), st.integers(0, 2**40).map(float))
_calls = st.fixed_dictionaries(
    {"latency_ms": st.floats(0, 1e10)},
    optional={
        "input_tokens": st.integers(0, 2**32 - 1),
        "output_tokens": st.integers(0, 2**32 - 1),
        "tokens_per_second": _amounts,
        "time_to_first_token_ms": _amounts,
        "samples_per_second": _amounts,
        "memory_peak_mb": st.integers(0, 2**52),
        "hardware_used": st.sampled_from(list(layout.HARDWARE)),
        "execution_target": st.sampled_from(list(layout.TARGETS)),
    },
)


def line(call: dict[str, Any]) -> str:
    present = sum(bit for name, bit in layout.STAT_BITS.items() if name in call)
    numbers = [float(call.get(name, 77)).hex() for name in layout.STAT_BITS]
    hardware, target = (
        layout.HARDWARE.get(call.get("hardware_used", ""), 0),
        layout.TARGETS.get(call.get("execution_target", ""), 0),
    )
    return " ".join([call["latency_ms"].hex(), *map(str, (present, hardware, target)), *numbers])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_calls, min_size=1, max_size=30))
def test_the_same_slots_as_the_recorder_in_python(program: Path, tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    written = run(program, tmp_path, "records", [line(call) for call in calls])
    assert written.said == ["1"] * len(calls)
    memory, limit = memoryview(bytearray(64 * 64)), memoryview(b"\xff" * 8).cast("Q")
    model = written.slots()[1][2] & 0xFFFFFFFF
    models = {("whisper", "1.0"): layout.describe(layout.INFERENCE, model)}

    def slow(number: int, *_: Any) -> None:
        """As docs/ring.md has it: three words here, the rest in the next slot."""
        stats = {name: call[name] for name in layout.STAT_BITS if name in call}
        first = Shape.first(stats)
        if number:
            recorder.write(number, 0, 0, layout.describe(layout.VOID))
        number = number or recorder.reserve()
        descriptor = layout.describe(layout.INFERENCE, model)
        descriptor |= layout.HARDWARE.get(call.get("hardware_used", ""), 0) << layout.HARDWARE_SHIFT
        descriptor |= layout.TARGETS.get(call.get("execution_target", ""), 0) << layout.TARGET_SHIFT
        bits, words = Shape.words({name: stats.pop(name) for name in first})
        recorder.write(number, call["latency_ms"], AT_S, descriptor | bits, words)
        if stats:
            bits, words = Shape.words(stats)
            recorder.write(recorder.reserve(), 0, AT_S, layout.describe(layout.MORE_STATS, model) | bits, words, number)

    recorder = PythonRecorder(memory, 64, limit, models, slow)
    for call in calls:
        given_stats = {name: value for name, value in call.items() if name != "latency_ms"}
        recorder.record_inference("whisper", "1.0", call["latency_ms"], **given_stats)
    for ours, theirs in zip(written.slots(), layout.SLOT.iter_unpack(memory), strict=True):
        assert (*ours[:1], *ours[2:]) == (*theirs[:1], *theirs[2:])
        assert ours[1] == (AT_S if ours[5] else 0)
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "call",
    [
        {"latency_ms": -1.0},
        {"latency_ms": float("nan")},
        {"latency_ms": float("inf")},
        {"latency_ms": 1.0, "tokens_per_second": -1.0},
        {"latency_ms": 1.0, "samples_per_second": float("nan")},
        {"latency_ms": 1.0, "time_to_first_token_ms": 2.0**54},
        {"latency_ms": 1.0, "memory_peak_mb": 0.5},
    ],
)
def test_what_cannot_be_right_is_not_written(program: Path, tmp_path: Path, call: dict[str, Any]) -> None:
    written = run(program, tmp_path, "records", [line(call)])
    assert written.said == ["2"]
    assert not any(written.slot_bytes())


def test_the_reader_takes_every_kind(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "other kinds")
    table = written.table()
    data = written.slot_bytes()[64 : 6 * 64]
    assert format_.numbers_in(data) == [1, 2, 3, 4, 5]
    started, run_of, _dropped, ended = [part for _, part in format_.read(data, table)]
    assert isinstance(started, format_.SessionEvent)
    assert isinstance(ended, format_.SessionEvent)
    assert (started.kind, ended.kind) == (layout.SESSION_STARTED, layout.SESSION_ENDED)
    assert started.entry.joined
    assert started.entry.params.labels == {"site": "42"}
    assert isinstance(run_of, format_.Run)
    first, second = (record for _, record in run_of.others)
    assert isinstance(first, ErrorRecord)
    assert isinstance(second, ErrorRecord)
    assert (first.error, first.model_id, first.category) == ("CUDA out of memory", "whisper", "Hardware")
    assert (second.error, second.model_id, second.category) == ("CUDA out of memory", None, None)
    assert written.slots()[4][3][:8] == (7).to_bytes(8, "little")


def test_a_ring_is_full_at_its_limit_and_goes_on_with_it(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "full")
    assert written.said == ["64 0 1 67 0"]  # 65 and 66 were above the limit then
    assert written.header().last == 67
    numbers = [slot[5] for slot in written.slots()]
    assert numbers == [64, 1, 2, 67, *range(4, 64)]
    assert [slot[0] for slot in written.slots()][:5] == [63, 0, 1, 2, 3]


def test_slots_are_allocated_step_by_step(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "full", slots=4096)
    assert written.said == ["4096 0 1 4099 0"]
    assert written.path.stat().st_blocks * 512 >= 4096 * 64


def test_stats_of_two_slots_are_both_written_or_none(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "two slots")
    assert written.said == ["0"]
    assert written.slots()[1][2] == layout.describe(layout.VOID)
    assert not any(written.slot_bytes()[128:])


def test_a_forked_child_writes_nothing(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "forked")
    assert written.said == ["0 1"]
    assert [slot[0] for slot in written.slots()][:4] == [0, 1, 3, 0]


def test_a_record_whose_call_returned_survives_a_kill(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "killed")
    assert written.status == -signal.SIGKILL
    assert written.slots()[1][5] == 1


@pytest.mark.parametrize("build", BUILDS)
def test_threads_write_every_record_once(build: str, tmp_path: Path) -> None:
    folder = tmp_path / "rings"
    folder.mkdir()
    written = run(compiled(tmp_path, *BUILDS[build]), folder, "threads", slots=2**15)
    slots = written.slots()[1:32001]
    assert [slot[5] for slot in slots] == list(range(1, 32001))
    assert sorted(slot[0] for slot in slots) == list(range(32000))
    table = written.table()
    names = {slot[2] & 0xFFFFFFFF: table.model(slot[2] & 0xFFFFFFFF) for slot in slots}
    assert sorted(model.model_id for model in names.values() if model) == ["even", "odd"]
    assert all(
        names[slot[2] & 0xFFFFFFFF] == format_.Model("odd" if slot[0] % 2 == 0 else "even", "1.0") for slot in slots
    )


def test_texts_are_made_valid_and_cut(program: Path, tmp_path: Path) -> None:
    texts = ["é" * 300, "lat\udce9in", "over\udcc0\udcafflow", "😀" * 3000, "cut \udce4\udcb8", "é" * 300, "plain"]
    written = run(program, tmp_path, "texts", texts)
    table = written.table()
    numbers = [tuple(map(int, each.split())) for each in written.said]
    assert numbers[0] == numbers[5]
    models = [table.model(model) for model, _ in numbers]
    errors = [table.entry(error) for _, error in numbers]
    expected = ["é" * 256, "lat�in", "over��flow", "😀" * 256, "cut ��", "é" * 256, "plain"]
    assert [model.model_id if model else None for model in models] == expected
    assert errors == ["é" * 300, *expected[1:3], "😀" * 2048, expected[4], "é" * 300, "plain"]


def test_a_full_table_takes_no_more_and_stays_sound(program: Path, tmp_path: Path) -> None:
    written = run(program, tmp_path, "texts", [f"{n} {'x' * 8000}" for n in range(200)])
    errors = [int(each.split()[1]) for each in written.said]
    table, used = written.table(), written.header().table_used
    full = errors.index(0)
    assert 100 < full < 140
    assert [str(table.entry(number))[:4] for number in errors[:full]] == [f"{n} xxx"[:4] for n in range(full)]
    assert not any(written.data[layout.HEADER_BYTES + used : written.header().geometry.slots_at])


def test_it_compiles_as_cpp(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed (Debian: g++)")
    source = tmp_path / "app.cpp"
    source.write_text(
        '#include "xybridd_ring.h"\n'
        'int main() { xybridd_ring ring; xr_identity app{}; xr_stats stats{}; app.app = "kiosk";\n'
        'return xr_create(&ring, "/", &app, 3, 0) == 0 || xr_inference(&ring, 0, 1, xr_now_s(), &stats) == XR_OK; }\n'
    )
    command = ["g++", "-std=c++17", *STRICT, "-o", str(tmp_path / "app"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "app")], check=False, timeout=PATIENCE_S).returncode == 0
