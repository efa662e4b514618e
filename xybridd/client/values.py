"""What apps pass, as it is meant: never an exception, never a lost call for an optional value.

A value whose intent is clear is taken (12.0 tokens are 12, ``"CUDA:0"`` is a GPU, version 1 is ``"1"``, a numpy or
torch scalar is its number). Any other optional value is left out. Both are said once for each field, by name.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from xybridd.client.recorder import LARGEST, LONGEST_MS
from xybridd.protocol import ring as layout

if TYPE_CHECKING:
    import logging

#: Characters of names, as the protocol takes them.
MOST_APP = MOST_VERSION = MOST_LABEL_NAME = 128
MOST_MODEL, MOST_LABEL, MOST_LABELS = 256, 1024, 64

_WHOLE = frozenset({"memory_peak_mb", "input_tokens", "output_tokens"})

#: Names of devices in frameworks, by what they are. What follows a colon, the number of the device, does not matter.
_HARDWARE = {
    **dict.fromkeys(
        (
            "gpu",
            "cuda",
            "rocm",
            "hip",
            "metal",
            "mps",
            "vulkan",
            "opencl",
            "directml",
            "dml",
            "tensorrt",
            "xpu",
            "webgpu",
        ),
        "gpu",
    ),
    **dict.fromkeys(("npu", "ane", "hexagon", "qnn", "htp", "tpu", "edgetpu", "hailo", "rknn", "vpu"), "npu"),
    **dict.fromkeys(("cpu", "xnnpack", "openblas", "mkl"), "cpu"),
}
_TARGETS = {
    **dict.fromkeys(("local", "device", "on-device", "edge"), "local"),
    **dict.fromkeys(("cloud", "remote", "server", "api"), "cloud"),
    "fallback": "fallback",
}


class Call(NamedTuple):
    """One call as a ring takes it: ``stats`` are numbers by name, ``latency_ms`` is None when it cannot be recorded."""

    model_id: str
    version: str
    latency_ms: float | None
    stats: dict[str, float]
    hardware: int
    target: int


class Values:
    """Reads values, and counts by field what it had to leave out."""

    def __init__(self) -> None:
        self.omitted: Counter[str] = Counter()
        self._said: set[str] = set()

    def call(self, model_id: Any, version: Any, latency_ms: Any, stats: dict[str, Any]) -> Call:
        numbers: dict[str, float] = {}
        hardware = target = 0
        for name, value in stats.items():
            if value is None:
                continue
            if name == "hardware_used":
                hardware = layout.HARDWARE.get(self._one_of(name, value, _HARDWARE), 0)
            elif name == "execution_target":
                target = layout.TARGETS.get(self._one_of(name, value, _TARGETS), 0)
            elif name in layout.STAT_BITS:
                if (number := self._stat(name, value)) is not None:
                    numbers[name] = number
            else:
                self.omit(name, value, "left out: no such value is known")
        return Call(
            self.name("model_id", model_id, MOST_MODEL) or self._unnamed(model_id),
            self.name("version", version, MOST_VERSION),
            self.latency(latency_ms),
            numbers,
            hardware,
            target,
        )

    def latency(self, value: Any) -> float | None:
        """Milliseconds; None for what is none. A call without a latency took 0 ms, which is said."""
        if value is None:
            self._say("latency_ms", "a call was recorded without latency_ms; it counts as 0 ms")
            return 0.0
        number = _number(value)
        if number is None or not 0 <= number <= LARGEST:
            self._say("latency_ms", f"latency_ms {_shown(value)} is not a time in milliseconds; the call is left out")
            return None
        if number > LONGEST_MS:
            self._say("latency_ms", f"latency_ms {_shown(value)} is over 115 days; is it in milliseconds?")
        return number

    def name(self, field: str, value: Any, most: int) -> str:
        """A text of at most `most` characters; "" for None."""
        text = as_text("" if value is None else value)
        if value is not None and not isinstance(value, str):
            self._say(field, f"{field} {_shown(value)} is not a string; {text[:most]!r} is recorded")
        elif len(text) > most:
            self._say(field, f"{field} has {len(text)} characters; the first {most} are recorded")
        return text[:most]

    def labels(self, given: Any) -> dict[str, str]:
        if not given:
            return {}
        try:
            items = list(dict(given).items())
        except Exception:  # noqa: BLE001 - a list, or an object whose iteration fails
            self.omit("labels", given, "left out: labels are a dict of strings")
            return {}
        if len(items) > MOST_LABELS:
            self._say("labels", f"{len(items)} labels were given; the first {MOST_LABELS} are recorded")
        labels = {}
        for name, value in items[:MOST_LABELS]:
            key = self.name("label name", name, MOST_LABEL_NAME)
            if key:
                labels[key] = self.name(f"label {key!r}", value, MOST_LABEL)
        return labels

    def session_id(self, given: Any) -> str | None:
        """The session to take part in; None for one of its own, also where no session can have such an id."""
        if given is None:
            return None
        text = as_text(given).lower()
        if len(text) == 36 and text.count("-") == 4 and text.replace("-", "").isalnum():
            return text
        self.omit("session_id", given, "left out: not a UUID")
        return None

    def category(self, value: Any) -> int:
        """The number of a category in either spelling; 0 for none."""
        if value is None:
            return 0
        wanted = as_text(value).replace("_", "").lower()
        for number, name in enumerate(layout.CATEGORIES, 1):
            if name.lower() == wanted:
                return number
        self.omit("category", value, "left out: the words of the error decide")
        return 0

    def _stat(self, name: str, value: Any) -> float | None:
        number = _number(value)
        most = layout.MOST_TOKENS if name in {"input_tokens", "output_tokens"} else LARGEST
        if number is None or not 0 <= number <= most:
            self.omit(name, value, "left out: not a number that it can be")
            return None
        if name in _WHOLE and number != int(number):
            self._say(name, f"{name} {_shown(value)} is rounded to a whole number")
        return float(round(number)) if name in _WHOLE else number

    def _one_of(self, name: str, value: Any, known: dict[str, str]) -> str:
        found = known.get(as_text(value).strip().lower().partition(":")[0])
        if found is None:
            self.omit(name, value, f"left out: expected one of {', '.join(dict.fromkeys(known.values()))}")
        return found or ""

    def _unnamed(self, value: Any) -> str:
        self._say("model_id", f"model_id {_shown(value)} names no model; the call counts for 'unknown'")
        return "unknown"

    def omit(self, field: str, value: Any, result: str) -> None:
        """Count a value that is left out, and say so once."""
        self.omitted[field[:64]] += 1
        self._say(field, f"{field} {_shown(value)} is {result}")

    def _say(self, field: str, sentence: str) -> None:
        if field not in self._said and len(self._said) < 100:
            self._said.add(field)
            log().warning("%s (said once for %s)", sentence, field)


def as_text(value: Any) -> str:
    """The text of anything, in characters that UTF-8 has."""
    try:
        text = value if type(value) is str else str(value)
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file that is not UTF-8
        text = text.encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - an object whose own __str__ fails
        text = type(value).__name__
    return text


def text_of_error(error: Any) -> str:
    """An exception by its type and its text."""
    if not isinstance(error, BaseException):
        return as_text(error)
    kind, text = type(error).__name__, ""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        return kind
    return as_text(f"{kind}: {text}")


def cut(text: str, most_bytes: int) -> bytes:
    """UTF-8 of at most so many bytes, whole characters."""
    return text[:most_bytes].encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore").encode()


def _number(value: Any) -> float | None:
    """A finite number: of a number, a Decimal, a scalar of numpy or torch."""
    if isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001
        try:
            number = float(value.item())
        except Exception:  # noqa: BLE001
            return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    try:
        return repr(value)[:40]
    except Exception:  # noqa: BLE001
        return f"of type {type(value).__name__}"


def log() -> logging.Logger:
    import logging  # noqa: PLC0415 - a third of what importing this package would take, and rarely needed

    return logging.getLogger("xybridd.client")
