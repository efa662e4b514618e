"""What the daemon does without, so that a device hardly notices it.

asyncio imports ssl where there is one: 4 MB, and a twentieth of the time that starting takes, for a daemon that speaks
over a Unix socket alone (its sender, a process of its own, does speak TLS). asyncio also runs where Python was built
without ssl, so it is shown such a Python, and only while it is imported.
"""

from __future__ import annotations

import sys


def import_asyncio_without_ssl() -> None:
    """Does nothing when either is imported already."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment] # what makes an import fail (importlib's documentation)
    try:
        import asyncio  # noqa: F401, PLC0415 - for what it leaves in sys.modules
    finally:
        del sys.modules["ssl"]
