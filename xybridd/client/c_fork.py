"""A child that C forked, without a word to Python, as an embedding server may do.

CPython asks for `PyOS_AfterFork_Child` there. Without it the interpreter's lock is as the fork found it, maybe in the
midst of being waited for by a thread that the child does not have, and the first thread that the child starts hangs.
"""

from __future__ import annotations

import os


def tell_python() -> None:
    """Do what was left out, while it is safe: the child has no other thread yet. Runs the hooks of a fork by Python."""
    try:
        if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - without importing anything
            return
    except OSError:
        return
    try:
        from xybridd.client._recorder import after_fork_child  # noqa: PLC0415 - rarely needed
    except ImportError:
        import ctypes  # noqa: PLC0415

        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        after_fork_child()
