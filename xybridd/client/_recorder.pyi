from collections.abc import Callable
from typing import Any, final

from typing_extensions import Buffer

def after_fork_child() -> None: ...

@final
class Recorder:
    def __new__(
        cls,
        slots: Buffer,
        count: int,
        limit: Buffer,
        models: dict[tuple[str, str], int],
        slow: Callable[[int, Any, Any, Any, dict[str, Any], float], None],
    ) -> Recorder: ...
    def record_inference(self, model_id: Any, version: Any = "", latency_ms: Any = None, **stats: Any) -> None: ...
    def reserve(self) -> int: ...
    def reserved(self) -> int: ...
    def write(
        self, number: int, latency_ms: float, at_s: float, descriptor: int, words: bytes = b"", call: int = 0
    ) -> None: ...
