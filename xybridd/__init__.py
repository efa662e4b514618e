"""On-device telemetry for apps that run AI models.

    import xybridd

    client = xybridd.connect(app="kiosk")
    client.record_inference("whisper-tiny", "1.0", latency_ms=212)

What is recorded goes to the xybridd daemon of this device, which keeps it durably and counts it exactly once. Nothing
here raises into the app, and nothing waits: see `xybridd.client`.
"""

from xybridd.client.client import Client, connect

__all__ = ["Client", "__version__", "connect"]

__version__ = "0.1.0"
