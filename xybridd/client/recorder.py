"""Write records into the slots of a ring: the reference writer, and the C one where it was built.

A recorder belongs to one ring. Its calls reserve a slot number, compare it to the limit, and write the slot; nothing
else happens in the app's thread. Every other case goes to `slow`: a model that is seen for the first time, a full ring,
a daemon to wake, a value of another type. `xybridd.client.writer` handles those.

`slow(number, model_id, version, latency_ms, stats, at_s)` gets the number that was reserved, 0 for none. A reserved
number at or below the limit must be written by it, if only as `VOID`: the reader waits for it.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    from collections.abc import Callable

#: A latency above this, 115 days, is hardly in milliseconds: `slow` reports it.
LONGEST_MS = 1e10

#: Held here, so that a test of the app's that replaces the clock does not stop recording.
now_s = time.time

#: 2**53: the largest number up to which every integer has a float of its own.
LARGEST = 2**53

Slow = "Callable[[int, Any, Any, Any, dict[str, Any], float], None]"


class RecorderType(Protocol):
    """What both recorders offer."""

    record_inference: Callable[..., None]

    def reserve(self) -> int:
        """The next slot number, from 1; atomic."""

    def reserved(self) -> int:
        """The last number that was reserved, 0 before the first."""

    def write(
        self, number: int, latency_ms: float, at_s: float, descriptor: int, words: bytes = b"", call: int = 0
    ) -> None:
        """Fill a slot; its number is written last. ``words``: up to three words of stats, 24 bytes."""


class Shape:
    """How the stats of one set of names are written: which bits, in which words."""

    __slots__ = ("bits", "hardware", "names", "pack", "target", "values")

    def __init__(self, names: tuple[str, ...]) -> None:
        numeric = [name for name in layout.STAT_BITS if name in names]
        self.names = tuple(numeric)
        self.bits = sum(layout.STAT_BITS[name] for name in numeric) << layout.STATS_SHIFT
        self.hardware = "hardware_used" in names
        self.target = "execution_target" in names
        text = {1: "I4x", 2: "4xI", 3: "II", 0: ""}[self.bits >> layout.STATS_SHIFT & layout.TOKENS]
        floats = [name for name in numeric if not layout.STAT_BITS[name] & layout.TOKENS]
        words = bool(text) + len(floats)
        if words > layout.STAT_WORDS or len(numeric) + self.hardware + self.target != len(names):
            raise KeyError(names)
        #: The numbers as a tuple, which is never empty: where there are none, a zero stands in the first word anyway.
        self.values: Callable[[dict[str, Any]], tuple[Any, ...]]
        if len(numeric) > 1:
            self.values = itemgetter(*numeric)
        elif numeric:
            name = numeric[0]
            self.values = lambda stats: (stats[name],)
        else:
            floats, words, self.values = ["none"], 1, lambda _: (0.0,)
        rest = 8 * (layout.STAT_WORDS - words)
        self.pack = struct.Struct(f"<ddQ{text}{len(floats)}d{rest}x8xQ").pack_into

    @staticmethod
    def first(stats: dict[str, float]) -> list[str]:
        """The names of the stats that fit into three words, in the order of the bits."""
        names: list[str] = []
        words = 0
        for name, bit in layout.STAT_BITS.items():
            if name in stats:
                words += not (bit & layout.TOKENS and names and layout.STAT_BITS[names[-1]] & layout.TOKENS)
                if words > layout.STAT_WORDS:
                    break
                names.append(name)
        return names

    @classmethod
    def words(cls, stats: dict[str, float]) -> tuple[int, bytes]:
        """The bits and the words of stats that fit into three words."""
        if not stats:
            return 0, b""
        shape, slot = cls(tuple(stats)), bytearray(layout.SLOT_BYTES)
        values = [int(stats[name]) if layout.STAT_BITS[name] & layout.TOKENS else stats[name] for name in shape.names]
        shape.pack(slot, 0, 0.0, 0.0, 0, *values, 0)
        return shape.bits, bytes(slot[24:48])


class PythonRecorder:
    """The reference writer."""

    def __init__(
        self,
        slots: memoryview,
        count: int,
        limit: memoryview,
        models: dict[tuple[str, str], int],
        slow: Callable[[int, Any, Any, Any, dict[str, Any], float], None],
    ) -> None:
        """``slots``: the bytes of `count` slots. ``limit``: one 64-bit word, the highest number that may be written.

        ``models``: the entry of each model and version that the table holds, kind `INFERENCE` included.
        """
        self._slots, self._mask = slots, count - 1
        self._numbers = itertools.count(1)
        self.reserve = self._numbers.__next__
        self.record_inference = self._compile(limit, models, slow)

    def reserved(self) -> int:
        # The one way to look at a counter without moving it, in every version: count(5) says that 5 comes next.
        return int(repr(self._numbers)[6:-1]) - 1

    def write(
        self, number: int, latency_ms: float, at_s: float, descriptor: int, words: bytes = b"", call: int = 0
    ) -> None:
        at = (number & self._mask) * layout.SLOT_BYTES
        layout.SLOT.pack_into(self._slots, at, latency_ms, at_s, descriptor, words, call, number)

    def _compile(  # noqa: C901 - one scope, on purpose: a look-up in it costs the least
        self, limit: memoryview, models: dict[tuple[str, str], int], slow: Any
    ) -> Callable[..., None]:
        """The call itself, with everything that it needs in its own scope."""
        slots, mask, reserve, now = self._slots, self._mask, self.reserve, now_s
        pack = struct.Struct("<ddQ32xQ").pack_into
        shapes: dict[tuple[str, ...], Shape] = {}
        hardware = {name: number << layout.HARDWARE_SHIFT for name, number in layout.HARDWARE.items()}
        targets = {name: number << layout.TARGET_SHIFT for name, number in layout.TARGETS.items()}

        def record_inference(model_id: Any, version: Any = "", latency_ms: Any = None, **stats: Any) -> None:
            number, at_s = 0, now()
            try:
                descriptor = models[model_id, version]
                if not stats:
                    if 0 <= latency_ms <= LONGEST_MS:
                        number = reserve()
                        if number <= limit[0]:
                            pack(slots, (number & mask) << 6, latency_ms, at_s, descriptor, number)
                            return
                else:
                    names = tuple(stats)
                    shape = shapes.get(names)
                    if shape is None:
                        shape = shapes[names] = Shape(names)
                    descriptor |= shape.bits
                    if shape.hardware:
                        descriptor |= hardware[stats["hardware_used"]]
                    if shape.target:
                        descriptor |= targets[stats["execution_target"]]
                    values = shape.values(stats)
                    if 0 <= latency_ms <= LONGEST_MS and (not values or (min(values) >= 0 and sum(values) <= LARGEST)):
                        number = reserve()
                        if number <= limit[0]:
                            shape.pack(slots, (number & mask) << 6, latency_ms, at_s, descriptor, *values, number)
                            return
            except Exception:  # noqa: BLE001, S110 - whatever the values are: `slow` looks at each of them
                pass
            slow(number, model_id, version, latency_ms, stats, at_s)

        return record_inference


def best_recorder() -> type[Any]:
    """The C recorder where it was built, unless XYBRIDD_PURE_PYTHON is set."""
    if not os.environ.get("XYBRIDD_PURE_PYTHON"):
        try:
            from xybridd.client._recorder import Recorder  # noqa: PLC0415
        except ImportError:
            pass
        else:
            return Recorder
    return PythonRecorder
