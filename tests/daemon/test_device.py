"""What a client is told of the device: capabilities, advice, and word of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import WireFailure

if TYPE_CHECKING:
    from tests.support import Daemon

FIELDS = [
    "has_gpu", "gpu_type", "has_nnapi", "has_metal", "has_npu", "npu_type", "memory_available_mb", "memory_total_mb",
    "cpu_usage_percent", "cpu_cores", "battery_level", "thermal_state", "platform", "memory_confidence",
    "gpu_confidence", "npu_confidence", "details",
]  # fmt: skip


def test_capabilities_are_the_references_fields_then_details(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        found = wire.call("device.capabilities")
    assert list(found) == FIELDS
    assert found["memory_total_mb"] > 0
    assert found["details"]["memory"]["confidence"] == "high"


def test_advice_answers_whether_a_model_fits(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        small = wire.call("device.advice", model_size_mb=1)
        large = wire.call("device.advice", model_size_mb=10**9, safety_margin=2)
        neither = wire.call("device.advice")
    assert small["can_load_model"] is True
    assert large["can_load_model"] is False
    assert any("MB are needed" in reason for reason in large["reasons"])
    assert neither["can_load_model"] is None
    assert neither["prefer"] in {"npu", "gpu", "cpu"}


@pytest.mark.parametrize("params", [{"model_size_mb": -1}, {"model_size_mb": "big"}, {"safety_margin": 0}])
def test_advice_about_nonsense_is_refused(daemon: Daemon, params: dict[str, object]) -> None:
    with daemon.wire() as wire, pytest.raises(WireFailure) as caught:
        wire.call("device.advice", **params)
    assert caught.value.rpc_code == -32602


def test_who_watches_is_told_what_is_so_now(daemon: Daemon) -> None:
    with daemon.wire() as wire:
        now = wire.call("device.watch")
        assert list(now["capabilities"]) == FIELDS
        assert "should_throttle" in now["advice"]
        assert wire.call("daemon.status")["state"] == "ok"
