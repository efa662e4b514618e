from __future__ import annotations
from typing import Any
class Calls:
    def __init__(self, model_id, version, latencies_ms, latest_ms=0, first=0, last=0, hardware_used=None, execution_target=None, stats=None):
        self.model_id, self.version, self.hardware_used, self.execution_target = model_id, version, hardware_used, execution_target
        self.latencies_ms, self.latest_ms, self.first, self.last, self.stats = latencies_ms, latest_ms, first, last, stats or {}
