from __future__ import annotations

import msgspec
import pytest

from xybridd.core.capabilities import Confidence, HardwareCapabilities, Reading, capabilities_from


def test_the_defaults_are_the_references() -> None:
    assert list(msgspec.to_builtins(HardwareCapabilities()).items()) == [
        ("has_gpu", False),
        ("gpu_type", "None"),
        ("has_nnapi", False),
        ("has_metal", False),
        ("has_npu", False),
        ("npu_type", "None"),
        ("memory_available_mb", 0),
        ("memory_total_mb", 0),
        ("cpu_usage_percent", 0.0),
        ("cpu_cores", 1),
        ("battery_level", 100),
        ("thermal_state", "Normal"),
        ("platform", "Unknown"),
        ("memory_confidence", "Low"),
        ("gpu_confidence", "Low"),
        ("npu_confidence", "Low"),
    ]


def test_what_nobody_read_is_unknown() -> None:
    caps = capabilities_from({})
    assert caps == HardwareCapabilities(
        memory_confidence=Confidence.UNKNOWN, gpu_confidence=Confidence.UNKNOWN, npu_confidence=Confidence.UNKNOWN
    )


def test_readings_become_the_references_fields() -> None:
    sizes = {"available_bytes": 3 * 2**20 - 1, "total_bytes": 8 * 2**30}
    caps = capabilities_from(
        {
            "memory": Reading(sizes, Confidence.HIGH, "/proc/meminfo", 1.0),
            "cpu_cores": Reading(4, Confidence.HIGH, "x", 1.0),
            "cpu_usage_percent": Reading(12.5, Confidence.HIGH, "x", 1.0),
            "platform": Reading("Linux", Confidence.HIGH, "x", 1.0),
        }
    )
    assert (caps.memory_available_mb, caps.memory_total_mb, caps.memory_confidence) == (2, 8192, "High")
    assert (caps.cpu_cores, caps.cpu_usage_percent, caps.platform) == (4, 12.5, "Linux")


@pytest.mark.parametrize(("now_s", "age_s"), [(12.0, 2.0), (10.0, 0.0), (9.0, 0.0)])
def test_a_reading_says_how_old_it_is(now_s: float, age_s: float) -> None:
    shown = Reading(None, Confidence.UNKNOWN, None, 10.0).shown(now_s)
    assert shown == {"value": None, "confidence": "unknown", "source": None, "age_s": age_s}
