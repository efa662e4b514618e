"""Asking macOS: its commands, and the property lists that they print. What only a Mac needs is imported when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xybridd.probes.probe import none_there, sure, unknown

if TYPE_CHECKING:
    from xybridd.core.capabilities import Reading


def ask(*command: str, limit_s: float = 0.9) -> bytes | None:
    """What a command of macOS prints, or None: not there, failed, or too slow."""
    import subprocess  # noqa: PLC0415

    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def ioreg_entries(raw: bytes) -> list[dict[str, Any]] | None:
    """The entries of an ``ioreg -a`` output, which is empty when there is none; None when it is no property list."""
    import plistlib  # noqa: PLC0415

    if not raw.strip():
        return []
    try:
        entries = plistlib.loads(raw)
    except Exception:  # noqa: BLE001 - plistlib raises half a dozen kinds, expat's and struct's among them
        return None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else None


def mac_reading(quantity: list[dict[str, Any]] | None, now_s: float, source: str) -> Reading:
    """The reading of what an ``ioreg`` output was parsed to."""
    if quantity is None:
        return unknown(now_s, "no property list", source)
    return sure(quantity, now_s, source) if quantity else none_there(now_s, source)
