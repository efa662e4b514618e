"""On-device telemetry for apps that run AI models.

    import xybridd

    client = xybridd.connect(app="kiosk")
    client.record_inference("whisper-tiny", "1.0", latency_ms=212)

What is recorded goes to the xybridd daemon of this device, which keeps it durably and counts it exactly once. Nothing
here raises into the app, and nothing waits: see `xybridd.client`. What runs through a library that is known is
recorded without a line of its own: ``xybridd.instrument("onnxruntime")``, see `xybridd.integrations`.
"""

from xybridd.client.client import Client, connect

__all__ = ["Client", "__version__", "connect", "instrument", "uninstrument"]

__version__ = "0.1.0"


def instrument(name: str, client: Client | None = None) -> None:
    """Record what a library (``onnxruntime``, ``openai``, …) runs from now on, with ``client`` or one made for it.

    Nothing when that is done already. Raises ValueError for an unknown name, with those that are known; ImportError
    when the library is not installed. The library's own calls return and raise what they did before.
    """
    from xybridd.integrations import register  # noqa: PLC0415 - only who instruments pays for it

    register.instrument(name, client)


def uninstrument(name: str) -> None:
    """Put the library's functions back as `instrument` found them. Raises ValueError for an unknown name."""
    from xybridd.integrations import register  # noqa: PLC0415 - only who instruments pays for it

    register.uninstrument(name)
