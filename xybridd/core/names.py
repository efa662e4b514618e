"""What our figures are called outside: one table, after OpenTelemetry's semantic conventions.

The conventions for generative AI and for hardware are still in development: `CONVENTIONS` is the version that the names
are of. What they do not cover has the prefix ``xybrid.``. A session's id is no attribute of a figure, since each would
make series of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from xybridd.core.category import ErrorCategory, category_named

CONVENTIONS = "1.37.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{CONVENTIONS}"


class Metric(NamedTuple):
    """``unit`` as UCUM writes it; ``1`` is a share from 0 to 1, one in braces only says what is counted."""

    name: str
    unit: str
    description: str


OPERATION_DURATION = Metric("gen_ai.client.operation.duration", "s", "How long inferences took.")
TOKEN_USAGE = Metric("gen_ai.client.token.usage", "{token}", "Tokens read and written by inferences.")
TIME_TO_FIRST_TOKEN = Metric("gen_ai.server.time_to_first_token", "s", "How long the first token took.")
CALLS = Metric("xybrid.inference.calls", "{call}", "Inferences, by where they were carried out.")
ERRORS = Metric("xybrid.inference.errors", "{error}", "Errors, by category and model.")
TOKEN_RATE = Metric("xybrid.inference.token_rate", "{token}/s", "Tokens a second, as inferences reported them.")

HW_TEMPERATURE = Metric("hw.temperature", "Cel", "Temperature of a part of the device.")
HW_POWER = Metric("hw.power", "W", "Power that a part of the device takes.")
HW_BATTERY_CHARGE = Metric("hw.battery.charge", "1", "How full the battery is.")
HW_GPU_UTILIZATION = Metric("hw.gpu.utilization", "1", "How busy the GPU is.")
HW_GPU_MEMORY_USAGE = Metric("hw.gpu.memory.usage", "By", "Memory of the GPU that is in use.")
HW_GPU_MEMORY_LIMIT = Metric("hw.gpu.memory.limit", "By", "Memory that the GPU has.")
NPU_UTILIZATION = Metric("xybrid.npu.utilization", "1", "How busy the NPU is.")
NPU_MEMORY_USAGE = Metric("xybrid.npu.memory.usage", "By", "Memory of the NPU that is in use.")
NPU_MEMORY_LIMIT = Metric("xybrid.npu.memory.limit", "By", "Memory that the NPU has.")
CPU_UTILIZATION = Metric("xybrid.cpu.utilization", "1", "How busy all CPUs together are.")
MEMORY_AVAILABLE = Metric("xybrid.memory.available", "By", "Memory that an app can still get.")
THERMAL_LEVEL = Metric("xybrid.thermal.level", "{level}", "0 normal, 1 warm, 2 hot, 3 critical.")
THROTTLED = Metric("xybrid.thermal.throttled", "{state}", "1 while the device runs slower because of heat, else 0.")

#: Units in Prometheus' words; what a unit in braces counts is in the name already.
_PROMETHEUS_UNITS = {
    "s": "seconds",
    "By": "bytes",
    "Cel": "celsius",
    "W": "watts",
    "1": "ratio",
    "{token}/s": "per_second",
}


def prometheus_name(metric: Metric) -> str:
    """The name that a Collector gives it: ``gen_ai_client_operation_duration_seconds``; a counter adds ``_total``."""
    unit = _PROMETHEUS_UNITS.get(metric.unit, "")
    return prometheus_label(metric.name) + (f"_{unit}" if unit else "")


def prometheus_label(attribute: str) -> str:
    return attribute.replace(".", "_")


#: The levels of `THERMAL_LEVEL`.
THERMAL_LEVELS = {"normal": 0, "warm": 1, "hot": 2, "critical": 3}

# Attributes of points.
OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - tokens of a model
ERROR_TYPE = "error.type"
MODEL_VERSION = "xybrid.model.version"
THERMAL_STATE = "xybrid.thermal.state"
POWER_SOURCE = "xybrid.power.source"
ACCELERATOR = "xybrid.inference.accelerator"
TARGET = "xybrid.inference.target"
HW_ID = "hw.id"
HW_NAME = "hw.name"
HW_TYPE = "hw.type"

#: Values of the first two, which the conventions want on each point about an inference. A record does not say what
#: ran the model, only that our client reported it.
INFERENCE = "inference"
PROVIDER = "xybrid"

#: What the conventions have for an error that nobody can name.
OTHER_ERROR = "_OTHER"

#: `platform` of an item in the words of the conventions' ``os.type``.
OS_TYPES = {"macos": "darwin", "ios": "darwin", "android": "linux"}


def error_type(category: str) -> str:
    """``ModelLoading`` is ``model_loading``; ``Unknown``, and what is no category, is ``_OTHER``."""
    try:
        found = category_named(category)
    except KeyError:
        return OTHER_ERROR
    return OTHER_ERROR if found is ErrorCategory.UNKNOWN else found.wire_name
