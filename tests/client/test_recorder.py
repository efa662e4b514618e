"""Both recorders, the one in Python and the one in C: the same bytes for the same calls, the same calls of `slow`."""

from __future__ import annotations

import gc
import math
import random
import struct
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import PATIENCE_S
from xybridd.client.recorder import PythonRecorder, best_recorder
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS = 64
INFERENCE = layout.describe(layout.INFERENCE, 5)
MODELS = {("whisper", "1.0"): INFERENCE, ("whisper", ""): INFERENCE + 1, ("né 中文", "2"): INFERENCE + 2}

NOT_BUILT = "the recorder in C is not built (a C compiler and Python.h; then `pip install -e .`)"


def c_recorder() -> type[Any]:
    try:
        from xybridd.client._recorder import Recorder  # noqa: PLC0415
    except ImportError:
        pytest.skip(NOT_BUILT)
    return Recorder


@pytest.fixture(params=["python", "c"])
def recorder_type(request: pytest.FixtureRequest) -> type[Any]:
    return PythonRecorder if request.param == "python" else c_recorder()


class Slow(NamedTuple):
    number: int
    model_id: Any
    version: Any
    latency_ms: Any
    stats: dict[str, Any]
    at_s: float


class Ring:
    """The memory of a ring, its recorder, and the calls of `slow`."""

    def __init__(self, kind: type[Any], slots: int = SLOTS, limit: int = 2**62) -> None:
        self.memory = bytearray(slots * layout.SLOT_BYTES)
        self.limit = memoryview(bytearray(8)).cast("Q")
        self.limit[0] = limit
        self.models = dict(MODELS)
        self.slow: list[Slow] = []
        self.recorder = kind(
            memoryview(self.memory), slots, self.limit, self.models, lambda *found: self.slow.append(Slow(*found))
        )
        self.record: Callable[..., None] = self.recorder.record_inference

    def slot(self, number: int) -> tuple[Any, ...]:
        at = number * layout.SLOT_BYTES % len(self.memory)
        return layout.SLOT.unpack_from(self.memory, at)


def words(*values: float | tuple[int, int]) -> bytes:
    packed = b"".join(
        each[0].to_bytes(4, "little") + each[1].to_bytes(4, "little")
        if isinstance(each, tuple)
        else struct.pack("<d", each)
        for each in values
    )
    return packed + bytes(24 - len(packed))


#: Stats; bits, hardware and target of the descriptor; words.
CALLS: list[tuple[dict[str, Any], int, int, int, bytes]] = [
    ({}, 0, 0, 0, words()),
    ({"tokens_per_second": 41.5}, 4, 0, 0, words(41.5)),
    ({"tokens_per_second": 41}, 4, 0, 0, words(41.0)),
    ({"tokens_per_second": True}, 4, 0, 0, words(1.0)),
    ({"input_tokens": 3}, 1, 0, 0, words((3, 0))),
    ({"output_tokens": 4}, 2, 0, 0, words((0, 4))),
    ({"output_tokens": 4, "input_tokens": 2**32 - 1}, 3, 0, 0, words((2**32 - 1, 4))),
    ({"hardware_used": "cpu"}, 0, 1, 0, words()),
    ({"hardware_used": "gpu"}, 0, 2, 0, words()),
    ({"hardware_used": "npu"}, 0, 3, 0, words()),
    ({"execution_target": "local"}, 0, 0, 1, words()),
    ({"execution_target": "cloud", "hardware_used": "NPU".lower()}, 0, 3, 2, words()),
    ({"execution_target": "FALLBACK".lower()}, 0, 0, 3, words()),
    ({"memory_peak_mb": 512, "time_to_first_token_ms": 0.5}, 40, 0, 0, words(0.5, 512.0)),
    ({"samples_per_second": 0, "output_tokens": 1, "memory_peak_mb": 2.0}, 50, 0, 0, words((0, 1), 0.0, 2.0)),
    ({"samples_per_second": 1.5, "tokens_per_second": 2.5, "memory_peak_mb": 3}, 52, 0, 0, words(2.5, 1.5, 3.0)),
    ({"time_to_first_token_ms": Decimal("1.5")}, 8, 0, 0, words(1.5)),
    ({"samples_per_second": 2**53}, 16, 0, 0, words(2.0**53)),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call[0]) or "plain")
