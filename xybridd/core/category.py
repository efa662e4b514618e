"""What kind of failure an error message tells of, by the words in it.

The words and their order are the reference's. Some answers look odd ("boom" speaks of memory, because it
contains "oom"; "upload failed" of loading a model); they are part of the format, since dashboards compare
devices with different SDKs. A producer that knows better says so in ``category``.
"""

from enum import StrEnum


class ErrorCategory(StrEnum):
    """The value is the spelling in sessions and exports; `wire_name` the other one the protocol takes."""

    MODEL_LOADING = "ModelLoading"
    PREPROCESSING = "Preprocessing"
    INFERENCE = "Inference"
    POSTPROCESSING = "Postprocessing"
    NETWORK = "Network"
    HARDWARE = "Hardware"
    MEMORY = "Memory"
    UNKNOWN = "Unknown"

    @property
    def wire_name(self) -> str:
        return self.name.lower()


#: The first row with a word that the lower-cased message contains decides.
WORDS: tuple[tuple[ErrorCategory, tuple[str, ...]], ...] = (
    (ErrorCategory.MODEL_LOADING, ("load", "bundle", "model not found")),
    (ErrorCategory.PREPROCESSING, ("preprocess", "input", "format")),
    (ErrorCategory.INFERENCE, ("inference", "execute", "onnx")),
    (ErrorCategory.POSTPROCESSING, ("postprocess", "output")),
    (ErrorCategory.NETWORK, ("network", "connection", "registry", "http")),
    (ErrorCategory.HARDWARE, ("gpu", "metal", "cuda", "npu")),
    (ErrorCategory.MEMORY, ("memory", "oom")),
)

_BY_NAME = {name: member for member in ErrorCategory for name in (member.value, member.wire_name)}


def categorize(message: str) -> ErrorCategory:
    lowered = message.lower()
    for category, words in WORDS:
        if any(word in lowered for word in words):
            return category
    return ErrorCategory.UNKNOWN


def category_named(name: str) -> ErrorCategory:
    """The category called `name`, in either spelling: ``ModelLoading`` or ``model_loading``."""
    return _BY_NAME[name]