def test_a_call_is_a_slot(recorder_type: type[Any], call: Any) -> None:
    stats, bits, hardware, target, packed = call
    ring = Ring(recorder_type)
    before = time.time()
    ring.record("whisper", "1.0", 212.5, **stats)
    after = time.time()
    assert ring.slow == []
    latency_ms, at_s, descriptor, stat_words, call_id, number = ring.slot(1)
    expected = INFERENCE | bits << 48 | hardware << 40 | target << 44
    assert (latency_ms, descriptor, stat_words, call_id, number) == (212.5, expected, packed, 0, 1)
    assert before <= at_s <= after
    assert ring.recorder.reserved() == 1
    assert not any(ring.memory[: layout.SLOT_BYTES] + ring.memory[2 * layout.SLOT_BYTES :])


@pytest.mark.parametrize("latency", [0, 0.0, -0.0, 1e10, 10**10, True, 5, Decimal("0.25"), Fraction(1, 4)])
def test_latencies_of_every_numeric_type(recorder_type: type[Any], latency: Any) -> None:
    ring = Ring(recorder_type)
    ring.record("whisper", "1.0", latency)
    assert (ring.slow, ring.slot(1)[0], ring.slot(1)[5]) == ([], float(latency), 1)


def test_every_way_to_pass_the_arguments(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type)
    ring.record("whisper", "1.0", 1)
    ring.record("whisper", "1.0", latency_ms=2)
    ring.record("whisper", latency_ms=3, version="1.0")
    ring.record(latency_ms=4, hardware_used="cpu", model_id="whisper", version="1.0")
    ring.record("whisper", latency_ms=5)
    ring.record("whisp" + "er"[: len(ring.slow) + 2], "1" + ".0"[: len(ring.slow) + 2], 6)
    assert ring.slow == []
    assert [ring.slot(n)[0] for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert [ring.slot(n)[2] & 0xFF for n in range(1, 7)] == [5, 5, 5, 5, 6, 5]
    ring.record("whisper")
    assert ring.slow[0][:5] == (0, "whisper", "", None, {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((), {"version": "1"}),
        (("m", "1", 1.0, 2.0), {}),
        (("m",), {"model_id": "m"}),
        (("m", "1", 1.0), {"latency_ms": 1.0}),
    ],
)
def test_a_wrong_call_is_a_type_error(recorder_type: type[Any], args: Any, kwargs: Any) -> None:
    ring = Ring(recorder_type)
    with pytest.raises(TypeError):
        ring.record(*args, **kwargs)
    assert (ring.slow, ring.recorder.reserved()) == ([], 0)


class Hostile:
    """Raises whatever is asked of it."""

    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        self.error = error

    def _raise(self, *_: object) -> Any:
        raise self.error

    __float__ = __index__ = __int__ = __bool__ = __hash__ = _raise
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = __add__ = __radd__ = _raise


class Equal:
    """Is what it is said to be until it is converted."""

    def __ge__(self, other: object) -> bool:
        return True

    __le__ = __ge__

    def __radd__(self, other: object) -> Any:
        return 0

    def __float__(self) -> float:
        raise RecursionError


class NotReally(Equal):
    def __float__(self) -> float:
        return math.nan


SLOW_LATENCIES: list[Any] = [
    None, -1, -0.001, math.nan, math.inf, -math.inf, 1e10 + 1, 10**400, -(10**400), "1", b"1", 1j, [], {}, object(),
    Decimal("NaN"), Decimal("sNaN"), Decimal(-1), Decimal("1e11"), Hostile(), Hostile(MemoryError), Equal(),
]  # fmt: skip

SLOW_STATS: list[dict[str, Any]] = [
    {"colour": 1},
    {"tokens_per_second": 1, "colour": "blue"},
    {"tokens_per_second": None},
    {"tokens_per_second": -1},
    {"tokens_per_second": math.nan},
    {"tokens_per_second": math.inf},
    {"tokens_per_second": 2**53 + 1},
    {"tokens_per_second": 2**52, "samples_per_second": 2**52 + 1},
    {"tokens_per_second": 10**400},
    {"tokens_per_second": "fast"},
    {"tokens_per_second": Decimal(1), "samples_per_second": 1.5},
    {"tokens_per_second": Hostile()},
    {"tokens_per_second": Equal()},
    {"input_tokens": 1.0},
    {"input_tokens": 2**32},
    {"input_tokens": -1},
    {"output_tokens": Hostile(OSError)},
    {"output_tokens": "7"},
    {"hardware_used": "tpu"},
    {"hardware_used": None},
    {"hardware_used": 1},
    {"hardware_used": []},
    {"hardware_used": Hostile()},
    {"execution_target": "CLOUD"},
    {"execution_target": {}},
    {"tokens_per_second": 1, "samples_per_second": 1, "memory_peak_mb": 1, "time_to_first_token_ms": 1},
    {"input_tokens": 1, "samples_per_second": 1, "memory_peak_mb": 1, "time_to_first_token_ms": 1},
]


@pytest.mark.parametrize("latency", SLOW_LATENCIES, ids=lambda value: type(value).__name__)
def test_latencies_for_slow(recorder_type: type[Any], latency: Any) -> None:
    handed_to_slow(recorder_type, "whisper", "1.0", latency, {})


@pytest.mark.parametrize("stats", SLOW_STATS, ids=" ".join)
def test_stats_for_slow(recorder_type: type[Any], stats: dict[str, Any]) -> None:
    handed_to_slow(recorder_type, "whisper", "1.0", 1.5, stats)


@pytest.mark.parametrize(
    ("model_id", "version"),
    [("other", "1.0"), ("whisper", "2"), (None, "1.0"), ("whisper", None), (3, 4), ([], "1"), (Hostile(), Hostile())],
)
def test_models_for_slow(recorder_type: type[Any], model_id: Any, version: Any) -> None:
    handed_to_slow(recorder_type, model_id, version, 1.5, {})
    handed_to_slow(recorder_type, model_id, version, 1.5, {"tokens_per_second": 41.5})


def handed_to_slow(recorder_type: type[Any], model_id: Any, version: Any, latency: Any, stats: dict[str, Any]) -> None:
    """With its own arguments, and a number that `slow` must write, or none."""
    ring = Ring(recorder_type)
    before = time.time()
    ring.record(model_id, version, latency, **stats)
    (slow,) = ring.slow
    assert slow.model_id is model_id
    assert slow.version is version
    assert slow.latency_ms is latency
    assert list(slow.stats) == list(stats)
    assert all(slow.stats[name] is value for name, value in stats.items())
    assert before <= slow.at_s <= time.time()
    assert slow.number == ring.recorder.reserved()
    assert ring.slot(1)[5] == 0


def test_what_is_no_exception_propagates(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type)
    hostile = Hostile(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        ring.record("whisper", "1.0", hostile)
    with pytest.raises(KeyboardInterrupt):
        ring.record(hostile, "1.0", 1)
    with pytest.raises(KeyboardInterrupt):
        ring.record("whisper", "1.0", 1, tokens_per_second=hostile)
    assert (ring.slow, ring.recorder.reserved()) == ([], 0)


def test_an_error_of_slow_is_the_callers(recorder_type: type[Any]) -> None:
    def slow(*_: object) -> None:
        raise LookupError("slow")

    memory = memoryview(bytearray(SLOTS * 64))
    recorder = recorder_type(memory, SLOTS, memoryview(bytearray(8)).cast("Q"), {}, slow)
    with pytest.raises(LookupError, match="slow"):
        recorder.record_inference("whisper", "1.0", 1)


def test_values_that_record_themselves(recorder_type: type[Any]) -> None:
    """Each comparison of its latency records again, until Python has enough of it."""
    ring = Ring(recorder_type)

    class Recording:
        def __ge__(self, other: object) -> bool:
            ring.record("whisper", "1.0", self)
            return True

        def __float__(self) -> float:
            return 1.0

    ring.record("whisper", "1.0", 2.5)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        ring.record("whisper", "1.0", Recording())
    except RecursionError:
        pass  # `slow` itself had no room
    finally:
        sys.setrecursionlimit(limit)
    ring.record("whisper", "1.0", 3.5)
    assert ring.slot(ring.recorder.reserved())[0] == 3.5


def test_a_value_that_turns_out_to_be_another_is_not_written_by_c() -> None:
    ring = Ring(c_recorder())
    ring.record("whisper", "1.0", NotReally())
    ring.record("whisper", "1.0", 1, tokens_per_second=NotReally())
    assert [slow.number for slow in ring.slow] == [0, 0]
    assert not any(ring.memory)


def test_the_limit(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type, limit=2)
    for latency in range(1, 6):
        ring.record("whisper", "1.0", latency)
    assert [(slow.number, slow.latency_ms) for slow in ring.slow] == [(3, 3), (4, 4), (5, 5)]
    ring.limit[0] = 6
    ring.record("whisper", "1.0", 6, hardware_used="cpu")
    ring.limit[0] = 0
    ring.record("whisper", "1.0", 7, hardware_used="cpu")
    assert [slow.number for slow in ring.slow] == [3, 4, 5, 7]
    assert [ring.slot(n)[0] for n in range(1, 8)] == [1, 2, 0, 0, 0, 6, 0]
    assert ring.recorder.reserved() == 7
    assert ring.recorder.reserve() == 8
    assert ring.recorder.reserved() == 8


def test_slots_are_overwritten_in_turn(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type)
    for latency in range(1, 3 * SLOTS + 6):
        ring.record("whisper", "1.0", latency, **({"tokens_per_second": 1.0} if latency % 3 else {}))
    newest = {ring.slot(n)[5]: ring.slot(n)[0] for n in range(SLOTS)}
    assert newest == {n: float(n) for n in range(2 * SLOTS + 6, 3 * SLOTS + 6)}
    assert all(any(ring.slot(n)[3]) == bool(n % 3) for n in newest)


def test_a_model_that_is_added_is_known_from_then_on(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type)
    ring.record("later", "1", 1)
    ring.models["later", "1"] = INFERENCE + 9
    ring.record("later", "1", 2)
    ring.record("later", "1", 3)
    assert len(ring.slow) == 1
    assert [ring.slot(n)[2] for n in (1, 2)] == [INFERENCE + 9] * 2


def test_many_models_by_strings_that_are_new_each_time(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type, slots=4096)
    ring.models.update({(f"model {n}", str(n % 7)): INFERENCE + 10 + n for n in range(500)})
    calls = [n % 500 for n in range(2000)]
    random.Random(5).shuffle(calls)
    for n in calls:
        ring.record(f"model {n}", str(n % 7), n)
    gc.collect()
    assert ring.slow == []
    assert [ring.slot(at)[2] for at in range(1, 2001)] == [INFERENCE + 10 + n for n in calls]


def test_write_fills_any_slot(recorder_type: type[Any]) -> None:
    ring = Ring(recorder_type)
    ring.recorder.write(70, 1.5, 1700000000.25, layout.describe(layout.ERROR, 9), words((3, 4)), call=69)
    ring.recorder.write(number=7, latency_ms=2, at_s=3, descriptor=2**64 - 1)
    assert ring.slot(70) == (1.5, 1700000000.25, layout.describe(layout.ERROR, 9), words((3, 4)), 69, 70)
    assert ring.slot(7) == (2.0, 3.0, 2**64 - 1, bytes(24), 0, 7)
    ring.recorder.write(8, 0, 0, 0, b"\1\2\3")
    assert ring.slot(8)[3] == b"\1\2\3" + bytes(21)


@pytest.mark.parametrize(
    "wrong", [{"number": -1}, {"number": 2**64}, {"latency_ms": "1"}, {"words": 3}, {"call": None}]
)
def test_write_of_something_else_is_an_error(recorder_type: type[Any], wrong: dict[str, Any]) -> None:
    ring = Ring(recorder_type)
    arguments = {"number": 1, "latency_ms": 1.0, "at_s": 1.0, "descriptor": 1} | wrong
    with pytest.raises((TypeError, ValueError, OverflowError, struct.error)):
        ring.recorder.write(**arguments)
    assert ring.slot(1)[5] == 0


def test_threads_write_every_number_once(recorder_type: type[Any]) -> None:
    threads, each = 32, 1000
    ring = Ring(recorder_type, slots=2**15, limit=threads * each - 7)
    together = threading.Barrier(threads)

    def record(first: int) -> None:
        together.wait()
        for at in range(first, first + each):
            if at % 2:
                ring.record("whisper", "1.0", at)
            else:
                ring.record(f"model {at % 100}", "1.0", at, tokens_per_second=at)

    ring.models.update({(f"model {n}", "1.0"): INFERENCE + n for n in range(100)})
    running = [threading.Thread(target=record, args=(n * each,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    written = [ring.slot(n) for n in range(1, threads * each - 6)]
    assert [slot[5] for slot in written] == list(range(1, threads * each - 6))
    assert sorted(slow.number for slow in ring.slow) == list(range(threads * each - 6, threads * each + 1))
    seen = [slot[0] for slot in written] + [slow.latency_ms for slow in ring.slow]
    assert sorted(seen) == list(range(threads * each))
    for latency_ms, _, descriptor, packed, _, _ in written:
        assert packed == (words() if latency_ms % 2 else words(latency_ms)), latency_ms
        assert descriptor & 0xFFFF == INFERENCE % 2**16 + (0 if latency_ms % 2 else latency_ms % 100)


FORKS = """
import ctypes, mmap, os, sys
from xybridd.client.recorder import PythonRecorder, best_recorder

kind = PythonRecorder if sys.argv[1] == "python" else best_recorder()
memory = mmap.mmap(-1, 64 * 64)
private = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private.madvise(18)  # MADV_WIPEONFORK
limit = memoryview(private).cast("Q")
limit[0] = 64
slow = []
recorder = kind(memoryview(memory), 64, limit, {("m", ""): 1}, lambda *found: slow.append(found[0]))
recorder.record_inference("m", "", 1)
for fork in (os.fork, ctypes.CDLL(None).fork):
    child = fork()
    if child == 0:
        recorder.record_inference("m", "", 2)
        os._exit(0 if slow and limit[0] == 0 else 1)
    print(os.waitpid(child, 0)[1])
recorder.record_inference("m", "", 3)
print(slow, recorder.reserved(), any(memory[3 * 64:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="MADV_WIPEONFORK is Linux's own")
def test_a_forked_child_writes_nothing_into_its_parents_ring(recorder_type: type[Any]) -> None:
    kind = "python" if recorder_type is PythonRecorder else "c"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, kind], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.stdout.split("\n"), done.stderr) == (["0", "0", "[] 2 False", ""], "")


def test_the_fastest_recorder_is_chosen_unless_python_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = c_recorder()
    monkeypatch.delenv("XYBRIDD_PURE_PYTHON", raising=False)
    assert best_recorder() is recorder
    monkeypatch.setenv("XYBRIDD_PURE_PYTHON", "1")
    assert best_recorder() is PythonRecorder


# The recorder in C by itself


def test_memory_that_does_not_fit_is_refused() -> None:
    recorder = c_recorder()
    slots, limit = bytearray(64 * 64), bytearray(8)
    for wrong, error in (
        ((slots, 128, limit, {}, print), ValueError),
        ((slots, 63, limit, {}, print), ValueError),
        ((slots, 0, limit, {}, print), ValueError),
        ((slots, 2**62, limit, {}, print), ValueError),
        ((memoryview(slots)[1:], 32, limit, {}, print), ValueError),
        ((slots, 64, limit[:7], {}, print), ValueError),
        ((bytes(slots), 64, limit, {}, print), (BufferError, TypeError)),
        ((slots, 64, limit, [], print), TypeError),
        ((slots, 64, limit, {}, None), TypeError),
        ((slots, 64, limit, {}), TypeError),
    ):
        with pytest.raises(error):
            recorder(*wrong)


def test_a_recorder_in_a_cycle_is_collected() -> None:
    recorder = c_recorder()

    class Owner:
        recorder: Any
        record: Any

        def __del__(self) -> None:
            self.record("whisper", "1.0", 2.5)
            self.record("other", "1.0", 2.5)

        def slow(self, *_: object) -> None:
            slow.append(1)

    slow: list[int] = []
    memory = bytearray(SLOTS * 64)
    owner = Owner()
    owner.recorder = recorder(memory, SLOTS, bytearray(b"\xff" * 8), dict(MODELS), owner.slow)
    owner.record = owner.recorder.record_inference
    with pytest.raises(BufferError):
        memory.append(0)  # it is held
    del owner
    gc.collect()
    assert slow == [1]
    assert layout.SLOT.unpack_from(memory, 64)[5] == 1
    memory.append(0)


# By chance

_numbers = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(0, 2**33), st.integers(2**52, 2**54), st.floats(),
    st.floats(0, 1e11), st.decimals(), st.fractions(), st.text(max_size=3), st.builds(Equal), st.builds(Hostile),
)  # fmt: skip
_models: st.SearchStrategy[Any] = st.one_of(
    st.just("whisper"),
    st.sampled_from(["WHISPER".lower(), "né 中文", "other", "", None, 3, (), b"whisper"]),
    st.builds(Hostile),
    st.builds(list),
)
_versions = st.one_of(st.just("1.0"), st.sampled_from(["", "2", None, 1.0]), st.builds(Hostile))
_stats = st.dictionaries(
    st.sampled_from([*layout.STAT_BITS, "hardware_used", "execution_target", "colour"]),
    st.one_of(_numbers, st.floats(0, 1e6), st.sampled_from([*layout.HARDWARE, *layout.TARGETS, "CPU"])),
    max_size=5,
)


@given(st.lists(st.tuples(_models, _versions, _numbers, _stats, st.booleans()), min_size=1, max_size=20))
def test_any_calls_are_the_same_to_both(calls: list[tuple[Any, Any, Any, dict[str, Any], bool]]) -> None:
    rings = python, c = Ring(PythonRecorder), Ring(c_recorder())
    for number, (model_id, version, latency_ms, stats, may_write) in enumerate(calls, 1):
        for ring in rings:
            ring.slow.clear()
            ring.limit[0] = number if may_write else 0
            ring.record(model_id, version, latency_ms, **stats)
            assert ring.recorder.reserved() in {number - 1, number}
            if ring.recorder.reserved() < number:
                assert ring.slow[0].number == 0
                ring.recorder.reserve()  # both go on with the same number
            assert (ring.slot(number)[5] == number) is not bool(ring.slow)
        assert len(python.slow) == len(c.slow)
        if python.slow:
            # The one in Python reserves before it converts; the number of the one in C may be 0 then.
            assert c.slow[0].number in {0, python.slow[0].number}
            assert c.slow[0].number == 0 or not may_write
            ours, theirs = ((*ring.slow[0][1:4], *ring.slow[0].stats.values()) for ring in rings)
            assert list(map(id, ours)) == list(map(id, theirs))
            assert list(python.slow[0].stats) == list(c.slow[0].stats)
        else:
            ours, theirs = (ring.slot(number) for ring in rings)
            assert ours[: layout.TIME] + ours[layout.TIME + 1 :] == theirs[: layout.TIME] + theirs[layout.TIME + 1 :]
